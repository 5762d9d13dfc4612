"""How a response is judged (pages/fetch), and whom the log names (pages/advice). Most outcomes are tested in privacy/.

Covers ``frontends.pages.fetch``, ``frontends.pages.made`` and ``frontends.pages.advice``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, request
from werkzeug.exceptions import BadGateway, Forbidden, HTTPException, NotFound
from werkzeug.wrappers import Response

from flask_stalecache import StaleCache
from support.client import visit


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        (ValueError("broken"), True),
        (BadGateway(), True),
        (NotFound(), False),
        (Forbidden(), False),
        (HTTPException(response=Response(status=503)), True),
        (HTTPException(response=Response(status=302)), False),
    ],
    ids=repr,
)
def test_an_exception_is_a_failure_unless_it_is_an_http_answer(tmp_path: Path, error: Exception, is_failure: bool) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    errors = [None, error]

    @app.get("/")
    @StaleCache(app).cached(0, 0, 60)
    def page() -> str:
        if (raised := errors.pop(0)) is not None:
            raise raised
        return "page"

    assert [visit(app).text == "page" for _ in range(2)] == [True, is_failure]


def test_the_log_names_the_inner_view_that_a_field_comes_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    cache = StaleCache(app)

    @cache.cached(60, vary=("X-Country",))
    def offers() -> str:
        return f"offers for {request.headers.get('X-Country')}"

    @app.get("/")
    @cache.cached(60)
    def front() -> str:
        return "front with " + offers().get_data(as_text=True)  # type: ignore[attr-defined]

    assert app.test_client().get("/", headers={"X-Country": "at"}).text == "front with offers for at"
    (told,) = [record.getMessage() for record in caplog.records if "front is not stored" in record.getMessage()]
    assert "the request field x-country was read by" in told
    assert f"was read by {__name__}.test_the_log_names_the_inner_view_that_a_field_comes_from.<locals>.offers and" in told
