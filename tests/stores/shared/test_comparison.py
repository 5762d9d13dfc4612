"""The files of a host compared with a real server: what it would serve although the server has something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.base import Compared
from flask_stalecache.stores.shared.known import number_of
from flask_stalecache.stores.shared.store import RedisStore
from flask_stalecache.stores.table.stamps import slot_of
from support.shared_hosts import Server
from support.store_contract import NEWS, begun
from support.threads import PATIENCE

MakeStore = Callable[[str], RedisStore]
OTHER = "the server has another entry, and this host does not know"
REMOVED = "it was removed on all hosts, and this host does not know"
PURGED = "it was purged on all hosts, and this host does not know"


@pytest.fixture
def make_store(server: Server, tmp_path: Path) -> MakeStore:
    def make(host: str) -> RedisStore:
        made = RedisStore(server.url, tmp_path / host, name="test", purge_wait=0, timeout=PATIENCE)
        made.load("first use")
        return made

    return make


@pytest.fixture
def stores(make_store: MakeStore) -> tuple[RedisStore, RedisStore]:
    """Return two hosts that have the same page, and have read all that there is to read."""
    one, two = make_store("one"), make_store("two")
    assert one.write(begun(one, "page"))
    assert two.load("page").entry is not None
    two.follower.read_once()
    one.follower.read_once()
    return one, two


def believe(store: RedisStore, key: str = "page") -> None:
    """Let a host take its entry for the server's, as a lost change would."""
    entry = store._files.load(key).entry
    assert entry is not None
    store._known.put(slot_of(digest(key)), number_of(entry.serial))


def test_hosts_that_agree(stores: tuple[RedisStore, RedisStore]) -> None:
    for store in stores:
        assert store.compare(fix=False) == Compared("", same=1)


def test_a_change_that_was_heard_is_no_problem(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    assert one.write(begun(one, "page", body=b"new"))
    two.follower.read_once()
    assert two.compare(fix=False) == Compared("", replaced=1)
    assert two.load("page").entry is not None
    assert two.compare(fix=False) == Compared("", same=1)


def test_a_change_that_was_not_heard(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    assert one.write(begun(one, "page", body=b"new"))
    found = two.compare(fix=False)
    assert found == Compared("", unread_changes=1, problems=(("page", OTHER),))
    two.follower.read_once()
    believe(two)
    assert two.compare(fix=False).problems == (("page", OTHER),)
    assert two.compare(fix=True).problems == (("page", OTHER),)
    assert two.compare(fix=False).problems == ()
    entry = two.load("page").entry
    assert entry is not None
    assert entry.body == b"new"


def test_a_removal_that_was_not_heard(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    one.remove("page")
    assert two.compare(fix=True) == Compared("", unread_changes=1, problems=(("page", REMOVED),))
    assert two.compare(fix=False) == Compared("", unread_changes=1)
    assert two._files.load("page").entry is None


def test_a_purge_that_was_not_heard(stores: tuple[RedisStore, RedisStore]) -> None:
    one, two = stores
    one.purge(NEWS, soft=False)
    found = two.compare(fix=False)
    assert found.problems == (("page", PURGED),)
    assert found.has_unread_purges
    two.follower.read_once()
    assert two.compare(fix=False) == Compared("")


def test_what_the_server_lacks_is_no_problem(server: Server, stores: tuple[RedisStore, RedisStore]) -> None:
    client = server.client()
    client.delete(*client.keys("stalecache:{test}:e:*"))
    assert stores[1].compare(fix=True) == Compared("", alone=1)
    assert stores[1].load("page").entry is not None


def test_a_server_that_was_emptied(server: Server, stores: tuple[RedisStore, RedisStore]) -> None:
    server.client().flushall()
    assert stores[0].compare(fix=False) == Compared("", alone=1, has_unread_purges=True)


def test_a_server_that_can_not_be_reached(make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    mortal = Server(tmp_path_factory.mktemp("mortal"))
    store = RedisStore(mortal.url, tmp_path / "alone", name="test", timeout=PATIENCE)
    assert store.write(begun(store, "page"))
    mortal.kill()
    for _ in range(2):
        assert "can't be" in store.compare(fix=True).failure
    assert store.load("page").entry is not None
    store.follower.stop()


def test_many_entries(stores: tuple[RedisStore, RedisStore]) -> None:
    one, _ = stores
    for number in range(450):
        assert one.write(begun(one, f"page {number}"))
    one.follower.read_once()
    assert one.compare(fix=False) == Compared("", same=451)


def test_a_host_that_has_nothing_yet(
    make_store: MakeStore, stores: tuple[RedisStore, RedisStore], server: Server, tmp_path: Path
) -> None:
    new = RedisStore(server.url, tmp_path / "new", name="test")
    assert [stored.entry.key for stored in new.walk()] == ["page"]
    assert new.compare(fix=False).failure == ""
    assert not new.directory.exists()
