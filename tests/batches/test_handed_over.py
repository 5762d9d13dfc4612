"""``run_refresh``: a refresh that another process has handed over as data."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import time_machine
from flask import Flask, abort, request

from flask_stalecache import GatewayCache, Policy, RefreshRefused, StaleCache
from flask_stalecache.batches import handed_over
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.packets.refresh_data import OriginKind, RefreshData
from support.client import MakeApp, visit
from support.handed_over import job_for, run
from support.threads import PATIENCE, go, wait_until

WINDOWS: Any = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 3600}
STALE = 61


class Shop:
    """An app whose pages and values say how often they were made."""

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app, self.cache = app, cache
        self.made = 0
        self.fails = False
        self.held = threading.Event()
        self.held.set()
        self.seen: list[dict[str, Any]] = []
        app.add_url_rule("/", view_func=cache.cached(**WINDOWS, vary=["X-Theme"], tags=["front"])(self.page))
        app.add_url_rule("/by-key", view_func=cache.cached(**WINDOWS, key=lambda: "one")(self.by_key))
        app.add_url_rule("/open", view_func=self.open)
        self.rates = cache.memoize(**WINDOWS)(self.fetched)
        self.waited = cache.memoize(**WINDOWS, wait=5, max_concurrency=2)(self.slow)

    def _make(self) -> str:
        assert self.held.wait(PATIENCE)
        self.made += 1
        self.seen.append({"cookies": dict(request.cookies), "refreshing": self.cache.refreshing} if request else {})
        if self.fails:
            abort(503)
        return f"no. {self.made}"

    def page(self) -> str:
        return f"{self._make()} {request.headers.get('X-Theme', 'plain')}"

    def by_key(self) -> str:
        return self._make()

    def open(self) -> tuple[str, dict[str, str]]:
        return self._make(), {"Cache-Control": "max-age=60, stale-while-revalidate=600"}

    def fetched(self, base: str) -> str:
        self.made += 1
        return f"{base} no. {self.made}"

    def slow(self, base: str) -> str:
        self.made += 1
        if self.fails:
            raise ConnectionError("the third party is down")
        return f"{base} no. {self.made}"


@pytest.fixture
def shop(make_app: MakeApp, clock: time_machine.Traveller) -> Shop:
    return Shop(*make_app(GATEWAY=[("/open", Policy())]))


def test_a_page_is_made_as_nobodys(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    assert run(shop.app, shop.cache, job) == "stored"
    assert visit(shop.app, "/").page == ("HIT", "no. 2 plain")
    assert shop.seen[-1] == {"cookies": {}, "refreshing": True}


def test_each_variant_is_its_own(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/", {"X-Theme": "dark"})
    job = job_for(shop.app, "/")
    visit(shop.app, "/")
    clock.shift(STALE)
    assert run(shop.app, shop.cache, job) == "stored"
    assert visit(shop.app, "/", {"X-Theme": "dark"}).page == ("HIT", "no. 3 dark")
    assert visit(shop.app, "/").page == ("STALE", "no. 2 plain")


def test_a_page_of_the_gateway(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/open")
    job = job_for(shop.app, "/open", OriginKind.GATEWAY)
    clock.shift(STALE)
    assert run(shop.app, shop.cache, job) == "stored"
    assert visit(shop.app, "/open").page == ("HIT", "no. 2")


def test_values_of_functions_also_with_wait(shop: Shop, clock: time_machine.Traveller) -> None:
    with shop.app.app_context():
        assert (shop.rates("EUR"), shop.waited("USD")) == ("EUR no. 1", "USD no. 2")
    jobs = [job_for(shop.app, "fetched('EUR')", OriginKind.CALL), job_for(shop.app, "slow('USD')", OriginKind.CALL)]
    clock.shift(STALE)
    assert [run(shop.app, shop.cache, job) for job in jobs] == ["stored", "stored"]
    assert shop.made == 4
    with shop.app.app_context():
        assert (shop.rates("EUR"), shop.waited("USD")) == ("EUR no. 3", "USD no. 4")


def test_what_it_makes_does_not_become_part_of_the_page_that_runs_it(shop: Shop, clock: time_machine.Traveller) -> None:
    jobs: list[Any] = []

    @shop.app.get("/outer")
    @shop.cache.cached(**WINDOWS)
    def outer() -> str:
        return shop.cache.run_refresh(jobs[0])

    visit(shop.app, "/")
    jobs.append(job_for(shop.app, "/"))
    clock.shift(STALE)
    assert visit(shop.app, "/outer").page == ("MISS", "stored")
    with shop.app.app_context():
        shop.cache.purge(tag="front")
    assert visit(shop.app, "/outer").page == ("HIT", "stored")


def test_twice_the_same_is_harmless(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    assert run(shop.app, shop.cache, job) == "fresh"
    clock.shift(STALE)
    assert [run(shop.app, shop.cache, job) for _ in range(3)] == ["stored", "fresh", "fresh"]
    clock.shift(STALE)
    # The entry that the job was for has been replaced long ago.
    assert run(shop.app, shop.cache, job) == "fresh"
    assert shop.made == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refreshes do not wait for another one of the same entry."""
    monkeypatch.setattr(handed_over, "PATIENCE", 0.0)


def test_two_at_a_time_are_one(shop: Shop, clock: time_machine.Traveller, impatient: None) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    shop.held.clear()
    first = go(run, shop.app, shop.cache, job)
    engine = shop.app.extensions["stalecache"].engine
    wait_until(lambda: engine.counters["refreshes"] == 1, "the first refresh")
    assert run(shop.app, shop.cache, job) == "busy"
    shop.held.set()
    assert first.result(PATIENCE) == "stored"


def test_the_lock_of_another_process_is_obeyed(shop: Shop, clock: time_machine.Traveller, impatient: None) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    store = shop.app.extensions["stalecache"].engine.store
    lock = store.lock(next(store.walk()).entry.key)
    assert lock.acquire()
    assert run(shop.app, shop.cache, job) == "busy"
    lock.release()


def test_one_that_comes_before_the_lock_is_released_is_not_lost(
    shop: Shop, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call releases the lock a moment after it has stored an entry, and the next refresh may be handed over before that."""
    monkeypatch.setattr(handed_over, "PATIENCE", PATIENCE)
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    engine = shop.app.extensions["stalecache"].engine
    lock = engine.store.lock(next(engine.store.walk()).entry.key)
    assert lock.acquire()
    handed = go(run, shop.app, shop.cache, job)
    # The refresh has found the lock taken, and pauses before its next attempt.
    pending = engine.runtime.process.refreshes._pending
    wait_until(lambda: any(each.stamp is not None for each in list(pending.values())), "the first attempt")
    lock.release()
    assert handed.result(PATIENCE) == "stored"


def test_a_failure_backs_off_and_keeps_the_copy(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    shop.fails = True
    assert [run(shop.app, shop.cache, job) for _ in range(2)] == ["failed", "fresh"]
    assert shop.made == 2
    assert visit(shop.app, "/").page == ("UPDATING", "no. 1 plain")
    shop.fails = False
    clock.shift(3)
    assert run(shop.app, shop.cache, job) == "stored"


@pytest.mark.parametrize("fails", [False, True])
def test_it_may_be_queued_again_afterwards(shop: Shop, clock: time_machine.Traveller, fails: bool) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    clock.shift(STALE)
    marks = shop.app.extensions["stalecache"].engine.store.queue_marks
    name = f"{job['key']} {job['serial']}"
    assert marks.mark(name, 100) == 0
    shop.fails = fails
    assert run(shop.app, shop.cache, job) == ("failed" if fails else "stored")
    assert marks.mark(name, 100) == 0


@pytest.mark.parametrize("how", ["purged", "too late"])
def test_what_nobody_waits_for_expires(shop: Shop, clock: time_machine.Traveller, how: str) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/", expires=100)
    clock.shift(STALE)
    if how == "purged":
        with shop.app.app_context():
            shop.cache.purge("/")
    else:
        clock.shift(40)
    assert run(shop.app, shop.cache, job) == "expired"
    assert shop.made == 1


def test_what_a_soft_purge_has_ended_is_made_anew(shop: Shop) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    with shop.app.app_context():
        shop.cache.purge("/", soft=True)
    assert run(shop.app, shop.cache, job) == "stored"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"app": "news"}, "of the app 'news' was handed to the app 'shop'"),
        ({"version": "8"}, "of version '8' of the app was handed to version ''"),
        ({"kind": "call"}, "was handed over as kind='call', which it is not"),
        ({"v": 2}, "is no refresh: it has the form v=2"),
        ({"key": "../../etc/passwd"}, "is not the digest of a key"),
    ],
    ids=str,
)
def test_what_can_not_be_run_here_is_told(shop: Shop, clock: time_machine.Traveller, change: dict[str, Any], text: str) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/") | change
    clock.shift(STALE)
    with pytest.raises(RefreshRefused, match=text):
        run(shop.app, shop.cache, job)
    assert shop.made == 1


def test_what_only_its_visitor_can_make_again_is_told(shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/by-key")
    job = job_for(shop.app, "/by-key")
    clock.shift(STALE)
    with pytest.raises(RefreshRefused, match="can't be run from what is stored: its key= needs a visitor's request"):
        run(shop.app, shop.cache, job)


def test_with_caching_off_nothing_is_run(make_app: MakeApp, shop: Shop, clock: time_machine.Traveller) -> None:
    visit(shop.app, "/")
    job = job_for(shop.app, "/")
    off = Shop(*make_app(ENABLED=False))
    assert run(off.app, off.cache, job) == "expired"
    assert off.made == 0


def test_in_front_of_any_app(tmp_path: Any, clock: time_machine.Traveller) -> None:
    made = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        made.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60, stale-while-revalidate=600")])
        return [b"no. %d" % len(made)]

    cache = GatewayCache(app, dir=tmp_path / "cache")
    front = Flask("front")
    front.wsgi_app = cache  # type: ignore[method-assign]
    visit(front, "/")
    entry = next(cache._engine.store.walk()).entry
    data = RefreshData(
        app="", version="", kind=OriginKind.GATEWAY, address=digest(entry.key), serial=entry.serial, expires=time.time() + 600
    )
    clock.shift(STALE)
    assert cache.run_refresh(data.to_json()) == "stored"
    assert visit(front, "/").page == ("HIT", "no. 2")
