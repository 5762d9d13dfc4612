"""Bulk refresh, publish and purge in one process: scheduler, batch, workers and renewal."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, make_response, redirect, request

from flask_stalecache import Batch, ConfigError, GatewayCache, Outcome, Policy, StaleCache, StoreError, scan_moved
from flask_stalecache.engine.engine import Engine
from support.client import MakeApp, visit
from support.processes import forked
from support.threads import PATIENCE, all_taken, go, locks_in, wait_until

BUSY = "somebody else renews it just now"


@dataclass
class Site:
    """An app whose pages say which version of the content they were made of.

    :ivar runs: how often each path was made.
    :ivar held: what holds the pages that are made.
    :ivar fails: whether pages can't be made.
    """

    app: Flask
    cache: StaleCache
    version: int = 1
    runs: Counter[str] = field(default_factory=Counter)
    held: threading.Event = field(default_factory=threading.Event)
    fails: bool = False
    open: int = 0
    most_open: int = 0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def make(self, what: str) -> str:
        with self._mutex:
            self.runs[what] += 1
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        version = self.version
        assert self.held.wait(PATIENCE)
        with self._mutex:
            self.open -= 1
        if self.fails:
            raise ConnectionError("the third party is down")
        return f"version {version}"

    def do(self, what: str, **given: Any) -> Batch:
        """Begin a batch."""
        with self.app.app_context():
            batch: Batch | None = getattr(self.cache, what)(**given)
        assert batch is not None
        return batch

    def done(self, what: str, **given: Any) -> Batch:
        """Begin a batch, and wait until it is over."""
        batch = self.do(what, **given)
        assert batch.wait(PATIENCE)
        return batch

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.extensions["stalecache"].engine
        return engine

    def fill(self, *paths: str) -> None:
        for path in paths:
            assert visit(self.app, path).word in ("MISS", "HIT")
        self.runs.clear()

    def pages(self, *paths: str) -> list[tuple[str, str]]:
        return [visit(self.app, path).page for path in paths]


def make_site(app: Flask, cache: StaleCache) -> Site:
    site = Site(app, cache)
    site.held.set()

    @app.get("/news/<int:number>")
    @cache.cached(60, 600, 86400, tags=["news"])
    def article(number: int) -> str:
        return site.make(request.path)

    @app.get("/about")
    @cache.cached(60, 600, 86400)
    def about() -> str:
        return site.make(request.path)

    @cache.memoize(60, 600, 86400, tags=["rates"])
    def rates(base: str) -> str:
        return site.make(f"rates of {base}")

    @app.get("/rates/<base>")
    @cache.cached(60, 600, 86400)
    def rates_page(base: str) -> str:
        return rates(base)

    @app.get("/keyed")
    @cache.cached(60, 600, 86400, key=lambda: request.args.get("lang", "en"), tags=["news"])
    def keyed() -> str:
        return site.make(request.path)

    @app.get("/inner")
    @cache.cached(60, 600, 86400, tags=["inner"])
    def inner() -> str:
        return site.make("inner")

    @app.get("/outer")
    @cache.cached(60, 600, 86400)
    def outer() -> str:
        return f"outer {site.make('outer')} {make_response(inner()).get_data(as_text=True)}"

    return site


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    return make_site(*make_app())


def counts(batch: Batch) -> tuple[int, int, int, int]:
    return batch.found, batch.done, batch.failed, batch.skipped


def by_url(batch: Batch) -> dict[str, Outcome]:
    return {outcome.url.removeprefix("http://localhost"): outcome for outcome in batch.outcomes}


# -- what is selected ------------------------------------------------------------------------------------------------

NEWS = ("/news/1", "/news/2")
PAGES = (*NEWS, "/about", "/rates/EUR")
CALL = f"{__name__}.make_site.<locals>.rates('EUR')"


@pytest.mark.parametrize(
    ("selector", "renewed"),
    [
        ({"url": "/news/1"}, {"/news/1"}),
        ({"url": "http://localhost/news/1"}, {"/news/1"}),
        ({"tag": "news"}, {*NEWS}),
        ({"tag": "rates"}, {CALL, "/rates/EUR"}),
        ({"endpoint": "article"}, {*NEWS}),
        ({"prefix": "/news/"}, {*NEWS}),
        ({"prefix": "http://localhost/"}, {*PAGES}),
        ({"all": True}, {*PAGES, CALL}),
        ({"prefix": "http://other.example/"}, set()),
        ({"tag": "unknown"}, set()),
        ({"url": "/news"}, set()),
    ],
)
@pytest.mark.parametrize("what", ["refresh", "publish"])
def test_what_is_selected_is_made_again_though_it_is_fresh(
    site: Site, what: str, selector: dict[str, Any], renewed: set[str]
) -> None:
    site.fill(*PAGES)
    site.version = 2
    batch = site.done(what, **selector, concurrency=1)
    found = by_url(batch)
    # What was renewed with a page that is made of it is not found any more once it is published.
    assert renewed - {*found} <= ({CALL} if what == "publish" else set())
    assert counts(batch) == (len(found), len(found), 0, 0)
    assert {url: outcome[1:2] + outcome[3:] for url, outcome in found.items()} == {
        url: (None if url == CALL else 200, True, "", False, False) for url in renewed & {*found}
    }
    assert (batch.kind, batch.finished, batch.not_stored, batch.error) == (what, True, 0, "")
    for path in (*NEWS, "/about"):
        assert visit(site.app, path).page == ("HIT", f"version {2 if path in renewed else 1}"), path


@pytest.mark.parametrize("what", ["refresh", "publish", "purge"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "is by one of url, tag=, endpoint=, prefix= and all=True, and nothing was given"),
        ({"tag": "news", "prefix": "/"}, "and tag and prefix was given"),
        ({"tag": ""}, "tag='': give one non-empty string"),
        ({"prefix": ""}, "prefix='': give a path"),
        ({"prefix": "news/"}, "prefix='news/': give a path"),
        ({"endpoint": "articel"}, "endpoint='articel' is none of the app's; the nearest is 'article'"),
        ({"all": 1}, "all=1: give True"),
    ],
)
def test_anything_but_one_good_selector_changes_nothing(site: Site, what: str, given: dict[str, Any], said: str) -> None:
    site.fill(*PAGES)
    with site.app.app_context(), pytest.raises(ConfigError, match=said):
        getattr(site.cache, what)(**given)
    assert [word for word, _ in site.pages(*PAGES)] == ["HIT"] * len(PAGES)


@pytest.mark.parametrize("concurrency", [0, 65, True, 1.5, "4", None])
def test_a_concurrency_that_is_none_is_refused(site: Site, concurrency: Any) -> None:
    for what in ("refresh", "publish"):
        with site.app.app_context(), pytest.raises(ConfigError, match=r"concurrency=.*: give a whole number from 1 to 64"):
            getattr(site.cache, what)(all=True, concurrency=concurrency)


def test_outside_an_app_context_nobody_knows_the_app(site: Site) -> None:
    for what in ("refresh", "publish"):
        with pytest.raises(ConfigError, match=rf"{what}\(\) needs to know the app"):
            getattr(site.cache, what)(all=True)


# -- what comes of it ------------------------------------------------------------------------------------------------


def test_a_failure_keeps_what_is_stored(site: Site) -> None:
    site.fill(*NEWS)
    site.fails = True
    batch = site.done("refresh", tag="news")
    assert counts(batch) == (2, 0, 2, 0)
    outcome = by_url(batch)["/news/1"]
    assert (outcome.failed, outcome.stored, outcome.status) == (True, False, None)
    assert outcome.reason == "ConnectionError('the third party is down')"
    assert site.pages(*NEWS) == [("HIT", "version 1")] * 2
    assert site.engine.answer_writer.load(next(each.entry.key for each in site.engine.store.walk())).note.failures == 1


def test_what_may_not_be_stored_any_more_is_dropped_and_the_reason_told(make_app: MakeApp) -> None:
    app, cache = make_app()
    answers = {
        "/private": (lambda: Response("mine", headers={"Cache-Control": "private"}), 200, "Cache-Control: private"),
        "/gone": (lambda: abort(404), None, "NotFound"),
        "/moved": (lambda: redirect("/", 302), 302, "status 302 is not listed"),
        "/agent": (lambda: request.headers["User-Agent"], 200, "the field user-agent was read by"),
    }
    turned: list[bool] = []

    def view() -> Any:
        return answers[request.path][0]() if turned else "public"

    for path in answers:
        app.add_url_rule(path, path, cache.cached(60)(view))
    assert [visit(app, path).word for path in answers] == ["MISS"] * 4
    turned.append(True)
    with app.app_context():
        batch = cache.refresh(all=True)
        assert batch.wait(PATIENCE)
    for path, (_, status, reason) in answers.items():
        outcome = by_url(batch)[path]
        assert (outcome.status, outcome.stored) == (status, False)
        assert reason in outcome.reason
    assert (batch.done, batch.failed, batch.not_stored) == (3, 1, 3)


def test_an_answer_that_is_none_of_the_views_changes_nothing(site: Site) -> None:
    """A hook that wants everybody to log in must not put off the pages of visitors, nor those of another app in the store."""
    site.fill("/news/1")
    site.app.before_request_funcs.setdefault(None, []).append(lambda: redirect("/login"))
    batch = site.done("refresh", url="/news/1")
    assert batch.outcomes[0].reason == "something else than the view answered: 302 FOUND"
    assert (batch.failed, site.runs["/news/1"]) == (1, 0)
    site.app.before_request_funcs.clear()
    assert visit(site.app, "/news/1").word == "HIT"
    assert all(each.note.failures == 0 for each in site.engine.store.walk())


def test_what_only_a_visitor_can_have_made_is_left_alone(site: Site) -> None:
    site.fill("/keyed", "/keyed?lang=de")
    batch = site.done("publish", tag="news")
    assert counts(batch) == (2, 0, 0, 2)
    assert {outcome.reason for outcome in batch.outcomes} == {"its key= asks a visitor's request, and there is none"}
    assert visit(site.app, "/keyed").word == "STALE"


def test_another_apps_entries_are_left_alone(site: Site, directory: Path) -> None:
    other = Flask("other")
    other.config["STALECACHE_DIR"] = directory
    cache = StaleCache(other)
    other.add_url_rule("/about", "about", cache.cached(60)(lambda: "other"))
    assert visit(other, "/about").word == "MISS"
    batch = site.done("refresh", all=True)
    assert [outcome.reason for outcome in batch.outcomes] == ["something else than the view answered: 200 OK"]
    assert all(each.note.failures == 0 for each in site.engine.store.walk())
    assert visit(other, "/about").word == "HIT"


def test_a_page_within_a_page_is_found_within_it(site: Site) -> None:
    """Its request is the one for the page around it, which is fresh and may not stand in its way."""
    site.fill("/outer")
    inner = next(each.entry for each in site.engine.store.walk() if ".inner as outer" in each.entry.key)
    site.version = 2
    batch = site.done("refresh", tag="inner", concurrency=1)
    assert [(outcome.url, outcome.stored) for outcome in batch.outcomes] == [("http://localhost/outer", True)] * 2
    renewed = site.engine.answer_writer.load(inner.key).entry
    assert renewed is not None
    assert renewed.body == b"version 2"
    # The outer one's own refresh is served the inner one, which is fresh; the inner one's needs the outer view to get there.
    assert site.runs == {"outer": 2, "inner": 1}


@pytest.mark.parametrize("backwards", [False, True])
def test_a_page_is_published_with_the_one_within_it(site: Site, backwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill("/outer")
    walk = site.engine.store.walk
    monkeypatch.setattr(site.engine.store, "walk", lambda: iter(sorted(walk(), key=lambda each: each.entry.key, reverse=backwards)))
    site.version = 2
    assert site.done("publish", tag="inner", concurrency=1).failed == 0
    assert visit(site.app, "/outer").page == ("HIT", "outer version 2 version 2")
    assert site.runs["inner"] <= 2


def test_a_published_page_is_made_of_the_published_values(site: Site) -> None:
    site.fill("/rates/EUR")
    site.version = 2
    site.done("publish", tag="rates")
    assert visit(site.app, "/rates/EUR").page == ("HIT", "version 2")
    assert site.runs == {"rates of EUR": 1}


def test_a_call_that_only_its_caller_can_repeat_is_left_alone(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(60, ignored_args=["session"])
    def rates(base: str, session: object) -> str:
        return base

    with app.app_context():
        rates("EUR", session=object())
        batch = cache.refresh(all=True)
        assert batch.wait(PATIENCE)
    (outcome,) = batch.outcomes
    assert outcome.url.endswith("rates(...)")
    assert (outcome.skipped, outcome.reason) == (True, "only its caller has its arguments")


def test_a_page_that_varies_is_made_again_for_each_of_its_visitors(make_app: MakeApp) -> None:
    app, cache = make_app()
    said: list[str | None] = []

    @app.get("/")
    @cache.cached(60, vary=["Accept-Language"])
    def index() -> str:
        said.append(request.headers.get("Accept-Language"))
        return f"{said[-1]} {len(said)}"

    for language in ("de", "en"):
        visit(app, "/", {"Accept-Language": language})
    with app.app_context():
        assert cache.refresh("/").wait(PATIENCE)
    assert sorted(said[2:], key=str) == ["de", "en"]
    assert visit(app, "/", {"Accept-Language": "de"}).word == "HIT"


# -- the gateway -----------------------------------------------------------------------------------------------------


def gateway_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    made.append(environ["PATH_INFO"])
    vary = [("Vary", "Accept-Language")] if environ["PATH_INFO"] == "/varies" else []
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60, stale-while-revalidate=60"), *vary])
    return [f"{environ.get('HTTP_ACCEPT_LANGUAGE')} {len(made)}".encode()]


made: list[str] = []


def ask(gateway: Any, path: str, **fields: str) -> tuple[str, str]:
    environ = {
        "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "HTTP_HOST": "shop.example", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", **fields,
    }  # fmt: skip
    told: list[tuple[str, str]] = []
    body = gateway(environ, lambda status, headers, exc_info=None: told.extend(headers))
    text = b"".join(body).decode()
    getattr(body, "close", lambda: None)()
    return dict(told)["X-Cache-Status"], text


def test_a_gateway_asks_again_for_what_it_has_stored_variants_too(directory: Path) -> None:
    made.clear()
    gateway = GatewayCache(gateway_app, dir=str(directory), rules={"/news/*": Policy(tags=["news"])})
    ask(gateway, "/news/1")
    for language in ("de", "en"):
        ask(gateway, "/varies", HTTP_ACCEPT_LANGUAGE=language)
    batch = gateway.refresh(prefix="/varies")
    assert batch.wait(PATIENCE)
    assert (counts(batch), [outcome[:2] for outcome in batch.outcomes]) == ((2, 2, 0, 0), [("http://shop.example/varies", 200)] * 2)
    texts = {ask(gateway, "/varies", HTTP_ACCEPT_LANGUAGE=language) for language in ("de", "en")}
    assert texts in ({("HIT", "de 4"), ("HIT", "en 5")}, {("HIT", "de 5"), ("HIT", "en 4")})
    batch = gateway.publish(tag="news")
    assert batch.wait(PATIENCE)
    assert ask(gateway, "/news/1") == ("HIT", "None 6")
    purged = gateway.purge(prefix="http://shop.example/va")
    assert purged is not None
    assert purged.wait(PATIENCE)
    assert (purged.found, purged.done) == (1, 1)
    assert ask(gateway, "/varies", HTTP_ACCEPT_LANGUAGE="de") == ("MISS", "de 7")
    assert ask(gateway, "/news/1")[0] == "HIT"
    assert gateway.drain(PATIENCE)


def test_a_gateway_in_front_of_flask_asks_again_too(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY={"/plain": Policy(max_age=60)})
    runs: Counter[str] = Counter()

    @app.get("/plain")
    def plain() -> str:
        runs["plain"] += 1
        return f"{runs['plain']}"

    @app.get("/coded")
    @cache.cached(60, gateway=True)
    def coded() -> str:
        runs["coded"] += 1
        return f"{runs['coded']}"

    for path in ("/plain", "/coded"):
        assert visit(app, path).page == ("MISS", "1")
    with app.app_context():
        batch = cache.refresh(all=True)
        assert batch.wait(PATIENCE)
    assert counts(batch) == (2, 2, 0, 0)
    for path in ("/plain", "/coded"):
        assert visit(app, path).page == ("HIT", "2")


def test_what_the_app_confirms_at_each_use_is_left_alone(directory: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        is_had = "HTTP_IF_NONE_MATCH" in environ
        start_response("304 Not Modified" if is_had else "200 OK", [("Cache-Control", "no-cache"), ("ETag", '"1"')])
        return [] if is_had else [b"page"]

    asked: list[str] = []
    gateway = GatewayCache(app, dir=str(directory))
    assert ask(gateway, "/") == ("MISS", "page")
    batch = gateway.refresh(all=True)
    assert batch.wait(PATIENCE)
    (outcome,) = batch.outcomes
    assert (outcome.skipped, outcome.reason, len(asked)) == (True, "each use of it is confirmed by the app", 1)
    assert ask(gateway, "/") == ("REVALIDATED", "page")


def test_what_no_rule_makes_any_more_is_left_alone(directory: Path) -> None:
    before = GatewayCache(gateway_app, dir=str(directory), rules={"/*": Policy(vary=["Accept-Language"])})
    ask(before, "/news/1")
    batch = GatewayCache(gateway_app, dir=str(directory)).refresh(all=True)
    assert batch.wait(PATIENCE)
    (outcome,) = batch.outcomes
    assert (outcome.skipped, outcome.reason) == (True, "nobody asks for it any more, since the rules have changed")


# -- purging by prefix -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("prefix", ["/news/", "http://localhost/news/"])
def test_a_prefix_is_purged_and_nothing_else(site: Site, prefix: str, soft: bool) -> None:
    site.fill(*PAGES)
    site.version = 2
    batch = site.done("purge", prefix=prefix, soft=soft)
    assert (batch.kind, counts(batch), set(by_url(batch)), batch.not_stored) == ("purge", (2, 2, 0, 0), {*NEWS}, 0)
    assert site.pages(*NEWS) == [("STALE", "version 1") if soft else ("MISS", "version 2")] * 2
    assert site.pages("/about") == [("HIT", "version 1")]


def test_a_purge_by_another_selector_has_no_batch(site: Site) -> None:
    with site.app.app_context():
        assert site.cache.purge(tag="news") is None


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_by_prefix_wins_over_refreshes_under_way(site: Site, soft: bool) -> None:
    site.fill(*NEWS)
    site.held.clear()
    refresh = site.do("refresh", tag="news")
    wait_until(lambda: site.open == 2, "the views run")
    site.version = 2
    site.done("purge", prefix="/news/", soft=soft)
    site.held.set()
    assert refresh.wait(PATIENCE)
    if not soft:
        assert [(outcome.stored, outcome.reason) for outcome in refresh.outcomes] == [
            (False, "it was purged meanwhile, or could not be written")
        ] * 2
        assert refresh.not_stored == 2
    assert site.pages(*NEWS) == [("STALE", "version 1") if soft else ("MISS", "version 2")] * 2


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


def test_where_no_thread_can_be_had_it_is_done_when_it_returns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill(*NEWS)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
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
        batch.tell(Outcome(f"{number}"))
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
    site.engine.tick()
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

    with all_taken(locks_in([batch, site.app.extensions["stalecache"].scans])):
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
