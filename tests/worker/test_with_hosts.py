"""The worker of one of several hosts that share a Redis or Valkey: the other hosts see the pages that it makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shared_hosts import Server
from support.threads import wait_until
from support.worker_site import WorkerSite

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.fixture
def hosts(tmp_path: Path, server: Server) -> list[WorkerSite]:
    """Two hosts, each with a directory of its own."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    return [WorkerSite(folder, STORE=server.url) for folder in folders]


def test_what_the_worker_of_one_host_makes_is_seen_on_another(hosts: list[WorkerSite], server: Server) -> None:
    first, second = hosts
    with first.worker() as worker:
        first.await_worker(worker.pid)
        first.fill("/1")
        made_by = first.await_maker("/1")
        wait_until(lambda: second.maker("/1") == made_by, "the second host has it")
        assert second.runs() == [], "the second host has made nothing"
        with first.app.app_context():
            (outcome,) = first.cache.warm("http://localhost/2")
        assert (outcome.stored, outcome.reason) == (True, "")
        assert first.maker("/2") == second.maker("/2") == first.runs()[-1] != os.getpid()
        # Without the server, each host goes on by itself, and the worker with it.
        server.kill()
        first.await_run("/1", len(first.runs()))
        assert first.runs()[-1] == made_by
