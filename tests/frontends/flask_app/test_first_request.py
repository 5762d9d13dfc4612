"""What the first request tells the developer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.views import MethodView

from flask_stalecache import StaleCache
from support.client import visit


def warned(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if what in record.getMessage()]


def above(app: Flask, cache: StaleCache) -> None:
    @cache.cached(60)
    @app.get("/")
    def page() -> str:
        return "page"

    # Keep a reference to the decorated view, as a name in a module would.
    app.extensions["page"] = page


def above_with_another_between(app: Flask, cache: StaleCache) -> None:
    def other(view: Callable[..., Any]) -> Callable[..., Any]:
        return wraps(view)(lambda *args: view(*args))

    @cache.cached(60)
    @other
    @app.get("/")
    def page() -> str:
        return "page"

    app.extensions["page"] = page


def below(app: Flask, cache: StaleCache) -> None:
    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        return "page"


def on_both_sides(app: Flask, cache: StaleCache) -> None:
    def page() -> str:
        return "page"

    app.add_url_rule("/live", "live", page)
    app.add_url_rule("/", "page", cache.cached(60)(page))


def of_a_class(app: Flask, cache: StaleCache) -> None:
    class Page(MethodView):
        @cache.cached(60)
        def get(self) -> str:
            return "page"

    app.add_url_rule("/", view_func=Page.as_view("page"))


@pytest.mark.parametrize(
    ("write", "says"),
    [(above, True), (above_with_another_between, True), (below, False), (on_both_sides, False), (of_a_class, False)],
)
def test_a_decorator_above_the_route_is_said_once(
    make_app: Callable[..., tuple[Flask, StaleCache]], caplog: pytest.LogCaptureFixture, write: Any, says: bool
) -> None:
    app, cache = make_app()
    write(app, cache)
    visit(app, "/")
    visit(app, "/")
    assert len(warned(caplog, "page is not cached, since @cache.cached() stands above its route")) == says


def test_tests_that_share_the_instance_folder_are_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    StaleCache(app)
    app.config["TESTING"] = True
    visit(app, "/")
    assert len(warned(caplog, "TESTING was set after init_app")) == 1
