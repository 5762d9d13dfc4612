"""Hosts and their statistics at a real server: who is there, who lags, and sums that do not go back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.config import settings as config
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.engine.runtime import Runtime
from flask_stalecache.frontends.setup.engine_setup import make_registry
from flask_stalecache.metrics import StaleCacheCollector
from flask_stalecache.stats.many_hosts import HostState
from flask_stalecache.stats.schema import Stats
from flask_stalecache.stores.shared import host_reports
from flask_stalecache.stores.shared.host_reports import HostReports
from flask_stalecache.stores.shared.known import Known
from flask_stalecache.stores.shared.store import RedisStore
from support.host_apps import live_for_long
from support.shared_hosts import Server
from support.threads import PATIENCE

TOLD = "stalecache:{test}:S"
DAY = 86_400_000_000


class Host:
    """One host with a store and counters."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.store = RedisStore(server.url, directory, name="test", purge_wait=0, timeout=PATIENCE)
        self.runtime = Runtime(self.store, config.read({}), self.store.counters, make_registry(self.store, self.store.counters))
        self.store.load("first use")

    @property
    def name(self) -> str:
        known = Known(self.store.directory)
        known.open()
        return known.host_id()

    def serve(self, hits: int) -> None:
        for _ in range(hits):
            self.runtime.registry.tally("endpoint", "page").served(CacheStatus.HIT, 0.002)

    def tell(self) -> None:
        self.store.numbers.tell(self.runtime.stats_here())

    def hits(self) -> int:
        return self.runtime.stats()["requests"]["HIT"]

    def shared(self) -> dict[str, dict[str, Any]]:
        return {host["name"]: dict(host) for host in self.runtime.stats()["shared"]["hosts"]}


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[[str], Host]:
    return lambda name: Host(server, tmp_path / name)


def age(server: Server, directories: list[bytes] | None = None) -> None:
    """Change the reports at the server as if hosts had sent them two days earlier."""
    client = server.client()
    for name, raw in client.hgetall(TOLD).items():
        if directories is None or name in directories:
            at, rest = raw.split(b" ", 1)
            client.hset(TOLD, name, b"%d %s" % (int(at) - 2 * DAY, rest))


def test_statistics_are_of_all_hosts(make: Callable[[str], Host]) -> None:
    one, two = make("one"), make("two")
    one.serve(3)
    two.serve(4)
    two.tell()
    assert (one.hits(), two.hits()) == (7, 4)
    one.tell()
    one.serve(1)
    assert (one.hits(), two.hits()) == (8, 7)
    assert one.runtime.stats_here()["requests"]["HIT"] == 4
    shared = one.shared()
    assert set(shared) == {one.name, two.name}
    assert shared[one.name]["here"]
    assert shared[two.name]["requests"]["HIT"] == 4
    assert shared[two.name]["workers"] == 1


def test_a_host_tells_its_numbers_every_15_seconds(
    server: Server, make: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, clock = make("one"), [1000.0]
    monkeypatch.setattr(host_reports, "seconds_up", lambda: clock[0])
    asked = []

    def stats() -> Stats:
        asked.append(clock[0])
        return one.runtime.stats_here()

    # Another process of the host has a table of its own, and sees what was noted.
    other = HostReports(one.store._client, "test", Known(one.store.directory), one.store.directory)
    other._known.open()
    for moment in (1000.0, 1001.0, 1014.0, 1015.0, 1016.0):
        clock[0] = moment
        one.store.numbers.tell_if_due(stats)
        other.tell_if_due(stats)
    assert asked == [1000.0, 1015.0]
    # The machine was started again.
    clock[0] = 5.0
    one.store.numbers.tell_if_due(stats)
    assert asked[2:] == [5.0]


def test_housekeeping_tells(make: Callable[[str], Host]) -> None:
    one, two = make("one"), make("two")
    two.serve(2)
    two.runtime.tick()
    assert one.hits() == 2
    two.store.follower.stop()


def test_states_of_hosts(server: Server, make: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch) -> None:
    live_for_long(monkeypatch)
    one, two, silent = make("one"), make("two"), make("silent")
    for host in (one, two, silent):
        host.tell()
        host.store.follower.read_once()
    assert {host["state"] for host in one.shared().values()} == {"connected"}
    assert one.runtime.stats()["shared"]["last_purge"] is None
    one.store.purge("news", soft=False)
    one.store.purge("sport", soft=True)
    two.store.follower.read_once()
    client = server.client()
    applied, heard = client.hget("stalecache:{test}:H", silent.name).split()
    client.hset("stalecache:{test}:H", silent.name, b"%s %d" % (applied, int(heard) - 3_600_000_000))
    shared = one.shared()
    assert shared[silent.name]["state"] == "deaf"
    assert shared[silent.name]["silence"] >= 3600
    assert shared[silent.name]["behind"] == 2
    assert 0 < shared[silent.name]["late"] < 60
    assert [shared[host.name]["behind"] for host in (one, two)] == [0, 0]
    looked = one.store.numbers.look(one.runtime.stats_here())
    assert looked.behind == [silent.name]
    assert looked.last_purge is not None
    assert looked.last_purge < 60
    # After a day it is not listed, and no line is kept for it.
    client.hset("stalecache:{test}:H", silent.name, b"%s %d" % (applied, int(heard) - DAY - 1_000_000))
    age(server)
    assert silent.name not in one.shared()
    assert client.hget("stalecache:{test}:H", silent.name) is None
    for host in (one, two, silent):
        host.tell()
    # The bookkeeping is lost, the numbers are not.
    client.delete("stalecache:{test}:H")
    assert {host["state"] for host in one.shared().values()} == {"unknown"}


def test_a_machine_that_was_started_again_counts_once(server: Server, make: Callable[[str], Host]) -> None:
    one, two = make("one"), make("two")
    one.serve(3)
    one.tell()
    before = one.name
    # Its name has changed, since that has to do with the start of the machine.
    one.store._known._header[5] += 1
    assert one.name != before
    assert one.hits() == 3
    one.tell()
    assert two.hits() == 3
    assert len(server.client().hgetall(TOLD)) == 1


def test_hosts_that_have_gone_still_count(server: Server, make: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_reports, "MOST", 1)
    here, gone, late, there = (make(name) for name in ("here", "gone", "late", "there"))
    for number, host in enumerate((gone, late), 1):
        host.serve(10**number)
        host.tell()
    client = server.client()
    age(server)
    there.serve(1)
    there.tell()
    client.delete("stalecache:{test}:H")
    assert here.hits() == 111
    stats = here.runtime.stats()
    assert (stats["shared"]["gone"], stats["workers"]) == (2, 1)
    here.store.numbers.fold()
    assert len(client.hgetall(TOLD)) == 2
    assert b"gone" in client.hgetall(TOLD)
    assert here.hits() == 111
    here.store.numbers.fold()
    assert here.hits() == 111
    # One more is added to the sum of those before.
    last = make("last")
    last.serve(1000)
    last.tell()
    age(server, [name for name in client.hgetall(TOLD) if name != b"gone"][-1:])
    here.store.numbers.fold()
    assert here.hits() == 1111


def test_what_is_told_meanwhile_is_not_folded(server: Server, make: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_reports, "MOST", 0)
    here, late = make("here"), make("late")
    late.serve(5)
    late.tell()
    age(server)
    read = here.store.numbers._read()
    late.serve(1)
    late.tell()
    monkeypatch.setattr(here.store.numbers, "_read", lambda: read)
    here.store.numbers.fold()
    monkeypatch.undo()
    assert here.hits() == 6


def test_without_the_server_statistics_are_of_this_host(
    server: Server, make: Callable[[str], Host], tmp_path_factory: pytest.TempPathFactory
) -> None:
    mortal = Server(tmp_path_factory.mktemp("mortal"))
    one = Host(mortal, tmp_path_factory.mktemp("one") / "cache")
    one.store.follower.read_once()
    one.serve(2)
    mortal.kill()
    for _ in range(2):
        stats = one.runtime.stats()
        assert stats["requests"]["HIT"] == 2
        assert "can't" in stats["shared"]["problem"]
        (host,) = stats["shared"]["hosts"]
        assert (host["here"], host["state"], host["workers"]) == (True, "deaf", 1)
        one.runtime.tick()
    one.store.follower.stop()


def test_a_host_exports_its_own_numbers_only(server: Server, make: Callable[[str], Host]) -> None:
    """Prometheus adds up its targets."""
    one, two = make("one"), make("two")
    two.serve(5)
    two.tell()
    app = Flask("shop")
    StaleCache(app, store=one.store)
    one.serve(2)
    samples = [sample for family in StaleCacheCollector(app).collect() for sample in family.samples]
    (hits,) = [each.value for each in samples if each.name == "stalecache_requests_total" and each.labels["status"] == "HIT"]
    assert hits == 2
    with app.app_context():
        assert app.extensions["stalecache"].engine.runtime.stats()["requests"]["HIT"] == 7


@pytest.mark.parametrize("raw", [b"", b"7", b"x host {}", b"7 host nothing", b"7 host x\x9c", b"7 \xff x", b"0 - {}"])
def test_what_is_no_number_is_left_out(server: Server, make: Callable[[str], Host], raw: bytes) -> None:
    one, two = make("one"), make("two")
    two.serve(2)
    two.tell()
    server.client().hset(TOLD, "nonsense", raw)
    server.client().hset(TOLD, b"\xff", raw)
    assert one.hits() == 2
    one.store.numbers.fold()


def test_states_are_those_that_are_told() -> None:
    assert [str(state) for state in HostState] == ["connected", "deaf", "unknown"]
