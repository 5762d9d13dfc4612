"""Who sees the dashboard, and whose forms it obeys. What it looks like in a browser is in tests/live/test_dashboard.py.

Covers ``dashboard.actions``, ``dashboard.blueprint``, ``dashboard.csrf``, ``dashboard.entry_view``, ``dashboard.overview``,
``dashboard.url_lookup`` and ``dashboard.data``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import unescape
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Blueprint, Flask, Response, abort, redirect
from flask.testing import FlaskClient
from markupsafe import escape
from werkzeug.exceptions import Forbidden
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_stalecache import ConfigError, FileStore, Policy, StaleCache, StoreError
from flask_stalecache.app_state import state_of

MakeApp = Callable[..., tuple[Flask, StaleCache]]
TOKEN = re.compile(r'name="token" value="([^"]+)"')


def shown(make_app: MakeApp, authorize: Callable[[], object] = lambda: True, prefix: str | None = "/stalecache") -> Flask:
    """Return an app with a cached view and a dashboard."""
    app, cache = make_app(REFRESH_WORKERS=0)
    numbers = iter(range(100))

    @app.get("/news")
    @cache.cached(max_age=60, stale_while_revalidate=600, tags=["news"])
    def news() -> str:
        return str(next(numbers))

    app.register_blueprint(cache.dashboard, url_prefix=prefix, authorize=authorize)
    return app


def get(client: Client, path: str = "/stalecache/", headers: Mapping[str, str] | None = None) -> Any:
    with client.get(path, headers=headers) as response:
        response.get_data()
        return response


def token_of(client: Client, path: str = "/stalecache/") -> str:
    found = TOKEN.search(get(client, f"{path}?by=url&find=/news").text)
    assert found is not None
    return found[1]


def purge(client: FlaskClient, form: Mapping[str, str] | None = None, **headers: str) -> Any:
    """Send the form that purges the page, with the visitor's token unless told otherwise."""
    data = {
        "token": (form or {}).get("token") or token_of(client),
        "action": "purge",
        "by": "url",
        "value": "/news",
        **(form or {}),
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/stalecache/act", data=data, headers=named)


# -- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"authorize": None}, {"authorize": True}, {"authorize": "admin"}])
def test_it_is_not_registered_without_an_authorize(make_app: MakeApp, options: dict[str, object]) -> None:
    app, cache = make_app()
    with pytest.raises(ConfigError, match=r"app\.register_blueprint\(cache\.dashboard, .*authorize=is_admin\)"):
        app.register_blueprint(cache.dashboard, url_prefix="/stalecache", **options)
    assert get(app.test_client()).status_code == 404


def test_it_is_off_by_default(make_app: MakeApp) -> None:
    app, _ = make_app()
    assert [rule.endpoint for rule in app.url_map.iter_rules()] == []


PATHS = ["/stalecache/", "/stalecache/stalecache-static/dashboard.css"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("answer", "status"), [(True, 200), (False, 403)])
def test_who_is_let_in(make_app: MakeApp, path: str, answer: object, status: int) -> None:
    app = shown(make_app, lambda: answer)
    response = get(app.test_client(), path)
    assert response.status_code == status
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if status == 403:
        assert "stalecache" not in response.text


async def is_nobody() -> bool:
    return False


async def is_forbidden() -> int:
    return 403


class Truthful:
    """An object that is true and equals everything, as a faulty proxy or a number of another library may."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANSWERED_PATHS = [*PATHS, "/stalecache/now", "/stalecache/?by=tag&find=news"]


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        (lambda: redirect("/login"), 302),
        (lambda: Response("no", 401), 401),
        (lambda: abort(404), 404),
        (is_nobody, 403),
        (lambda: None, 500),
        (lambda: 0, 500),
        # All of these are true in Python.
        (lambda: 403, 500),
        (lambda: 401, 500),
        (lambda: 1, 500),
        (lambda: 1.0, 500),
        (lambda: HTTPStatus.FORBIDDEN, 500),
        (lambda: Forbidden(), 500),
        (lambda: Truthful(), 500),
        (is_forbidden, 500),
        (lambda: ("no", 403), 500),
        (lambda: "no", 500),
        (lambda: object(), 500),
        (lambda: is_nobody, 500),
        (lambda: 1 / 0, 500),
    ],
)
def test_whatever_else_authorize_does_nobody_gets_in(make_app: MakeApp, authorize: Callable[[], object], status: int) -> None:
    app = shown(make_app, authorize)
    client = app.test_client()
    for path in ANSWERED_PATHS:
        response = get(client, path)
        assert response.status_code == status
        assert "token" not in response.text
        assert client.head(path).status_code == status
    assert client.post("/stalecache/act").status_code == status


def test_the_log_names_an_authorize_that_answers_with_something_else(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    assert get(shown(make_app, is_forbidden).test_client()).status_code == 500
    assert "is_forbidden, returned 403; return True, False or a response" in caplog.text


def test_each_dashboard_has_its_own_door(make_app: MakeApp) -> None:
    app, cache = make_app()
    parent = Blueprint("admin", __name__, url_prefix="/admin")
    parent.register_blueprint(cache.dashboard, url_prefix="/cache", authorize=lambda: True)
    app.register_blueprint(parent)
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: False)
    client = app.test_client()
    assert [get(client, path).status_code for path in ("/admin/cache/", "/stalecache/")] == [200, 403]


# -- where it is -----------------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("prefix", [None, "/", "/stalecache", "/deep/er/"])
@pytest.mark.parametrize("root", ["", "/shop"])
def test_its_links_lead_to_itself(make_app: MakeApp, prefix: str | None, root: str) -> None:
    app = shown(make_app, prefix=prefix)
    client = Client(DispatcherMiddleware(Flask("outer"), {root: app})) if root else app.test_client()
    page = root + (prefix or "").rstrip("/") + "/"
    text = get(client, page).text
    links = [unescape(link) for link in re.findall(r'(?:href|src|data-now)="([^"#]+)', text)]
    assert links
    for link in links:
        assert link.startswith(page)
        assert get(client, link).status_code == 200
    answer = client.post(f"{page}act", data={"token": token_of(client, page), "action": "purge", "by": "tag", "value": "news"})
    assert (answer.status_code, answer.headers["Location"]) == (303, page)


def test_it_is_in_no_cache(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY={"/*": Policy(max_age=60)})
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 3600
    client = app.test_client()
    for path in PATHS:
        for _ in range(2):
            response = get(client, path)
            assert response.headers["X-Cache-Status"] != "HIT"
            assert response.headers["Cache-Control"] in ("no-store", "private, no-cache")


# -- whose forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}, {"Sec_Fetch_Site": "same-origin"}])
def test_a_form_of_its_own_acts_and_the_next_page_says_so_once(make_app: MakeApp, headers: dict[str, str]) -> None:
    client = shown(make_app).test_client()
    assert [get(client, "/news").text for _ in range(2)] == ["0", "0"]
    answer = purge(client, **headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/stalecache/")
    assert "Purged: URL or path /news" in get(client).text
    assert "Purged" not in get(client).text
    assert get(client, "/news").text == "1"


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"token": ""}, {}),
        ({"token": "guessed"}, {}),
        ({"token": "g\u00fcessed"}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Origin": "http://[evil"}),
        ({}, {"Sec_Fetch_Site": "cross-site"}),
        ({}, {"Sec_Fetch_Site": "same-site"}),
        ({}, {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"}),
    ],
)
def test_a_forged_form_does_nothing(make_app: MakeApp, form: dict[str, str], headers: dict[str, str]) -> None:
    client = shown(make_app).test_client()
    assert get(client, "/news").text == "0"
    assert purge(client, form, **headers).status_code == 403
    assert get(client, "/news").text == "0"


def test_a_token_is_its_visitors_own(make_app: MakeApp) -> None:
    app = shown(make_app)
    ours, theirs = app.test_client(), app.test_client()
    assert purge(ours, {"token": token_of(theirs)}).status_code == 403
    assert app.test_client().post("/stalecache/act", data={"token": ""}).status_code == 403


@pytest.mark.parametrize(
    ("form", "said", "news"),
    [
        ({"action": "purge"}, "Purged: URL or path /news", ("1", "MISS")),
        ({"action": "purge", "by": "tag", "value": "news"}, "Purged: Tag news", ("1", "MISS")),
        ({"action": "purge", "by": "endpoint", "value": "news"}, "Purged: Endpoint news", ("1", "MISS")),
        ({"action": "purge", "by": "prefix", "value": "/n"}, "Purged: Prefix /n (1 done)", ("1", "MISS")),
        ({"action": "soft"}, "Softly purged: URL or path /news", ("0", "STALE")),
        ({"action": "soft", "by": "prefix", "value": "/n"}, "Softly purged: Prefix /n (1 done)", ("0", "STALE")),
        ({"action": "refresh"}, "Refreshed: URL or path /news (1 done)", ("1", "HIT")),
        ({"action": "refresh", "by": "tag", "value": "news"}, "Refreshed: Tag news (1 done)", ("1", "HIT")),
        ({"action": "refresh", "by": "tag", "value": "unknown"}, "Refreshed: Tag unknown (0 done)", ("0", "HIT")),
    ],
)
def test_what_a_form_does(make_app: MakeApp, form: dict[str, str], said: str, news: tuple[str, str]) -> None:
    client = shown(make_app).test_client()
    get(client, "/news")
    assert purge(client, form).status_code == 303
    assert said in get(client).text
    response = get(client, "/news")
    assert (response.text, response.headers["X-Cache-Status"]) == news


def test_one_entry_is_refreshed_and_what_can_not_be_says_why(make_app: MakeApp) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule("/good", "good", cache.cached(max_age=60)(lambda: "good"))
    app.add_url_rule("/own", "own", cache.cached(max_age=60, key=lambda: "own")(lambda: "own"))
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    client = app.test_client()
    for path, said in (("/good", "Refreshed: http://localhost/good (1 done)"), ("/own", "(0 done, 1 skipped: ")):
        get(client, path)
        key = unescape(KEY.search(find(client, "url", path))[1])  # type: ignore[index]
        purge(client, {"action": "refresh", "by": "key", "value": key})
        assert said in get(client).text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"value": " "}, "Choose what to do"),
        ({"action": "burn"}, "Choose what to do"),
        ({"by": "colour"}, "Choose what to do"),
        ({"value": "news"}, "give a path that begins with"),
        ({"by": "endpoint", "value": "<b>"}, "endpoint=&#39;&lt;b&gt;&#39; is not an endpoint of the app"),
    ],
)
def test_a_form_that_asks_for_nothing_sensible_says_so(make_app: MakeApp, form: dict[str, str], said: str) -> None:
    client = shown(make_app).test_client()
    assert purge(client, form).status_code == 303
    assert said in get(client).text


def test_without_a_secret_key_it_says_what_is_missing(make_app: MakeApp) -> None:
    app = shown(make_app)
    app.secret_key = None
    app.testing = True
    with pytest.raises(ConfigError, match=r"set app\.secret_key"):
        app.test_client().get("/stalecache/")
    assert app.test_client().post("/stalecache/act", data={"token": ""}).status_code == 403


# -- what it shows ---------------------------------------------------------------------------------------------------


def find(client: Client, by: str, value: str, **more: str) -> str:
    return str(get(client, f"/stalecache/?{urlencode({'by': by, 'find': value, **more})}").text)


@pytest.mark.parametrize(
    ("by", "value"),
    [("url", "/news"), ("url", "http://localhost/news"), ("tag", "news"), ("endpoint", "news"), ("prefix", "/ne")],
)
def test_an_entry_is_found(make_app: MakeApp, by: str, value: str) -> None:
    client = shown(make_app).test_client()
    get(client, "/news")
    text = find(client, by, value)
    assert "1 entry found." in text
    assert 'aria-labelledby="card-1"' in text
    assert "fresh for another" in text


@pytest.mark.grid
@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("root", ["", "/shop"])
@pytest.mark.parametrize("host", ["", "http://localhost"])
@pytest.mark.parametrize(
    ("path", "typed"),
    [("/news/1", "/news/1"), ("/news/caf%C3%A9?q=a+b&r=%2F", "/news/caf\u00e9?q=a+b&r=%2F"), ("/news/a%20b", "/news/a%20b")],
)
def test_a_url_is_found_however_much_is_stored(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, path: str, typed: str, host: str, root: str, gateway: bool
) -> None:
    app, cache = make_app(GATEWAY=gateway)
    answer = (lambda what: (what, {"Cache-Control": "max-age=60"})) if gateway else cache.cached(max_age=60)(lambda what: what)
    app.add_url_rule("/news/<what>", "news", answer)
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    client = Client(DispatcherMiddleware(Flask("outer"), {root: app})) if root else app.test_client()
    for _ in range(2):
        assert get(client, root + path).status_code == 200
    # As if the walk had to end before it reached the entry, because of many others.
    monkeypatch.setattr(FileStore, "walk", lambda store: iter(()))
    text = get(client, f"{root}/stalecache/?{urlencode({'by': 'url', 'find': host + root + typed})}").text
    assert "1 entry found." in text
    assert "On the disk" not in text


def test_an_entry_of_a_list_is_one_click_away(make_app: MakeApp) -> None:
    client = shown(make_app).test_client()
    get(client, "/news")
    links = [unescape(link).partition("#")[0] for link in re.findall(r'href="([^"]+by=key[^"]+)"', get(client).text)]
    assert links
    text = get(client, links[0]).text
    assert "http://localhost/news" in text
    answer = client.post(
        "/stalecache/act",
        data={"token": TOKEN.search(text)[1], "action": "purge", "by": "key", "value": unescape(KEY.search(text)[1])},  # type: ignore[index]
    )
    assert answer.status_code == 303
    assert "Purged: http://localhost/news" in get(client).text
    assert "It is not stored any more." in get(client, links[0]).text
    assert get(client, "/news").text == "1"


KEY = re.compile(r'name="by" value="key">\s*<input type="hidden" name="value" value="([^"]+)"')


def test_a_long_key_has_a_short_link(make_app: MakeApp) -> None:
    app = shown(make_app)
    client, path = app.test_client(), f"/news?{'x' * 2000}"
    get(client, path)
    text = get(client).text
    assert "x" * 2000 in text
    links = re.findall(r'href="([^"]+by=key[^"]+)"', text)
    assert links
    assert max(map(len, links)) < 100
    key = unescape(KEY.search(find(client, "tag", "news"))[1])  # type: ignore[index]
    answer = purge(client, {"by": "key", "value": key, "back_by": "key", "back_find": key})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/stalecache/?by=key&find={key}")
    assert "Purged: http://localhost/news?xxx" in get(client).text


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", '"><b>', "{{ 7*7 }}", "caf\u00e9"])
def test_what_visitors_choose_is_shown_as_text(make_app: MakeApp, value: str) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)

    @app.get("/<path:what>")
    @cache.cached(max_age=60, tags=lambda what: [what])
    def any(what: str) -> str:
        return what

    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    client = app.test_client()
    with client.get(f"/{quote(value)}") as response:
        assert response.status_code == 200
    text = find(client, "tag", value)
    assert "1 entry found." in text
    assert str(escape(value)) in text
    assert "<script>alert" not in text
    assert "<b>" not in text


def test_why_pages_are_not_cached_is_told_by_endpoint(make_app: MakeApp) -> None:
    app = shown(make_app)
    client = app.test_client()
    assert "Everything was answered from the store so far." in get(client).text
    for path, fields in (("/news", {}), ("/news", {}), ("/news", {"Authorization": "Basic x"})):
        get(client, path, fields)
    panel = unescape(get(client, "/stalecache/now").json["parts"]["reasons"])
    rows = [re.sub(r"<[^>]+>|\s+", " ", row).split() for row in panel.split("<tr>")[2:]]
    told = "the request has an Authorization field say Cache-Control: public in it if it is the same for everybody"
    assert [" ".join(row) for row in rows] == [
        f"endpoint news 1 50.0 % {told}", "endpoint news 1 50.0 % nothing was stored yet",
    ]  # fmt: skip


def test_what_can_not_be_looked_for_says_why(make_app: MakeApp) -> None:
    client = shown(make_app).test_client()
    assert "give a path that begins with" in find(client, "url", "news")
    assert "not an endpoint of the app" in find(client, "endpoint", "nwes")
    assert "Choose by what" in find(client, "colour", "red")
    assert "Nothing that is stored matches." in find(client, "tag", "unknown")


def test_a_page_that_is_left_open_costs_no_walk(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = shown(make_app)
    client = app.test_client()
    get(client, "/news")
    monkeypatch.setattr(FileStore, "walk", lambda store: pytest.fail("it walked"))
    said = get(client, "/stalecache/now?series=endpoints/news").json
    assert set(said["parts"]) == {"health", "tiles", "origins", "reasons", "hour"}
    assert said["charts"]["whole"] is True
    assert get(client, "/stalecache/now?after=nonsense").status_code == 200


def test_a_store_that_can_not_be_read_is_told(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = shown(make_app).test_client()

    def fails(*_: object, **__: object) -> None:
        raise StoreError("no such disk")

    with client.session_transaction() as session:
        session["_stalecache_token"] = "known"
    monkeypatch.setattr(FileStore, "walk", fails)
    monkeypatch.setattr(FileStore, "load", fails)
    monkeypatch.setattr(FileStore, "purge", fails)
    assert "The store can&#39;t be read: no such disk" in get(client).text
    assert "no such disk" in find(client, "tag", "news")
    purge(client, {"token": "known"})
    assert 'class="said problem" role="status">no such disk' in get(client).text


def test_a_cache_that_is_off_is_told(make_app: MakeApp) -> None:
    app, cache = make_app(ENABLED=False)
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    assert "The cache is off" in get(app.test_client()).text


def test_a_suspended_function_is_told_by_all_workers(make_app: MakeApp) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)

    @cache.memoize(max_age=60, suspend_after=2, suspend_for=60)
    def rates() -> int:
        raise OSError("it is down")

    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    for _ in range(2):
        with app.app_context(), pytest.raises(OSError, match="it is down"):
            rates()
    with app.app_context():
        # As in a worker that never called the function.
        state_of(app).calls._bound_functions.clear()  # type: ignore[union-attr]
    text = get(app.test_client()).text
    assert "rates fails." in text
    assert "is suspended after 2 failures in a row; tried again in" in text
