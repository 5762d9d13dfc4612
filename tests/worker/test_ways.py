"""What holds for refreshes holds wherever they run: in threads of a web process, in the worker, and in a task queue."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.client import Seen, visit
from support.threads import wait_until
from support.worker_site import WorkerSite

pytestmark = pytest.mark.server


class Tasks:
    """A task queue, and the process that takes tasks out of it: another app in this one."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.outcomes: list[str] = []

    def submit(self, job: dict[str, Any]) -> bool:
        self.jobs.put(json.dumps(job))
        return True

    @contextmanager
    def consumed_by(self, site: WorkerSite) -> Iterator[None]:
        module = site.load()
        threads = [threading.Thread(target=self._consume, args=(module,), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        yield
        # A test that has failed may have left a page that is held.
        site.set("hold", False)
        for _ in threads:
            self.jobs.put(None)
        for thread in threads:
            thread.join()

    def _consume(self, module: Any) -> None:
        while (job := self.jobs.get()) is not None:
            with module.app.app_context():
                self.outcomes.append(module.cache.run_refresh(json.loads(job)))


@pytest.fixture(scope="module", params=["threads", "worker", "queue"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSite]:
    folder = tmp_path_factory.mktemp(request.param)
    settings: dict[str, Any] = {"REFRESH_BACKOFF": (0.1, 300), "REFRESH_DEADLINE": 30}
    if request.param == "queue":
        tasks = Tasks()
        site = WorkerSite(folder, refresher=tasks, **settings)
        with tasks.consumed_by(site):
            yield site
        return
    site = WorkerSite(folder, **settings)
    if request.param == "threads":
        yield site
        return
    with site.worker("--processes", "2") as worker:
        site.await_worker(worker.pid)
        yield site


@pytest.fixture(autouse=True)
def handed_over(site: WorkerSite, request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, check that refreshes have run where they should: in this process only with ``threads``."""
    yield
    counters = site.app.extensions["stalecache"].engine.counters
    is_here = request.node.callspec.params["site"] == "threads"
    assert bool(counters["refreshes_handed_over"]) is not is_here
    assert bool(counters["refreshes_queued"]) is is_here
    assert counters["refreshes_returned"] == 0


def refreshed(site: WorkerSite, path: str, is_new: Callable[[Seen], bool]) -> Seen:
    """Visit a page until ``is_new`` accepts what is seen, and return that."""
    seen: list[Seen] = []
    wait_until(lambda: seen.append(visit(site.app, path)) or is_new(seen[-1]), f"a new {path}")  # type: ignore[func-returns-value]
    # Nobody ever waited.
    assert {each.word for each in seen} <= {"STALE", "UPDATING", "HIT"}
    return seen[-1]


def test_one_at_a_time(site: WorkerSite) -> None:
    visit(site.app, "/1")
    apps = [site.app, site.load().app, site.load().app]
    site.hold_one("/1")
    before = len(site.runs("/1"))
    try:
        for _ in range(3):
            assert {visit(app, "/1").status for app in apps} == {200}
        assert len(site.runs("/1")) == before
    finally:
        site.set("hold", False)
    refreshed(site, "/1", lambda seen: len(site.runs("/1")) > before)


def test_failures_back_off_and_keep_the_copy(site: WorkerSite) -> None:
    visit(site.app, "/2")
    site.set("fail", True)
    before = len(site.runs("/2"))
    try:
        visits: list[str] = []
        store = site.app.extensions["stalecache"].engine.store
        key = next(each.entry.key for each in store.walk() if each.entry.recipe.get("path") == "/2")

        def has_failed() -> bool:
            visits.append(visit(site.app, "/2").word)
            # Each call is one failure for all, and the pauses double. One may have begun since.
            failures = store.load(key).note.failures
            return failures >= 4 and len(site.runs("/2")) - before - failures in (0, 1)

        wait_until(has_failed, "four failures")
        assert set(visits) <= {"STALE", "UPDATING"}
        assert visits.count("UPDATING") > 2 * visits.count("STALE")
        made = len(site.runs("/2"))
    finally:
        site.set("fail", False)
    refreshed(site, "/2", lambda seen: len(site.runs("/2")) > made)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_wins(site: WorkerSite, soft: bool) -> None:
    visit(site.app, "/3")
    site.price(1)
    site.hold_one("/3")
    with site.app.app_context():
        site.cache.purge("/3", soft=soft)
    before = len(site.runs("/3"))
    site.set("hold", False)
    if soft:
        refreshed(site, "/3", lambda seen: len(site.runs("/3")) > before)
    else:
        # What was begun before the purge is not stored.
        assert visit(site.app, "/3").word == "MISS"
        assert len(site.runs("/3")) > before


def test_its_values_are_renewed_before_a_page_is_made(site: WorkerSite) -> None:
    site.price(1)
    visit(site.app, "/price")
    wait_until(lambda: visit(site.app, "/price").text.startswith("1 "), "the old price")
    site.price(2)
    made = refreshed(site, "/price", lambda seen: not seen.text.startswith("1 "))
    assert made.text.startswith("2 ")


def test_tags_and_freshness_of_values_travel_up(site: WorkerSite) -> None:
    visit(site.app, "/long")
    before = len(site.runs())
    # The page is made from a value that is stale at once.
    refreshed(site, "/long", lambda seen: len(site.runs()) >= before + 2)
    wait_until(lambda: visit(site.app, "/long").word in ("STALE", "UPDATING"), "the end of the refresh")
    with site.app.app_context():
        assert site.cache.purge(tag="price")
    assert visit(site.app, "/long").word in ("MISS", "EXPIRED")
