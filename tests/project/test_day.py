"""A day of a site in fast motion: each answer and each run of a view against an exact model, and nothing that grows.

Two workers share a directory, and the clock moves only between two visits. The model follows the table in
``core.rules.serving``, and knows nothing of the implementation: for each visit it predicts the cache status, the HTTP status,
which run of the view is shown, and how often each view has run afterwards. To be exact, it needs whole seconds, random numbers
that are all the same, refreshes that end before the clock moves on, a sweep each minute that covers all folders at once, and no
two keys that share a slot.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.engine.scheduling import thread_pool
from support.client import MakeApp, settle, visit
from support.day.census import Census, files_in, live_objects, paths_stored_in
from support.day.exact import make_exact
from support.day.model import Release
from support.day.play import Day, Event, MakeWorker, Worker, is_gone
from support.day.site import ARCHIVE, SEARCH, TOP, Page, Script, Site
from support.day.terms import (
    COPIES,
    DAY,
    FIRST_PAUSE,
    HOUR,
    INACTIVE,
    KIB,
    LONGEST_PAUSE,
    MEMORY_SIZE,
    MINUTE,
    PREFERS,
    REFRESH_WORKERS,
)
from support.threads import PATIENCE, wait_until


@pytest.fixture(autouse=True)
def _exactly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    make_exact(monkeypatch)
    # Otherwise thousands of records would be kept, which would count as growth.
    caplog.set_level(logging.CRITICAL, "flask_stalecache")


@pytest.fixture
def site(clock: time_machine.Traveller, soak: Callable[[int, int], int]) -> Site:
    """The site, at the beginning of its day, which is now, since the kernel stamps lock files with the real time."""
    now = int(time_machine.escape_hatch.time.time())
    clock.move_to(now)
    return Site(Script(now, soak(DAY, 3 * HOUR // 2)), clock)


@pytest.fixture
def make_worker(make_app: MakeApp) -> MakeWorker:
    """``make_worker(site, version)``: an app with the site's views; more settings may be given."""

    def make(site: Site, version: str, **settings: Any) -> Worker:
        app, cache = make_app(
            VERSION=version,
            INACTIVE=INACTIVE,
            IGNORED_PARAMETERS=["utm_*"],
            PREFER_STALE_HEADER=next(iter(PREFERS)),
            REFRESH_BACKOFF=(FIRST_PAUSE, LONGEST_PAUSE),
            REFRESH_WORKERS=REFRESH_WORKERS,
            MEMORY_SIZE=MEMORY_SIZE,
            **settings,
        )
        site.add_views(app, cache)
        return Worker(app, cache, Release(version, site.now))

    return make


@pytest.mark.soak
def test_a_day_is_as_the_model_says_and_leaves_nothing_behind(
    make_worker: MakeWorker, site: Site, directory: Path, soak: Callable[[int, int], int]
) -> None:
    threads = threading.active_count()
    day, parts, taken = Day(make_worker, site, pages=soak(200, 54), gap=soak(4, 5)), soak(24, 4), []

    def look() -> None:
        wait_until(lambda: threading.active_count() <= threads + 2 + 2 * REFRESH_WORKERS, "the end of threads without work")
        assert live_objects()["Copy"] <= 2 * COPIES
        day.forget()
        taken.append(Census.take(directory, day.visits))
        assert paths_stored_in(directory) == day.model.stored.keys(), f"at {day.seconds}"
        assert taken[-1].files == day.files_expected(taken[-1].files), f"at {day.seconds}"

    # A minute before the end of each part, so that the last one is still in the day.
    ends = (site.script.start + site.script.length * part // parts - MINUTE for part in range(1, parts + 1))
    day.play([Event(end, look) for end in ends])
    assert sum(site.runs.values()) == sum(day.model.runs.values())
    assert set(day.model.words) == {"HIT", "STALE", "UPDATING", "EXPIRED", "MISS", ""}
    taken[-1].assert_not_grown_since(taken[parts // 2 - 1])

    # Two days without visitors: nothing is left of that day.
    day.rest(hours=48)
    files, _ = files_in(directory)
    assert set(files) == {"fixed", "row"}
    day.visit_each_kind()


@pytest.mark.soak
def test_a_flood_of_random_queries_takes_no_room_from_who_is_visited(
    make_worker: MakeWorker, site: Site, directory: Path, soak: Callable[[int, int], int]
) -> None:
    worker = make_worker(site, "1", MAX_SIZE=400 * KIB, MAX_ENTRY_SIZE=4 * KIB)
    dice = random.Random(3)
    popular = [Page(ARCHIVE, number).path for number in range(8)]
    first = {visit(worker.app, path).page for path in popular}
    assert {word for word, _ in first} == {"MISS"}
    for number in range(soak(2000, 200)):
        site.move_to(site.now + 1)
        assert visit(worker.app, Page(SEARCH, dice.getrandbits(48)).path).word == "MISS"
        assert visit(worker.app, popular[number % 8]).word in ("HIT", "STALE"), number
        settle(worker.app, worker.cache, PATIENCE)
        if number % 100 == 99:
            files, _ = files_in(directory)
            assert 50 < files["entry"] <= 100
    assert live_objects()["Copy"] <= COPIES


def test_an_app_that_is_dropped_is_gone_while_its_threads_wait_for_work(
    make_worker: MakeWorker, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "IDLE", 10.0)
    others = set(threading.enumerate())
    worker, path = make_worker(site, "1"), Page(TOP, 0).path
    assert visit(worker.app, path).word == "MISS"
    site.move_to(site.now + 130)
    assert visit(worker.app, path).word == "STALE"
    settle(worker.app, worker.cache)
    app = weakref.ref(worker.app)
    del worker
    wait_until(lambda: is_gone(app), "the end of an app that was dropped")
    assert "stalecache-refresh" in {thread.name for thread in set(threading.enumerate()) - others}
