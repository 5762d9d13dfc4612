"""What other hosts could not hear is told later: purges and removals of a host that was alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache import StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.shared import backlog as backlog_module
from flask_stalecache.stores.shared.store import RedisStore
from support.purging import NEW, NEWS, OLD, SPORT, begun, body_in, fresh_body_in
from support.shared_hosts import Host, Server
from support.store_contract import NOTE
from support.store_contract import begun as begun_by_store
from support.threads import PATIENCE

pytestmark = pytest.mark.server

MakeHost = Callable[[str], Host]


def fill(*hosts: Host, body: bytes = OLD) -> None:
    for host in hosts:
        assert host.files.write(begun(host.files, body))


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_made_alone_reaches_the_others_though_they_have_purged_since(hosts: list[Host], soft: bool) -> None:
    one, two = hosts
    fill(one, two)
    one.purge_alone(NEWS, soft=soft)
    # This purge has a higher number than the one before.
    two.follower.purge((SPORT,), soft=False)
    one.read()
    two.read()
    assert [fresh_body_in(host.files) for host in hosts] == [None, None]
    assert [body_in(host.files) for host in hosts] == ([OLD, OLD] if soft else [None, None])


def test_it_is_told_once(hosts: list[Host]) -> None:
    one, two = hosts
    one.purge_alone(NEWS, soft=False)
    for host in (one, two):
        host.read()
    fill(one, two, body=NEW)
    for host in (one, two, one):
        host.read()
    assert [body_in(host.files) for host in hosts] == [NEW, NEW]
    assert not one.follower.backlog.tell(looks=True)


def test_it_waits_until_the_server_hears_it(hosts: list[Host]) -> None:
    one, two = hosts
    fill(two)
    one.purge_alone(NEWS, soft=False)
    one.follower.backlog.add_removal(digest("page"))
    one.link.is_cut = True
    for _ in range(2):
        with pytest.raises(StoreError):
            one.follower.backlog.tell(looks=False)
    one.link.is_cut = False
    # What is added meanwhile is told with it.
    one.follower.backlog.add_removal(digest("other"))
    one.read()
    one.read()
    two.read()
    assert body_in(two.files) is None
    assert one.removed[-2:] == [digest("page"), digest("other")]


def test_threads_do_not_tell_it_at_once(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    backlog = one.follower.backlog
    for number in range(3):
        backlog.add_removal(digest(f"page {number}"))
    told: list[bool] = []

    def remove(_address: str) -> None:
        other = threading.Thread(target=lambda: told.append(backlog.tell(looks=True)))
        other.start()
        other.join(PATIENCE)

    monkeypatch.setattr(backlog, "_remove", remove)
    assert backlog.tell(looks=True)
    assert told == [False, False, False]


def test_another_process_tells_it_after_a_kill(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    one, two = hosts
    fill(two)
    one.purge_alone(NEWS, soft=False)
    (one.directory / "untold").rename(one.directory / "untold.aside")
    (one.directory / "known-1").unlink()
    again = Host(tmp_path / "one", server)
    again.read()
    two.read()
    assert body_in(two.files) is None
    assert not list(one.directory.glob("untold*.aside"))


@pytest.mark.parametrize("change", ["too many", "damaged"])
def test_too_many_and_damaged_ones_are_a_purge_of_everything(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    one, two = hosts
    fill(two)
    if change == "damaged":
        one.purge_alone(SPORT, soft=True)
        with (one.directory / "untold").open("ab") as file:
            file.write(b"\nxx\n")
    else:
        monkeypatch.setattr(backlog_module, "LONGEST", 2000)
        for number in range(100):
            one.follower.backlog.add_removal(digest(f"page {number}"))
        assert (one.directory / "untold").stat().st_size < 3000
    one.read()
    two.read()
    assert body_in(two.files) is None


def test_what_was_removed_while_the_server_was_down_goes_everywhere(server: Server, tmp_path: Path) -> None:
    one, two = (RedisStore(server.url, tmp_path / host, name="test", purge_wait=0) for host in ("one", "two"))
    assert one.load("page").entry is None
    assert one.write(begun_by_store(one))
    assert two.load("page").entry is not None
    one._known.note_down()
    one.remove("page")
    one.follower.read_once()
    two.follower.read_once()
    assert two.lookup("page") is None
    assert two.load("page").entry is None
    assert two.write(begun_by_store(two, body=b"new"))
    for store in (one, two):
        store.follower.read_once()
        assert store.load("page").entry is not None


def test_a_removal_reaches_others_though_the_server_evicts_what_says_so(server: Server, tmp_path: Path) -> None:
    one, two = (RedisStore(server.url, tmp_path / host, name="test", purge_wait=0) for host in ("one", "two"))
    assert one.load("page").entry is None
    assert one.write(begun_by_store(one))
    assert two.load("page").entry is not None
    two.write_note("page", NOTE)
    one.remove("page")
    server.client().delete(f"stalecache:{{test}}:e:{digest('page')}")
    two.follower.read_once()
    assert two.load("page").entry is None
