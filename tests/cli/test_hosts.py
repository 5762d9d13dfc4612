"""``flask stalecache`` with several hosts on a real server, and without it. Covers ``cli.hosts`` and ``stats.host_rows``."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.cli import follow
from flask_stalecache.cli.hosts import host_lines
from flask_stalecache.core.formatting import NONE
from flask_stalecache.stats.schema import HostNumbers, SharedNumbers
from flask_stalecache.stores.base import Acknowledged
from flask_stalecache.stores.shared import follower, logs
from support.host_apps import BASE, Host, live_for_long
from support.shared_hosts import Server
from support.threads import PATIENCE

MakeHost = Callable[..., Host]


@pytest.fixture(scope="module")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(long_server: Server) -> Server:
    long_server.client().flushall()
    return long_server


@pytest.fixture
def make_host(
    server: Server,
    make_app: Callable[..., tuple[Flask, StaleCache]],
    tmp_path: Path,
    no_housekeeping: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeHost]:
    made: list[Host] = []
    # Milliseconds that a read waits at most: a follower stops only once its read has returned.
    monkeypatch.setattr(follower, "BLOCK", 100)
    live_for_long(monkeypatch)

    def make(name: str, at: Server = server, **settings: Any) -> Host:
        settings = {"STORE": at.url, "DIR": tmp_path / name, "BASE_URL": BASE, "SHARED_TIMEOUT": PATIENCE, **settings}
        # Each test has a cache of its own, since the follower of an earlier test may still run.
        settings = {"SHARED_NAME": tmp_path.name, "SHARED_PURGE_WAIT": PATIENCE, **settings}
        app, cache = make_app(**settings)

        made.append(Host(app, cache))
        return made[-1]

    yield make
    for host in made:
        host.store.follower.stop()


@pytest.fixture
def hosts(make_host: MakeHost) -> tuple[Host, Host]:
    """Return two hosts that follow the server and have reported their statistics to it."""
    one, two = make_host("one"), make_host("two")
    for host in (one, two):
        host.visit()
        host.store.follower.tick()
        host.runtime.tick()
    return one, two


# -- stats -----------------------------------------------------------------------------------------------------------


def test_statistics_list_the_hosts(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    said = one.lines("stats")
    head = said.index("WEB HOST STATE HEARD BEHIND ENTRIES SIZE WORKERS REQUESTS FROM STORE ORIGIN CALLS")
    rows = sorted(said[head + 1 : head + 3])
    whose, numbers = zip(*(re.split(r" now | [0-9.]+ s ago ", row) for row in rows), strict=True)
    assert list(whose) == sorted([f"{one.name} (this one) connected", f"{two.name} connected"])
    assert set(numbers) == {
        "no 1 4.0 KiB 1 1 0 % 1",
        "no 1 4.0 KiB 1 1 100 % 0",
    }
    assert "origins 1 calls, 0 failed" in said
    shared = json.loads(one.run("stats", "--json").stdout)["shared"]
    assert {host["name"]: host["here"] for host in shared["hosts"]} == {one.name: True, two.name: False}


def test_statistics_say_who_has_not_heard(hosts: tuple[Host, Host], server: Server) -> None:
    one, two = hosts
    two.store.follower.stop()
    one.store._purge_wait = 0
    one.run("purge", "--all")
    said = one.lines("stats")
    assert any(line.startswith(f"{two.name} ") and "1 purge, " in line for line in said)
    assert any(line.startswith("last purge ") and line.endswith(f"not heard yet by {two.name}") for line in said)
    two.store.follower.read_once()
    assert any(line.endswith(": heard by all") for line in one.lines("stats"))


def test_a_host_without_a_directory_sees_the_others(hosts: tuple[Host, Host], make_host: MakeHost) -> None:
    new = make_host("new")
    assert any(line.startswith(f"{hosts[0].name} connected") for line in new.lines("stats"))
    assert not new.store.directory.exists()


def host(**changed: Any) -> HostNumbers:
    numbers: HostNumbers = {
        "name": "b-1", "here": False, "state": "connected", "silence": 0.2, "behind": 0, "late": 0.0, "entries": 1200,
        "bytes": 4096, "workers": 2, "requests": {"HIT": 3, "MISS": 1, "STALE": 0, "UPDATING": 0}, "origin_calls": 1,
    }  # fmt: skip
    numbers.update(changed)  # type: ignore[typeddict-item]
    return numbers


@pytest.mark.parametrize(
    ("changed", "row"),
    [
        ({}, "b-1 connected now no 1,200 4.0 KiB 2 4 75.0 % 1"),
        ({"here": True, "silence": 2.0}, "b-1 (this one) connected 2 s ago no 1,200 4.0 KiB 2 4 75.0 % 1"),
        (
            {"state": "deaf", "silence": 90.0, "behind": 3, "late": 80.0},
            "b-1 deaf since 07:58:30 UTC 90 s ago 3 purges, 80 s 1,200 4.0 KiB 2 4 75.0 % 1",
        ),
        (
            {"state": "deaf", "silence": 50.0, "behind": 100, "late": 1.5},
            "b-1 deaf since 07:59:10 UTC 50 s ago 100 or more purges, 1.5 s 1,200 4.0 KiB 2 4 75.0 % 1",
        ),
        (
            {"state": "unknown", "silence": None, "entries": None, "bytes": None, "workers": None, "requests": None,
             "origin_calls": None},
            "b-1 unknown - - - - - - - -",
        ),
    ],
)  # fmt: skip
def test_rows_of_hosts(clock: object, changed: dict[str, Any], row: str) -> None:
    shared: SharedNumbers = {"problem": "", "last_purge": None, "gone": 0, "hosts": [host(**changed)]}
    (_, said) = host_lines(shared)
    assert " ".join(said.split()).replace(NONE, "-") == row


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ({}, []),
        ({"last_purge": 70.0}, ["last purge 70 s ago: heard by all"]),
        (
            {"last_purge": 0.1, "gone": 1200},
            ["last purge now: heard by all", "1,200 more not heard for a day: counted, but not listed"],
        ),
        ({"problem": "no route", "last_purge": None}, ["only this host is known: no route"]),
    ],
)
def test_sentences_about_hosts(shared: dict[str, Any], said: list[str]) -> None:
    numbers: Any = {"problem": "", "last_purge": None, "gone": 0, "hosts": [host()], **shared}
    assert list(host_lines(numbers))[2:] == said


# -- purge -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["/news"], ["purged on 2 of 2 hosts"]),
        (["--tag", "news", "--soft"], ["softly purged on 2 of 2 hosts"]),
        (["--prefix", "/news"], ["1 found: 1 done, 0 failed, 0 skipped", "purged on 2 of 2 hosts"]),
    ],
)
def test_a_purge_says_who_has_heard(hosts: tuple[Host, Host], options: list[str], said: list[str]) -> None:
    result = hosts[0].run("purge", *options)
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if BASE not in line] == said
    assert hosts[1].visit() in ("MISS", "STALE")


def test_a_publish_says_who_has_heard(hosts: tuple[Host, Host]) -> None:
    result = hosts[0].run("publish", "--tag", "news")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == ["1 found: 1 done, 0 failed, 0 skipped", "purged on 2 of 2 hosts"]


@pytest.mark.parametrize("options", [["/news"], ["--prefix", "/news"]])
def test_a_purge_says_who_has_not_heard(hosts: tuple[Host, Host], options: list[str]) -> None:
    one, two = hosts
    one.store._purge_wait = 0.25
    two.store.follower.stop()
    two.store.follower.read_once()
    result = one.run("purge", *options)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "purged on 1 of 2 hosts",
        f"host {two.name} has not acknowledged within 0.25 s",
    ]


def test_a_purge_counts_who_is_silent(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIVE", 0)
    assert hosts[0].lines("purge", "/news") == ["purged on 1 of 1 hosts", "1 more host is silent: gone, or not connected"]


def test_a_purge_that_waits_for_nobody_says_so(make_host: MakeHost) -> None:
    one = make_host("one", SHARED_PURGE_WAIT=0)
    one.visit()
    assert one.lines("purge", "/news") == ["purged on this host; the others hear of it, and were not waited for"]


@pytest.mark.parametrize("options", [["/news"], ["--prefix", "/"], ["--tag", "news", "--soft"]])
def test_a_purge_of_this_host_only(make_host: MakeHost, tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> None:
    mortal = Server(tmp_path_factory.mktemp("mortal"))
    one = make_host("one", mortal)
    # More pages than a batch purges at a time.
    pages = ["/news", *(f"/sport/{number}" for number in range(50))]
    for path in pages if options == ["--prefix", "/"] else pages[:1]:
        one.visit(path)
    mortal.kill()
    result = one.run("purge", *options)
    assert result.exit_code == 1
    assert "purged on this host only: unix://" in result.output
    assert " hosts\n" not in result.stdout
    if "--soft" not in options:
        assert {one.visit(path) for path in pages} == {"MISS"}


def test_acknowledged_in_words() -> None:
    both = Acknowledged(3, ("b",), 0.25).and_then(Acknowledged(4, ("a", "b"), 0.25))
    assert (both.where, both.missing) == ("on 2 of 4 hosts", ["hosts a, b have not acknowledged within 0.25 s"])
    silent = Acknowledged(1, (), 0.25, 1).and_then(Acknowledged(1, (), 0.25, 2))
    assert silent.missing == ["2 more hosts are silent: gone, or not connected"]
    assert Acknowledged(1, (), 0.25).where == "on 1 of 1 hosts"


# -- follow ----------------------------------------------------------------------------------------------------------


def test_a_second_follower_waits(hosts: tuple[Host, Host], make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    one = hosts[0]
    second = make_host("one")
    rests = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 2:
            # The first follower ends, so that the second one can take over.
            one.store.follower.stop()
            second.runtime.tick()
        elif len(rests) > 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=rest))
    handler = signal.getsignal(signal.SIGINT)
    result = second.run("follow")
    assert result.exit_code == 0
    said = result.stdout.splitlines()
    assert said[0] == f"another process of this host follows {second.store!r}: waiting until it ends"
    assert said[1:] == [f"following {second.store!r} for this host", "stopped"]
    assert not second.store.follower.follows
    assert signal.getsignal(signal.SIGINT) is handler


# -- verify ----------------------------------------------------------------------------------------------------------


def test_verify_compares_with_the_server(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    assert two.lines("verify") == [
        "1 sound, 0 broken",
        "1 as at the server, 0 to be asked for at their next use, 0 on this host only, 0 outdated",
        "unread: no purges, 0 changes",
    ]
    two.store.follower.stop()
    one.store._purge_wait = 0
    one.run("purge", "/news")
    result = two.run("verify")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "1 sound, 0 broken",
        f"{BASE}/news: it was purged on all hosts, and this host does not know",
        "0 as at the server, 0 to be asked for at their next use, 0 on this host only, 1 outdated",
        "unread: purges that were not applied, 0 changes",
    ]
    two.store.follower.read_once()
    assert two.run("verify").exit_code == 0


def test_verify_without_the_server(make_host: MakeHost, tmp_path_factory: pytest.TempPathFactory) -> None:
    mortal = Server(tmp_path_factory.mktemp("mortal"))
    one = make_host("one", mortal)
    one.visit()
    mortal.kill()
    result = one.run("verify", "--fix")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == "1 sound, 0 broken"
    assert "not compared with the server: unix://" in result.output


# -- other commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["list"], 0, "http://shop.example/news"),
        (["show", "/news"], 0, "key        ('page', "),
        (["why", "/news"], 0, "live       HIT: fresh for another"),
        (["config"], 0, "redis://127.0.0.1:7"),
        (["prune"], 0, "freed "),
        (["refresh", "/news"], 0, "stored   200 "),
        (["warm", "/news"], 0, "(it is fresh already)"),
        (["publish", "/news"], 1, "purged on this host only: "),
        (["purge", "/what/only/others/have"], 1, "purged on this host only: "),
        (["refresh", "/what/only/others/have"], 1, "nothing stored matches"),
        (["stats"], 0, "only this host is known: "),
    ],
)
def test_commands_without_the_server(make_host: MakeHost, options: list[str], code: int, said: str) -> None:
    one = make_host("one", STORE="redis://web:sesame@127.0.0.1:7/0?health_check_interval=5")
    one.visit()
    result = one.run(*options)
    assert result.exit_code == code
    assert said in result.output
    assert "sesame" not in result.output


def test_the_name_of_the_cache_is_told(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, _ = make_app(STORE="redis://127.0.0.1:7")
    said = json.loads(app.test_cli_runner().invoke(args=["stalecache", "config", "--json"]).stdout)
    assert said["STALECACHE_SHARED_NAME"] == {"value": "shop", "from": "app.name"}
    assert said["STALECACHE_STORE"] == {"value": "redis://127.0.0.1:7", "from": "app.config"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["list"], "http://shop.example/news"),
        (["show", "/news"], "key        ('page', "),
        (["why", "/news"], "live       HIT: fresh for another"),
        (["purge", "/news"], "purged on 3 of 3 hosts"),
        (["verify"], "0 sound, 0 broken"),
    ],
)
def test_commands_on_a_host_without_a_directory(
    hosts: tuple[Host, Host], make_host: MakeHost, options: list[str], said: str
) -> None:
    result = make_host("new").run(*options)
    assert result.exit_code == 0
    assert said in result.output
