"""A host that has not heard the server for too long serves nothing as fresh that was made before: SHARED_MAX_DEAF."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from flask_stalecache import ConfigError
from flask_stalecache.stores.shared import known as known_module
from flask_stalecache.stores.shared.store import RedisStore
from support.shared_hosts import Server
from support.store_contract import begun

pytestmark = pytest.mark.server
LONGEST = 60
_HEARD_AT, _ENDED_AT = known_module._HEARD_AT, known_module._ENDED_AT


@pytest.fixture
def host(server: Server, tmp_path: Path) -> RedisStore:
    made = RedisStore(server.url, tmp_path / "one", name="test", purge_wait=0, max_deaf=LONGEST)
    assert made.load("page").entry is None
    assert made.write(begun(made))
    return made


def passes(host: RedisStore, seconds: float) -> None:
    """Let time pass without a word of the server."""
    for moment in (_HEARD_AT, _ENDED_AT):
        if host._known._header[moment]:
            host._known._header[moment] -= int(seconds * 1e6)


def is_fresh(host: RedisStore) -> bool:
    entry = (host.lookup("page") or host.load("page")).entry
    assert entry is not None
    return entry.is_fresh(time.time())


def test_freshness_ends_after_so_many_seconds_and_what_is_made_then_is_fresh_as_long(
    host: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    host._known.note_down()
    passes(host, LONGEST - 1)
    host._deafness.tick()
    assert is_fresh(host)
    assert host.lookup("page") is not None
    passes(host, 2)
    with caplog.at_level(logging.WARNING):
        host._deafness.tick()
        # The copy in memory does not stand any more.
        assert host.lookup("page") is None
        assert not is_fresh(host)
        assert host.write(begun(host, body=b"new"))
        for _ in range(3):
            host._deafness.tick()
            assert is_fresh(host)
        passes(host, LONGEST)
        host._deafness.tick()
        assert not is_fresh(host)
    assert caplog.text.count("STALECACHE_SHARED_MAX_DEAF (60 s)") == 1


def test_what_is_ended_stays_so_when_the_server_is_back_and_nobody_else_is_told(
    host: RedisStore, server: Server, tmp_path: Path
) -> None:
    other = RedisStore(server.url, tmp_path / "two", name="test", purge_wait=0)
    assert is_fresh(other)
    passes(host, LONGEST + 1)
    host._deafness.tick()
    for store in (host, other, host):
        store.follower.read_once()
    assert (is_fresh(host), is_fresh(other)) == (False, True)
    assert host.write(begun(host, body=b"new"))
    host._deafness.tick()
    assert is_fresh(host)


def test_a_process_that_begins_on_a_deaf_host_serves_nothing_as_fresh(server: Server, host: RedisStore) -> None:
    host._known.note_down()
    passes(host, LONGEST + 1)
    host._known.tick()
    later = RedisStore(server.url, host.directory, name="test", purge_wait=0, max_deaf=LONGEST)
    assert not is_fresh(later)


def test_without_it_freshness_goes_on(server: Server, tmp_path: Path) -> None:
    host = RedisStore(server.url, tmp_path / "one", name="test", purge_wait=0)
    assert host.load("page").entry is None
    assert host.write(begun(host))
    host._known.note_down()
    passes(host, 10 * LONGEST)
    host._deafness.tick()
    assert is_fresh(host)


def test_too_few_seconds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 5 seconds"):
        RedisStore("redis://localhost", tmp_path, name="test", max_deaf=1)
