"""Bulk refresh, publish and purge in one process: scheduler, batch, workers and renewal.

Covers ``batches.batch``, ``batches.workers``, ``batches.renewal``, ``batches.selector`` and ``cli.bulk``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, request

from flask_stalecache import ConfigError, GatewayCache, Policy, Purged, StaleCache
from support.batch_site import NEWS, Site, by_url, counts
from support.client import MakeApp, visit
from support.threads import PATIENCE, wait_until

# -- what is selected ------------------------------------------------------------------------------------------------


PAGES = (*NEWS, "/about", "/rates/EUR")

CALL = "support.batch_site.make_site.<locals>.rates('EUR')"


@pytest.mark.grid
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
    # When published, a value that was renewed together with a page made from it is not found any more.
    assert renewed - {*found} <= ({CALL} if what == "publish" else set())
    assert counts(batch) == (len(found), len(found), 0, 0)
    assert {url: outcome[1:2] + outcome[3:] for url, outcome in found.items()} == {
        url: (None if url == CALL else 200, True, "", False, False) for url in renewed & {*found}
    }
    assert (batch.kind, batch.finished, batch.not_stored, batch.error) == (what, True, 0, "")
    for path in (*NEWS, "/about"):
        assert visit(site.app, path).page == ("HIT", f"version {2 if path in renewed else 1}"), path


@pytest.mark.grid
@pytest.mark.parametrize("what", ["refresh", "publish", "purge"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "is by one of url, tag=, endpoint=, function=, prefix= and all=True, and nothing was given"),
        ({"tag": "news", "prefix": "/"}, "and tag and prefix was given"),
        ({"tag": ""}, "tag='': give one non-empty string"),
        ({"prefix": ""}, "prefix='': give a path"),
        ({"prefix": "news/"}, "prefix='news/': give a path"),
        ({"endpoint": "articel"}, "endpoint='articel' is not an endpoint of the app; the nearest is 'article'"),
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
    """A hook that sends everybody to the login must make no page back off, be it of this app or of another one in the store."""
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
    assert {outcome.reason for outcome in batch.outcomes} == {"its key= needs a visitor's request"}
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
    """The inner page is renewed by a request for the outer one, whose fresh copy must not answer this request."""
    site.fill("/outer")
    inner = next(each.entry for each in site.engine.store.walk() if ".inner as outer" in each.entry.key)
    site.version = 2
    batch = site.done("refresh", tag="inner", concurrency=1)
    assert [(outcome.url, outcome.stored) for outcome in batch.outcomes] == [("http://localhost/outer", True)] * 2
    renewed = site.engine.answer_writer.load(inner.key).entry
    assert renewed is not None
    assert renewed.body == b"version 2"
    # The outer page's refresh gets the fresh copy of the inner page. The inner page's refresh has to run the outer view too.
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
    assert (outcome.skipped, outcome.reason) == (True, "no request can reach it any more, since the rules have changed")


# -- purging by prefix -----------------------------------------------------------------------------------------------


@pytest.mark.grid
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
        assert isinstance(site.cache.purge(tag="news"), Purged)


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
