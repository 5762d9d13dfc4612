"""Who sees the dashboard, and whose forms it obeys. What it looks like in a browser is in tests/test_dashboard_live.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, redirect
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_stalecache import ConfigError, Policy, StaleCache

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
    data = {"token": token_of(client), "action": "purge", "by": "url", "value": "/news", **(form or {})}
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
    assert [rule.endpoint for rule in app.url_map.iter_rules()] == ["static"]


PATHS = ["/stalecache/", "/stalecache/stalecache-static/dashboard.css"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("answer", "status"), [(True, 200), (1, 200), (False, 403), (None, 403), (0, 403)])
def test_who_is_let_in(make_app: MakeApp, path: str, answer: object, status: int) -> None:
    app = shown(make_app, lambda: answer)
    response = get(app.test_client(), path)
    assert response.status_code == status
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if status == 403:
        assert "stalecache" not in response.text


async def is_nobody() -> bool:
    return False


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        (lambda: redirect("/login"), 302),
        (lambda: Response("no", 401), 401),
        (lambda: abort(404), 404),
        (is_nobody, 403),
        # All of these are true in Python.
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
    for path in PATHS:
        response = get(client, path)
        assert response.status_code == status
        assert "token" not in response.text
    assert client.post("/stalecache/act").status_code == status


def test_each_dashboard_has_its_own_door(make_app: MakeApp) -> None:
    app, cache = make_app()
    parent = Blueprint("admin", __name__, url_prefix="/admin")
    parent.register_blueprint(cache.dashboard, url_prefix="/cache", authorize=lambda: True)
    app.register_blueprint(parent)
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: False)
    client = app.test_client()
    assert [get(client, path).status_code for path in ("/admin/cache/", "/stalecache/")] == [200, 403]


# -- where it is -----------------------------------------------------------------------------------------------------


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
    ("form", "said"),
    [
        ({"value": " "}, "Choose what to do"),
        ({"action": "burn"}, "Choose what to do"),
        ({"by": "colour"}, "Choose what to do"),
        ({"value": "news"}, "give a path that begins with"),
        ({"by": "endpoint", "value": "<b>"}, "endpoint=&#39;&lt;b&gt;&#39; is none of the app"),
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
