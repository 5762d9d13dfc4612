"""Where holes are shown: ``Cache-Status``, ``show``, ``why``, the dashboard; and which line of a template makes a page personal."""

from __future__ import annotations

import json

import pytest
from flask import Flask, render_template, session
from flask_login import LoginManager, UserMixin

from flask_stalecache import StaleCache
from flask_stalecache.dashboard.entry_view import _facts
from support.client import MakeApp, visit
from support.clock import NOON
from support.holes import ANN, BASE, BOB, cookie, templates, who

pytestmark = pytest.mark.usefixtures("clock")


def site(make_app: MakeApp, **config: object) -> tuple[Flask, StaleCache]:
    app, cache = make_app(**config)
    app.jinja_env.globals["who"] = cache.hole(name="box")(who)
    templates(app, base=BASE, page="{% extends 'base.html' %}{% block main %}{{ who() }}{{ who() }}{% endblock %}",
              own="text\n{{ session.theme }}", member="text\n\n{{ current_user.is_authenticated }}")  # fmt: skip
    for name in ("page", "own", "member"):
        app.add_url_rule(f"/{name}", name, cache.cached(60)(lambda name=name: render_template(f"{name}.html")))
    return app, cache


def test_the_detail_of_cache_status(make_app: MakeApp) -> None:
    app, _ = site(make_app)
    app.debug = True
    for _ in range(2):
        assert 'detail="holes: base.html, line 1, box"' in visit(app, "/page", BOB).headers["Cache-Status"]


def test_show(make_app: MakeApp) -> None:
    app, _ = site(make_app)
    visit(app, "/page", BOB)
    run = app.test_cli_runner().invoke
    assert "holes      base.html, line 1, box" in run(args=["stalecache", "show", "/page"]).output
    (shown,) = json.loads(run(args=["stalecache", "show", "--json", "/page"]).output)
    assert shown["holes"] == ["base.html, line 1", "box"]


def test_why(make_app: MakeApp) -> None:
    app, _ = site(make_app)
    output = app.test_cli_runner().invoke(args=["stalecache", "why", "/page"]).output
    assert "each visitor has their own base.html, line 1 and box" in output


def test_the_dashboard(make_app: MakeApp) -> None:
    app, _ = site(make_app)
    visit(app, "/page", BOB)
    (stored,) = app.extensions["stalecache"].engine.store.walk()
    assert ("Holes", "base.html, line 1, box") in _facts(stored, NOON)


@pytest.mark.parametrize(
    ("path", "headers", "reader"),
    [
        ("/own", cookie(theme="dark"), "own.html, line 2"),
        ("/member", cookie(_user_id="ann"), "member.html, line 3"),
    ],
)
def test_the_line_of_a_template_that_makes_a_page_personal(
    path: str, headers: dict[str, str], reader: str, make_app: MakeApp
) -> None:
    app, _ = site(make_app)
    LoginManager(app).user_loader(lambda name: UserMixin())
    app.debug = True
    assert f"was read by {reader}" in visit(app, path, headers).headers["Cache-Status"]


def test_a_context_processor_is_named_itself(make_app: MakeApp) -> None:
    app, _ = site(make_app)
    app.debug = True
    app.context_processor(processor)
    assert f"was read by {__name__}" in visit(app, "/page", ANN).headers["Cache-Status"]


def processor() -> dict[str, str]:
    return {"name": session.get("user", "")}
