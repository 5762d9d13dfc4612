"""How a response is judged (pages/fetch), and whom the log names (pages/advice). Most outcomes are tested in privacy/.

Covers ``frontends.pages.fetch`` and ``frontends.pages.advice``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, request
from werkzeug.exceptions import BadGateway, Forbidden, HTTPException, NotFound
from werkzeug.wrappers import Response

from flask_stalecache import StaleCache
from flask_stalecache.core.rules.storability import Verdict
from flask_stalecache.frontends.pages.fetch import verdict_of


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ValueError("broken"), Verdict.FAILED),
        (BadGateway(), Verdict.FAILED),
        (NotFound(), Verdict.UNSTORABLE),
        (Forbidden(), Verdict.UNSTORABLE),
        (HTTPException(response=Response(status=503)), Verdict.FAILED),
        (HTTPException(response=Response(status=302)), Verdict.UNSTORABLE),
    ],
    ids=repr,
)
def test_an_exception_is_a_failure_unless_it_is_an_http_answer(error: Exception, verdict: Verdict) -> None:
    assert verdict_of(error) is verdict


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
