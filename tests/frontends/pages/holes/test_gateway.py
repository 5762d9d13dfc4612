"""Pages with holes behind a gateway: the app stores them, since a hit of a gateway enters no app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, after_this_request, render_template, session
from flask_wtf import CSRFProtect

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import MakeApp, visit
from support.holes import ANN, BOB, NOBODY, VISITORS, templates, who

pytestmark = pytest.mark.usefixtures("clock")


def site(app: Flask, cache: StaleCache, **policy: Any) -> list[int]:
    calls: list[int] = []
    hole = cache.hole(name="who")(who)
    templates(app, base="{% hole %}{{ session.user }}{% endhole %}")

    @cache.cached(60, **policy)
    def page() -> str:
        calls.append(1)
        return f"hello {hole()}"

    @cache.cached(60, **policy)
    def plain() -> str:
        calls.append(1)
        return "hello"

    app.add_url_rule("/", "page", page)
    app.add_url_rule("/plain", "plain", plain)
    app.add_url_rule("/base", "base", cache.cached(60, **policy)(lambda: render_template("base.html")))
    app.add_url_rule("/altered", "altered", cache.cached(60, **policy)(lambda: str(hole()).upper()))
    app.add_url_rule("/live", "live", lambda: f"live {hole()}")
    return calls


EXPECTED = ["hello ann <&'\"\\>", "hello bob", "hello nobody"]


def test_a_view_with_gateway_whose_pages_have_holes(make_app: MakeApp) -> None:
    app, cache = make_app()
    calls = site(app, cache, gateway=True)
    assert visit(app, "/plain", BOB).page == ("MISS", "hello")
    assert visit(app, "/plain", ANN).page == ("HIT", "hello")
    calls.clear()
    assert [visit(app, "/", each).text for each in VISITORS] == EXPECTED
    seen = [visit(app, "/", each) for each in VISITORS]
    assert [each.text for each in seen] == EXPECTED
    assert [each.headers["Cache-Status"].split(";")[1] for each in seen] == [" hit"] * 3
    assert {each.headers["Cache-Control"] for each in seen} == {"private, no-cache"}
    assert len(calls) == 2
    assert [visit(app, "/altered", each).text for each in (BOB, NOBODY, BOB)] == ["BOB", "NOBODY", "BOB"]


@pytest.mark.grid
@pytest.mark.parametrize("path", ["/", "/base", "/live", "/altered"])
@pytest.mark.parametrize("rules", [True, {"/*": Policy(max_age=60)}], ids=["all", "rules"])
def test_a_gateway_in_front_of_cached_views(rules: Any, path: str, make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY=rules)
    site(app, cache)
    for _ in range(3):
        for each in VISITORS:
            shown = visit(app, path, each).text.lower()
            assert (("bob" in shown), ("ann" in shown)) == (each is BOB, each is ANN)


def test_a_gateway_around_the_app(make_app: MakeApp, tmp_path: Path) -> None:
    app, cache = make_app()
    site(app, cache)
    app.after_request(lambda response: response.headers.set("Cache-Control", "public, max-age=60") or response)
    app.wsgi_app = GatewayCache(app.wsgi_app, dir=tmp_path)  # type: ignore[method-assign]
    for _ in range(3):
        assert [visit(app, "/", each).text for each in VISITORS] == EXPECTED


def test_a_mark_in_a_callback_and_in_the_status(make_app: MakeApp) -> None:
    app, cache = make_app()
    hole = cache.hole(lambda: "b" if session.get("user") == "bob" else "n")

    def in_callback() -> str:
        mark = f"{hole()}"
        after_this_request(lambda response: response.headers.add("X-Who", mark) or response)
        return "text"

    app.add_url_rule("/callback", "callback", cache.cached(60)(in_callback))
    app.add_url_rule("/status", "status", cache.cached(60)(lambda: Response("text", status=f"200 {hole()}")))
    for _ in range(2):
        assert [visit(app, "/callback", each).headers.getlist("X-Who") for each in (BOB, NOBODY)] == [["b"], ["n"]]
        assert [visit(app, "/status", each).text for each in (BOB, NOBODY)] == ["text"] * 2
    with app.test_client() as client:
        assert client.get("/status").status == "200 n"


def test_forms_of_a_view_with_gateway(make_app: MakeApp) -> None:
    app, cache = make_app()
    templates(app, page="{{ csrf_token() }}")
    CSRFProtect(app)
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(lambda: render_template("page.html")))
    shown = [visit(app) for _ in range(4)]
    assert len({each.text for each in shown}) == 4
    assert [each.word for each in shown][2:] == ["HIT", "HIT"]
