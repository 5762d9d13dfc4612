"""A day of a site on three hosts in fast motion: each answer and each run of a view against an exact model, and nothing that grows.

Each host has a directory of its own, and all share a real server, whose clock moves with theirs: between two visits. Releases are
deployed on one host after the other, one host is away for an hour, and the server is gone for ten minutes. The model knows which
host has which copy, and what the server has, so the number of calls is exact, whether a host is connected or alone.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine
from flask import Flask

from flask_stalecache import StaleCache
from support.day.exact import make_exact
from support.day.hosts import Host, HostsDay, MakeHost
from support.day.model import Release
from support.day.play import Event
from support.day.server_clock import COMPILER, ServerClock
from support.day.site import Script, Site
from support.day.terms import DAY, FIRST_PAUSE, HOUR, LONGEST_PAUSE, REFRESH_WORKERS
from support.endurance import IS_SOAK
from support.shared_hosts import Server
from support.threads import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the clock of the server needs a compiler of C")


@pytest.fixture(autouse=True)
def _exactly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: time_machine.Traveller) -> None:
    make_exact(monkeypatch)
    # Otherwise thousands of records would be kept, which would count as growth.
    caplog.set_level(logging.CRITICAL, "flask_stalecache")


class HostsSite(Site):
    """A site that also moves the clock of its server."""

    def __init__(self, script: Script, clock: time_machine.Traveller, server_clock: ServerClock) -> None:
        super().__init__(script, clock)
        self._server_clock = server_clock
        server_clock.set(script.start)

    def move_to(self, now: float) -> None:
        super().move_to(now)
        self._server_clock.set(now)


@pytest.fixture
def server_clock(tmp_path: Path) -> ServerClock:
    return ServerClock(tmp_path)


@pytest.fixture
def site(clock: time_machine.Traveller, server_clock: ServerClock, soak: Callable[[int, int], int]) -> HostsSite:
    """The site, at the beginning of its day, which is now, since the kernel stamps lock files with the real time."""
    now = int(time_machine.escape_hatch.time.time())
    clock.move_to(now)
    return HostsSite(Script(now, soak(DAY, 3 * HOUR // 2)), clock, server_clock)


@pytest.fixture
def clocked(tmp_path: Path, site: HostsSite, server_clock: ServerClock) -> Iterator[Server]:
    """The server."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, environment=server_clock.environment)
    yield server
    server.close()


@pytest.fixture
def make_host(tmp_path: Path, clocked: Server) -> MakeHost:
    def make(site: Site, number: int, version: str) -> Host:
        place = tmp_path / f"host {number}"
        place.mkdir(exist_ok=True)
        link = tmp_path / f"to-server-{number}"
        if not link.is_symlink():
            link.symlink_to(clocked.socket)
        app = Flask("hosts", root_path=str(place), static_folder=None)
        settings: dict[str, Any] = {
            "STORE": f"unix://{link}",
            "DIR": place / "cache",
            "SHARED_TIMEOUT": PATIENCE,
            "SHARED_PURGE_WAIT": 0,
            "VERSION": version,
            "INACTIVE": 3 * DAY,
            "REFRESH_BACKOFF": (FIRST_PAUSE, LONGEST_PAUSE),
            "REFRESH_WORKERS": REFRESH_WORKERS,
        }
        app.config.update({f"STALECACHE_{name}": value for name, value in settings.items()})
        cache = StaleCache(app)
        site.add_views(app, cache)
        store = app.extensions["stalecache"].engine.store

        def cut(is_cut: bool) -> None:
            link.unlink(missing_ok=True)
            if not is_cut:
                link.symlink_to(clocked.socket)
            for client in store._client._clients.values():
                client.connection_pool.disconnect()

        return Host(app, cache, Release(version, site.now), cut)

    return make


@pytest.mark.soak
def test_a_day_on_three_hosts_is_as_the_model_says(
    make_host: MakeHost,
    site: HostsSite,
    clocked: Server,
    soak: Callable[[int, int], int],
    figures: Callable[[str, list[list[object]]], None],
) -> None:
    def stop() -> None:
        clocked.save()
        clocked.kill()

    day, samples = HostsDay(make_host, site, stop, clocked.start, pages=soak(120, 36), gap=soak(15, 40)), []

    def look() -> None:
        wait_until(
            lambda: threading.active_count() <= threads + len(day.hosts) * REFRESH_WORKERS, "the end of threads without work"
        )
        samples.append(Sample.take(clocked, day))

    threads = threading.active_count()
    day.play([Event(site.script.at((part + 1) / PARTS) - 1, look) for part in range(PARTS)])
    figures("a day on three hosts", [["part", *Sample._fields], *([number, *row] for number, row in enumerate(samples, 1))])
    figures("", [["visits", day.visits], ["of them alone", day.alone], *day.words.most_common()])
    runs = sum(site.runs.values())
    figures("", [["calls of views", runs], ["as the model says", sum(day.model.base.runs.values())]])
    assert runs == sum(day.model.base.runs.values())
    assert {"HIT", "STALE", "EXPIRED", "MISS", ""} <= day.words.keys()
    if IS_SOAK:
        middle, last = samples[PARTS // 2 - 1], samples[-1]
        assert last.resident_kib < middle.resident_kib + 8 * 1024
        assert last.descriptors <= middle.descriptors + 4
        assert last.server_kib < middle.server_kib + 512
        assert last.server_keys <= middle.server_keys + 10


#: Number of samples in a day.
PARTS = 4


class Sample(NamedTuple):
    """Figures at one moment of the day, which must not grow, except the visits."""

    visits: int
    resident_kib: int
    threads: int
    descriptors: int
    server_kib: int
    server_keys: int

    @classmethod
    def take(cls, server: Server, day: HostsDay) -> Sample:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        with server.client() as client:
            used, keys = client.info("memory")["used_memory_dataset"], client.dbsize()
        return cls(
            day.visits,
            pages * os.sysconf("SC_PAGE_SIZE") // 1024,
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            used // 1024,
            int(keys),  # type: ignore[arg-type]
        )
