"""Refreshing many entries at a time: several batches at once, progress, and failures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import Batch, Outcome, StaleCache, StoreError, scan_moved
from support.batch_site import NEWS, Site, by_url, counts, make_site
from support.client import MakeApp, visit
from support.processes import forked
from support.threads import PATIENCE, all_taken, go, locks_in, no_threads, wait_until

BUSY = "another call is refreshing it"


# -- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_are_made_at_once_and_no_more(site: Site, concurrency: int) -> None:
    paths = [f"/news/{number}" for number in range(12)]
    site.fill(*paths)
    site.held.clear()
    batch = site.do("refresh", tag="news", concurrency=concurrency)
    wait_until(lambda: site.open == concurrency, "they run")
    assert not batch.wait(0.05)
    assert (batch.finished, batch.done, batch.found) == (False, 0, concurrency)
    site.held.set()
    assert batch.wait(PATIENCE)
    assert (counts(batch), site.most_open) == ((12, 12, 0, 0), concurrency)


def test_what_is_renewed_already_is_not_renewed_twice(site: Site) -> None:
    site.fill("/news/1")
    site.held.clear()
    first = site.do("refresh", url="/news/1")
    wait_until(lambda: site.open == 1, "it runs")
    second = site.done("refresh", tag="news")
    assert [(outcome.skipped, outcome.reason) for outcome in second.outcomes] == [(True, BUSY)]
    site.held.set()
    assert first.wait(PATIENCE)
    assert (first.done, site.runs["/news/1"]) == (1, 1)


def test_what_was_renewed_since_it_was_found_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill(*NEWS)
    walk = site.engine.store.walk

    def renewing() -> Any:
        for number, stored in enumerate(list(walk())):
            if number == 0:
                site.done("refresh", url=stored.entry.names[2].removeprefix("path:"))
            else:
                with site.app.app_context():
                    site.cache.purge(stored.entry.names[2].removeprefix("path:"))
            yield stored

    found = list(renewing())
    monkeypatch.setattr(site.engine.store, "walk", lambda: iter(found))
    batch = site.done("refresh", tag="news")
    assert {outcome.reason for outcome in batch.outcomes} == {"it was purged or renewed meanwhile"}
    assert batch.skipped == 2


def test_what_was_made_since_it_was_published_is_not_made_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill(*NEWS)
    walk = site.engine.store.walk

    def walk_late() -> Any:
        with site.app.app_context():
            site.cache.purge("/news/1")
        assert visit(site.app, "/news/1").word == "MISS"
        yield from walk()

    monkeypatch.setattr(site.engine.store, "walk", walk_late)
    batch = site.done("publish", tag="news")
    assert (counts(batch), {*by_url(batch)}) == ((1, 1, 0, 0), {"/news/2"})
    assert site.runs == {"/news/1": 1, "/news/2": 1}


def test_visitors_are_served_what_is_stored_meanwhile(site: Site) -> None:
    site.fill("/news/1")
    site.held.clear()
    batch = site.do("publish", tag="news")
    wait_until(lambda: site.open == 1, "it runs")
    assert visit(site.app, "/news/1").page == ("UPDATING", "version 1")
    site.held.set()
    assert batch.wait(PATIENCE)
    assert site.runs["/news/1"] == 1


def test_only_so_many_batches_run_at_once_and_the_same_one_waits_once(site: Site) -> None:
    site.fill(*(f"/news/{number}" for number in range(8)))
    site.held.clear()
    running = [site.do("refresh", url=f"/news/{number}") for number in range(4)]
    wait_until(lambda: site.open == 4, "four run")
    waiting = [site.do("refresh", url=f"/news/{number}") for number in (4, 5)]
    assert site.do("refresh", url="/news/4") is waiting[0]
    assert site.do("publish", url="/news/6") is not site.do("refresh", url="/news/6")
    waiting[1].cancel()
    assert [batch.found for batch in waiting] == [0, 0]
    with site.app.app_context():
        assert not site.cache.drain(0)
        site.held.set()
        assert site.cache.drain(PATIENCE)
    assert all(batch.finished for batch in (*running, *waiting))
    assert [batch.done for batch in (*running, *waiting)] == [1, 1, 1, 1, 1, 0]


def test_outside_an_app_context_all_apps_are_drained(site: Site) -> None:
    site.fill("/news/1")
    site.held.clear()
    batch = site.do("refresh", tag="news")
    assert not site.cache.drain(0)
    site.held.set()
    assert site.cache.drain(PATIENCE)
    assert batch.finished


def test_without_threads_it_is_done_when_it_returns(make_app: MakeApp) -> None:
    site = make_site(*make_app(REFRESH_WORKERS=0))
    site.fill(*NEWS)
    batch = site.do("refresh", tag="news", concurrency=8)
    assert (batch.finished, batch.done, site.most_open) == (True, 2, 1)
    batch = site.do("purge", prefix="/")
    assert (batch.finished, batch.done) == (True, 2)


def test_where_no_thread_can_be_had_it_is_done_when_it_returns(site: Site) -> None:
    site.fill(*NEWS)
    with no_threads():
        assert site.do("refresh", tag="news").finished


def test_with_caching_off_there_is_nothing_to_do(make_app: MakeApp, directory: Path) -> None:
    site = make_site(*make_app())
    site.fill(*NEWS)
    off = Flask("shop")
    off.config.update(STALECACHE_DIR=directory, STALECACHE_ENABLED=False)
    batch = make_site(off, StaleCache(off)).done("refresh", tag="news")
    assert (batch.done, batch.failed) == (0, 0)


# -- how far it is ---------------------------------------------------------------------------------------------------


def test_outcomes_are_had_as_they_come(site: Site) -> None:
    site.fill(*NEWS)
    site.held.clear()
    batch = site.do("refresh", tag="news", concurrency=1)
    coming = iter(batch)
    first = go(next, coming)
    wait_until(lambda: site.open == 1, "it runs")
    assert not first.done()
    site.held.set()
    outcomes = [first.result(PATIENCE), *coming]
    assert outcomes == batch.outcomes
    assert list(batch) == outcomes
    assert all(outcome.seconds >= 0 for outcome in outcomes)


def test_of_many_outcomes_the_last_are_kept() -> None:
    batch = Batch("purge")
    early = iter(batch)
    for number in range(10_003):
        batch.add_outcome(Outcome(f"{number}"))
    assert next(early).url == "3"
    batch.finish()
    assert [outcome.url for outcome in early] == [f"{number}" for number in range(4, 10_003)]
    assert (batch.done, len(batch.outcomes)) == (10_003, 10_000)


def test_who_follows_it_is_told_of_each_move(site: Site) -> None:
    site.fill(*NEWS)
    moves: list[tuple[int, int, bool]] = []

    def note(sender: Flask, batch: Batch) -> None:
        moves.append((batch.found, batch.done, batch.finished))

    with scan_moved.connected_to(note, site.app):
        batch = site.done("refresh", tag="news", concurrency=1)
    assert moves == [(1, 0, False), (1, 1, False), (2, 1, False), (2, 2, False), (2, 2, True)]
    assert repr(batch) == "<Batch refresh: 2 found, 2 done, 0 failed, 0 skipped, finished>"
    counters = site.engine.counters.as_dict()
    assert {name: counters.get(f"scans_{name}", 0) for name in ("found", "done", "failed", "skipped")} == {
        "found": 2, "done": 2, "failed": 0, "skipped": 0,
    }  # fmt: skip


def test_once_cancelled_nothing_more_is_begun(site: Site) -> None:
    paths = [f"/news/{number}" for number in range(6)]
    site.fill(*paths)
    site.held.clear()
    batch = site.do("refresh", tag="news", concurrency=2)
    wait_until(lambda: site.open == 2, "two run")
    batch.cancel()
    site.held.set()
    assert batch.wait(PATIENCE)
    assert (batch.cancelled, batch.done, sum(site.runs.values())) == (True, 2, 2)


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["refresh", "publish", "purge"])
def test_a_store_that_fails_ends_it_and_says_why(site: Site, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill(*NEWS)
    before = site.engine.store.walk

    def walk() -> Any:
        yield next(before())
        raise StoreError("the disk is gone")

    monkeypatch.setattr(site.engine.store, "walk", walk)
    batch = site.done(what, prefix="/", **({} if what == "purge" else {"concurrency": 1}))
    assert (batch.error, batch.finished) == ("the disk is gone", True)
    assert batch.outcomes[-1] == Outcome("", reason="the disk is gone", failed=True)
    assert batch.failed == 1


def test_a_store_that_fails_in_its_own_way_ends_it_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.engine.store, "walk", lambda: iter([None]))
    batch = site.done("refresh", all=True)
    assert "NoneType" in batch.error
    assert batch.failed == 1


def test_who_follows_it_and_raises_does_not_keep_it_from_its_end(site: Site) -> None:
    site.fill(*NEWS)

    def follow(sender: object, batch: Batch) -> None:
        raise ValueError("cannot follow")

    with scan_moved.connected_to(follow, site.app):
        assert site.done("refresh", tag="news").done == 2


def test_what_can_not_be_purged_by_prefix_ends_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill(*NEWS)

    def purge(*names: str, soft: bool) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(site.engine.store, "purge", purge)
    assert site.done("purge", prefix="/").error == "the disk is full"
    assert site.done("publish", prefix="/").error == "the disk is full"
    with site.app.app_context(), pytest.raises(StoreError, match="full"):
        site.cache.publish(tag="news")
    assert site.runs == {}


def test_what_can_not_be_written_ends_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"/news/{number}" for number in range(5)]
    site.fill(*paths)

    def write(entry: object) -> bool:
        raise StoreError("the disk is full")

    monkeypatch.setattr(site.engine.store, "write", write)
    batch = site.done("refresh", tag="news", concurrency=1)
    assert (batch.error, batch.failed, batch.done, sum(site.runs.values())) == ("the disk is full", 1, 0, 1)
    monkeypatch.undo()
    assert {word for word, _ in site.pages(*paths)} == {"HIT"}


def test_one_that_hangs_is_given_up_and_the_others_are_made(make_app: MakeApp, monotonic: Callable[[float], None]) -> None:
    app, cache = make_app(REFRESH_DEADLINE=100)
    site = make_site(app, cache)
    site.fill(*NEWS)
    walk = sorted(site.engine.store.walk(), key=lambda stored: stored.entry.names)
    site.engine.store.walk = lambda: iter(walk)  # type: ignore[method-assign]
    site.held.clear()
    batch = site.do("refresh", tag="news", concurrency=1)
    wait_until(lambda: site.open == 1, "it hangs")
    monotonic(101)
    site.engine.runtime.tick()
    wait_until(lambda: site.open == 2, "another takes its place")
    assert batch.failed == 1
    assert batch.outcomes[0].reason == "it took longer than STALECACHE_REFRESH_DEADLINE"
    site.held.set()
    assert batch.wait(PATIENCE)
    assert (batch.done, batch.failed) == (1, 1)


def test_a_fork_has_no_part_in_the_batches_of_its_parent(site: Site) -> None:
    site.fill(*NEWS)
    site.held.clear()
    batch = site.do("refresh", url="/news/1")
    wait_until(lambda: site.open == 1, "it runs")

    def in_child() -> tuple[bool, list[Outcome], int, bool]:
        site.held.set()
        own = site.do("refresh", url="/news/2")
        return batch.wait(PATIENCE), list(batch), own.done if own.wait(PATIENCE) else -1, site.cache.drain(PATIENCE)

    with all_taken(locks_in([batch, site.app.extensions["stalecache"].scheduler])):
        assert forked(in_child) == (False, [], 1, True)
    site.held.set()
    assert batch.wait(PATIENCE)


def test_a_batch_within_a_batch_does_not_wait_for_its_turn(make_app: MakeApp) -> None:
    """Four views that each wait for a batch of their own would wait for each other for ever."""
    app, cache = make_app()

    @cache.memoize(60, tags=["rates"])
    def rates(number: int) -> int:
        return number

    together = threading.Barrier(4)

    @app.get("/<int:number>")
    @cache.cached(60)
    def page(number: int) -> str:
        if cache.refreshing:
            together.wait(PATIENCE)
            assert cache.publish(tag="rates").wait(PATIENCE)
        return f"{number}"

    for number in range(4):
        visit(app, f"/{number}")
    with app.app_context():
        batches = [cache.refresh(f"/{number}") for number in range(4)]
        assert all(batch.wait(PATIENCE) for batch in batches)
    assert [batch.done for batch in batches] == [1, 1, 1, 1]


def test_nobody_is_renewed_before_anything_is_stored(make_app: MakeApp, directory: Path) -> None:
    app, cache = make_app()
    with app.app_context():
        batch = cache.refresh(all=True)
        assert batch.wait(PATIENCE)
    assert (counts(batch), directory.exists()) == ((0, 0, 0, 0), False)


def test_a_refresh_under_a_clock_that_stands_still(site: Site, clock: time_machine.Traveller) -> None:
    site.fill(*NEWS)
    assert counts(site.done("refresh", tag="news")) == (2, 2, 0, 0)
    clock.shift(-3600)
    assert counts(site.done("refresh", tag="news")) == (2, 2, 0, 0)
