"""Purges while pages are made of stored values: a page that is begun in the middle of a purge may be made of what is being purged.

Until the purge is complete, that value is served, and the page counts as begun before the purge.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, Response

from flask_stalecache import StaleCache
from flask_stalecache.core.addressing.purge_names import address_of
from flask_stalecache.stores import cache_directory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table.stamps import Stamps, is_settled
from support.client import MakeApp, visit
from support.threads import go, results

PATHS = ("/page", "/gate", "/twice")


class Site:
    """An app whose pages show a value that is stored.

    :ivar price: what the third party says.
    """

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app, self.cache, self.price = app, cache, "old"

        @cache.memoize(36000, tags=["prices"])
        def price() -> str:
            return self.price

        @cache.memoize(36000)
        def offer() -> str:
            return f"only {price()}"

        @app.get("/page")
        @cache.cached(36000)
        def page() -> str:
            return price()

        @app.get("/gate")
        def gate() -> Response:
            return Response(price(), headers={"Cache-Control": "max-age=36000"})

        @app.get("/twice")
        @cache.cached(36000)
        def twice() -> str:
            return offer().removeprefix("only ")

        self.fill = price

    @property
    def store(self) -> FileStore:
        return self.app.extensions["stalecache"].engine.store  # type: ignore[no-any-return]

    def purge(self, **options: Any) -> None:
        with self.app.app_context():
            self.cache.purge(tag="prices", **options)

    def purge_without_lock(self, name: str) -> None:
        self.store._purger._purge_without_lock((name,), False, self.store._cache_directory.table)

    def shown(self) -> list[tuple[str, str]]:
        return [visit(self.app, path).page for path in PATHS]


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    made = Site(*make_app(GATEWAY=True))
    with made.app.app_context():
        assert made.fill() == "old"
    made.price = "new"
    return made


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], do: Callable[[], object]) -> Iterator[None]:
    """Do something before a step of the purge in this block, in another thread, as another process would."""
    owner, name = step
    function, done = getattr(owner, name), threading.Event()

    def interrupted(*args: Any, **options: Any) -> Any:
        if not done.is_set():
            done.set()
            results([go(do)])
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        yield
    assert done.is_set()


#: Between these steps the value is still served, though the number of the purge is known.
BEFORE_RECORD, BEFORE_STAMPS = (PurgeRecords, "write"), (Stamps, "move")


@pytest.mark.parametrize("step", [BEFORE_RECORD, BEFORE_STAMPS], ids=["before the record", "before the stamps"])
def test_a_page_made_of_a_value_that_is_being_purged_goes_with_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    with meanwhile(monkeypatch, step, site.shown):
        site.purge()
    assert {text for _, text in site.shown()} == {"new"}
    assert site.shown() == [("HIT", "new")] * len(PATHS)


def test_it_is_stale_after_a_soft_purge(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with meanwhile(monkeypatch, BEFORE_STAMPS, site.shown):
        site.purge(soft=True)
    assert {word for word, _ in site.shown()} <= {"STALE", "MISS", "EXPIRED"}


def test_it_goes_with_a_purge_that_could_not_have_the_lock(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with meanwhile(monkeypatch, BEFORE_STAMPS, site.shown):
        site.purge_without_lock("tag:prices")
    assert {text for _, text in site.shown()} == {"new"}
    assert site.shown() == [("HIT", "new")] * len(PATHS)


def test_it_goes_with_a_purge_for_whose_record_there_is_no_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with meanwhile(monkeypatch, BEFORE_STAMPS, site.shown):
        site.store._purger._remove(frozenset([address_of("tag:prices")]), site.store._cache_directory.table)
    assert {text for _, text in site.shown()} == {"new"}
    assert site.shown() == [("HIT", "new")] * len(PATHS)


class Killed(BaseException):
    """The process is killed."""


@pytest.mark.parametrize("step", [BEFORE_RECORD, BEFORE_STAMPS], ids=["before the record", "before the stamps"])
def test_after_a_purge_that_was_killed_pages_are_stored_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    def kill(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*step, kill)
        with pytest.raises(Killed):
            site.purge()
    site.app.extensions["stalecache"].engine.runtime.tick()
    site.price = "newest"
    site.purge()
    assert {text for _, text in site.shown()} == {"newest"}
    assert site.shown() == [("HIT", "newest")] * len(PATHS)


@pytest.mark.parametrize("without_lock", [False, True], ids=["", "and another one without the lock"])
def test_a_purge_without_the_lock_meanwhile_keeps_neither(site: Site, monkeypatch: pytest.MonkeyPatch, without_lock: bool) -> None:
    """It raises SEQ in the middle of the other purge, so that what is begun then seems to be newer than that."""

    def purge_more_and_visit() -> None:
        site.purge_without_lock("tag:others")
        site.shown()

    with meanwhile(monkeypatch, BEFORE_STAMPS, purge_more_and_visit):
        if without_lock:
            site.purge_without_lock("tag:prices")
        else:
            site.purge()
    assert {text for _, text in site.shown()} == {"new"}
    assert site.shown() == [("HIT", "new")] * len(PATHS)


def test_an_entry_begun_in_a_purge_counts_as_begun_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store, seen = site.store, list[int]()
    with meanwhile(monkeypatch, BEFORE_STAMPS, lambda: seen.append(store.seq())):
        site.purge()
    record = store._records.read("tag:prices")
    assert not is_settled(seen[0])
    assert seen[0] < record.hard <= store.seq()
    assert is_settled(store.seq())


def test_a_purge_that_was_killed_is_ended_by_who_has_the_lock(site: Site) -> None:
    store = site.store
    stamps = store._cache_directory.stamps
    assert stamps is not None
    number = store.seq() // 2 * 2 + 2
    stamps.begin_purge(number)
    lock = store._cache_directory.lock("purge")
    assert lock.acquire()
    store.tick()
    assert store.seq() == number
    lock.release()
    store.tick()
    assert store.seq() == number + 1


@pytest.mark.grid
@pytest.mark.parametrize("has_table", [True, False], ids=["", "without tables"])
@pytest.mark.parametrize("step", [(Stamps, "begin_purge"), BEFORE_RECORD], ids=["before SEQ is raised", "before the record"])
def test_a_worker_that_starts_in_the_middle_of_a_purge_keeps_nothing_of_it(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], has_table: bool
) -> None:
    """The worker can't get the lock, and reads the number of the purge before the table or the records have it."""
    if not has_table:
        monkeypatch.setattr(cache_directory, "Stamps", _refuse)
        if step[0] is Stamps:
            step = BEFORE_RECORD
    old, new = (Site(*make_app(GATEWAY=True)) for _ in range(2))
    with old.app.app_context():
        assert old.fill() == "old"
    old.price = new.price = "new"
    with meanwhile(monkeypatch, step, new.shown):
        old.purge()
    for site in (old, new):
        assert {text for _, text in site.shown()} == {"new"}
    new.app.extensions["stalecache"].engine.runtime.tick()
    assert [site.shown() for site in (old, new)] == [[("HIT", "new")] * len(PATHS)] * 2


def _refuse(*args: object) -> None:
    raise OSError("no room")
