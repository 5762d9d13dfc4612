"""The store of many hosts, on a real server: round trips, what reaches other hosts, locks.

Covers ``stores.shared.scripts``, ``stores.shared.lua``, ``stores.shared.lock`` and ``stores.shared.content``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.stores.base import Store, find_key
from flask_stalecache.stores.shared.store import RedisStore
from support.engine import make_entry
from support.shared_hosts import Server
from support.store_contract import NEWS, NOTE, begun

LARGE = 2 * 1024 * 1024
MakeStore = Callable[..., RedisStore]


@pytest.fixture
def make_store(server: Server, tmp_path: Path) -> MakeStore:
    def make(host: str, **settings: Any) -> RedisStore:
        made = RedisStore(server.url, tmp_path / host, name="test", **{"purge_wait": 0, **settings})
        made.load("first use")
        return made

    return make


@pytest.fixture
def stores(make_store: MakeStore) -> tuple[RedisStore, RedisStore]:
    return make_store("one"), make_store("two")


def trips(server: Server, deed: Callable[[], Any]) -> int:
    """Return how many scripts were sent to the server while something was done."""
    client = server.client()
    client.config_resetstat()
    deed()
    counts: dict[str, Any] = client.info("commandstats")
    # A script that the server does not know yet takes one more, once.
    return int(counts.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_store_is_complete(stores: tuple[RedisStore, RedisStore]) -> None:
    store: Store = stores[0]
    assert store.usage().entries == 0


def test_round_trips(server: Server, stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    lock = one.lock("page")

    def fill() -> None:
        assert one.load("page").entry is None
        assert lock.acquire()
        assert one.load("page").entry is None
        assert one.write(begun(one))
        assert one.load("page").entry is not None
        lock.release()

    assert trips(server, fill) == 4
    assert trips(server, lambda: one.lookup("page")) == 0
    assert trips(server, lambda: one.load("page")) == 0
    assert trips(server, lambda: two.load("page")) == 1
    assert trips(server, lambda: (two.lookup("page"), two.load("page"))) == 0
    assert trips(server, lambda: one.write(begun(one, body=b"new"))) == 1
    assert trips(server, lambda: one.write_note("page", NOTE)) == 1
    assert trips(server, lambda: one.purge(NEWS, soft=False)) == 1


def test_what_one_host_stores_the_other_serves(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    for body in (b"short", b"long" * 5000, os.urandom(3000), b""):
        assert one.write(begun(one, body=body))
        two.follower.read_once()
        copy = two.load("page")
        assert copy.entry is not None
        assert copy.entry.body == body
        assert two.lookup("page") is copy


def test_a_large_body_stays_on_its_host(stores: tuple[RedisStore, RedisStore], server: Server) -> None:
    one, two = stores
    assert one.write(begun(one, body=b"a"))
    assert two.load("page").entry is not None
    large = begun(one, body=os.urandom(LARGE))
    assert one.write(large)
    two.follower.read_once()
    mine, theirs = one.load("page").entry, two.load("page").entry
    assert mine is not None
    assert mine.length == LARGE
    assert theirs is not None
    assert theirs.body == b"a"
    assert server.client().info("memory")["used_memory_dataset"] < LARGE


def test_what_is_removed_goes_everywhere(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    assert one.write(begun(one))
    assert two.load("page").entry is not None
    one.remove("page")
    two.follower.read_once()
    assert two.lookup("page") is None
    assert two.load("page").entry is None
    assert two.write(begun(two, body=b"new"))
    one.follower.read_once()
    assert one.load("page").entry is not None


def test_what_the_server_has_evicted_stays(stores: tuple[RedisStore, RedisStore], server: Server) -> None:
    one, two = stores
    assert one.write(begun(one))
    assert two.load("page").entry is not None
    server.client().delete(f"stalecache:{{test}}:e:{digest('page')}")
    two.follower.read_once()
    assert two.load("page").entry is not None


def test_notes_of_failures_reach_others(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    assert one.write(begun(one))
    assert two.load("page").note == NOTHING
    one.write_note("page", NOTE)
    two.follower.read_once()
    assert two.load("page").note == NOTE
    one.write_note("page", NOTHING)
    two.follower.read_once()
    assert two.load("page").note == NOTHING


def test_a_purge_wins_over_what_was_begun_elsewhere(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    late = begun(two)
    one.purge(NEWS, soft=False)
    assert not two.write(late)
    assert two.write(begun(two, body=b"new"))
    one.follower.read_once()
    copy = one.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"new"


def test_a_host_that_fetches_first_applies_purges_that_it_has_not_heard(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    assert one.write(begun(one, "other", names=("all", NEWS)))
    assert two.load("other").entry is not None
    one.purge(NEWS, soft=False)
    assert one.write(begun(one, "page"))
    assert two.load("page").entry is not None
    assert two.load("other").entry is None


def test_one_host_a_lock_and_a_dead_holder_on_this_one(make_store: MakeStore) -> None:
    one, again, two = make_store("one"), make_store("one"), make_store("two")
    mine, theirs = one.lock("page"), two.lock("page")
    assert mine.acquire()
    assert not theirs.acquire()
    assert not again.lock("page").acquire()
    # Its process was killed: the lock file is free, and the lease stands.
    mine._local.release()
    assert not two.lock("page").acquire()
    taken = again.lock("page")
    assert taken.acquire()
    taken.release()
    assert two.lock("page").acquire()


def test_a_lease_that_was_lost_stores_nothing_over_a_newer_entry(stores: tuple[RedisStore, RedisStore], server: Server) -> None:
    one, two = stores
    slow, quick = one.lock("page"), two.lock("page")
    assert slow.acquire()
    server.client().delete(f"stalecache:{{test}}:l:{digest('page')}")
    assert quick.acquire()
    assert two.write(begun(two, body=b"newer"))
    quick.release()
    assert not one.write(begun(one, body=b"late"))
    copy = one.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"newer"
    slow.release()


def test_leases_are_renewed_until_their_lock_is_garbage(make_store: MakeStore, server: Server) -> None:
    store = make_store("one", lease=15)
    lock = store.lock("page")
    assert lock.acquire()
    key, client = f"stalecache:{{test}}:l:{digest('page')}", server.client()
    client.pexpire(key, 1000)
    store._leases._renewed_at -= 10
    store._leases.tick()
    assert client.pttl(key) > 10_000
    client.pexpire(key, 1000)
    del lock
    store._leases._renewed_at -= 10
    store._leases.tick()
    assert client.pttl(key) <= 1000


def test_a_lease_is_long_where_nothing_could_renew_it(make_store: MakeStore, server: Server) -> None:
    store = make_store("one", lease=15, longest_lease=100)
    # The housekeeping runs in this thread.
    store._leases.tick()
    lock = store.lock("page")
    assert lock.acquire()
    assert server.client().pttl(f"stalecache:{{test}}:l:{digest('page')}") > 90_000


def test_a_walk_finds_what_only_others_have(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    for key in ("one", "both", "gone"):
        assert one.write(begun(one, key))
    assert two.load("both").entry is not None
    assert two.write(begun(two, "two", names=("all",)))
    assert sorted(stored.entry.key for stored in two.walk()) == ["both", "gone", "one", "two"]
    assert find_key(two, digest("one")) == "one"
    recalled = two.recall(NEWS)
    one.purge(NEWS, soft=False)
    two.follower.read_once()
    assert [stored.entry.key for stored in two.walk()] == ["two"]
    assert sorted(stored.entry.key for stored in recalled()) == ["both", "gone", "one"]


def test_an_entry_of_another_version_is_none(stores: tuple[RedisStore, RedisStore], server: Server) -> None:
    one, two = stores
    assert one.write(begun(one))
    server.client().hset(f"stalecache:{{test}}:e:{digest('page')}", "h", b"FSC9 of the future")
    assert two.load("page").entry is None
    assert [stored.entry.key for stored in two.walk()] == []
    assert two.write(replace(make_entry("page", b"mine"), seq=two.seq()))
    copy = two.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"mine"


def test_a_host_that_joins_after_a_soft_purge_gets_entries_that_it_has_ended(make_store: MakeStore) -> None:
    one = make_store("one")
    assert one.write(begun(one))
    one.purge(NEWS, soft=True)
    late = make_store("late")
    for _ in range(2):
        entry = late.load("page").entry
        assert entry is not None
        # Its clock may go back.
        assert not entry.is_fresh(entry.answered)
        assert entry.ended
        late.forget()


def test_a_purge_that_only_this_host_knows_keeps_an_entry_from_the_server(
    stores: tuple[RedisStore, RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = stores
    late = begun(one)
    one._files.purge(NEWS, soft=False)
    assert not one.write(late)
    assert two.load("page").entry is None
    # Or one that comes while the server stores it.
    later, write = begun(one, body=b"later"), one._scripts.write

    def write_and_purge(*args: Any) -> Any:
        answer = write(*args)
        one._files.purge(NEWS, soft=False)
        return answer

    monkeypatch.setattr(one._scripts, "write", write_and_purge)
    assert not one.write(later)
    two.follower.read_once()
    assert two.load("page").entry is None
