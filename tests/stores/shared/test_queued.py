"""Marks of queued refreshes, for all hosts, at a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache import RedisStore
from flask_stalecache.stores.base import QueueingStore
from support.shared_hosts import Server
from support.threads import PATIENCE


@pytest.fixture
def make_store(server: Server, tmp_path: Path) -> Callable[[str], RedisStore]:
    return lambda name: RedisStore(server.url, tmp_path / name, name="shop", timeout=PATIENCE)


def test_one_host_queues_a_refresh(make_store: Callable[[str], RedisStore], server: Server) -> None:
    one, two = make_store("one"), make_store("two")
    assert isinstance(one, QueueingStore)
    assert one.queue_marks.mark("page", 100) == 0
    assert 99 < two.queue_marks.mark("page", 100) <= 100
    assert one.queue_marks.mark("another", 0.05) == 0
    two.queue_marks.unmark("page")
    assert two.queue_marks.mark("other page", 100) == 0
    assert {key.decode().rpartition(":")[0] for key in server.client().scan_iter()} == {"stalecache:{shop}:q"}
    assert make_store("three").queue_marks.mark("page", 100) == 0


def test_a_host_does_not_ask_for_what_it_has_marked_itself(make_store: Callable[[str], RedisStore], server: Server) -> None:
    one = make_store("one")
    one.queue_marks.mark("page", 100)
    server.client().flushall()
    assert one.queue_marks.mark("page", 100) > 99


def test_without_the_server_each_host_marks_for_itself(make_store: Callable[[str], RedisStore], server: Server) -> None:
    one, two = make_store("one"), make_store("two")
    server.kill()
    try:
        assert [store.queue_marks.mark("page", 100) for store in (one, two)] == [0, 0]
        assert one.queue_marks.mark("page", 100) > 99
        one.queue_marks.unmark("page")
        assert one.queue_marks.mark("page", 100) == 0
    finally:
        server.start()
