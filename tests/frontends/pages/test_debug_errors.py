"""With ``app.debug`` a view's mistake is shown, and does not hide behind its stale page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import StaleCache

MakeApp = Callable[..., tuple[Flask, StaleCache]]
#: The windows of the page, in seconds.
MAX_AGE, SWR, SIE = 60, 600, 6000


class Site:
    """A page whose view fails while ``mistake`` is set, as one that is being edited."""

    def __init__(self, made: tuple[Flask, StaleCache], kind: str, debug: bool = True, **rules: Any) -> None:
        self.app, self.cache = made
        self.app.debug = debug
        self.calls, self.mistake = 0, False
        windows = {"max_age": MAX_AGE, "stale_while_revalidate": SWR, "stale_if_error": SIE, "jitter": 0, **rules}
        view = self.view if kind == "rule" else self.cache.cached(gateway=kind == "gateway", **windows)(self.view)
        self.app.add_url_rule("/", "view", view)
        if kind == "rule":
            self.app.after_request(self._cacheable)

    def view(self) -> str:
        self.calls += 1
        if self.mistake:
            raise ZeroDivisionError("the mistake")
        return f"page {self.calls}"

    @staticmethod
    def _cacheable(response: Any) -> Any:
        response.cache_control.public = True
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE}, stale-while-revalidate={SWR}, stale-if-error={SIE}"
        return response

    def visit(self, **headers: str) -> str:
        """Return the page, or the mistake, after the refresh that the visit may have handed over."""
        try:
            with self.app.test_client().get("/", headers={name.replace("_", "-"): value for name, value in headers.items()}) as got:
                text = got.text
        except ZeroDivisionError as error:
            text = str(error)
        assert self.cache.drain(30)
        return text


@pytest.fixture(params=["view", "gateway", "rule"])
def make_site(request: pytest.FixtureRequest, make_app: MakeApp, clock: time_machine.Traveller) -> Callable[..., Site]:
    kind = request.param

    def make(rules: dict[str, Any] | None = None, **config: Any) -> Site:
        made = make_app(**({"GATEWAY": True} if kind == "rule" else {}), **config)
        return Site(made, kind, **(rules or {}))

    return make


@pytest.mark.parametrize("age", [MAX_AGE + SWR + 1, MAX_AGE + SIE - 1])
def test_a_page_whose_view_fails_is_not_served(make_site: Callable[..., Site], clock: time_machine.Traveller, age: int) -> None:
    site = make_site()
    assert site.visit() == "page 1"
    site.mistake = True
    clock.shift(age)
    assert [site.visit(), site.visit()] == ["the mistake"] * 2
    assert site.calls == 3
    site.mistake = False
    assert site.visit() == site.visit() == "page 4"


def test_a_page_whose_refresh_has_failed_is_not_served(make_site: Callable[..., Site], clock: time_machine.Traveller) -> None:
    site = make_site()
    assert site.visit() == "page 1"
    site.mistake = True
    clock.shift(MAX_AGE + 1)
    assert [site.visit(), site.visit(), site.visit()] == ["page 1", "the mistake", "the mistake"]
    site.mistake = False
    assert site.visit() == site.visit() == "page 5"


@pytest.mark.grid
@pytest.mark.parametrize("age", [MAX_AGE + 1, MAX_AGE + SWR + 1])
@pytest.mark.parametrize("how", ["not debug", "asked for"])
def test_it_is_served_without_debug_or_if_asked_for(
    make_site: Callable[..., Site], clock: time_machine.Traveller, age: int, how: str
) -> None:
    site = make_site({"debug": how == "asked for"}, DEBUG_ERRORS=how != "asked for")
    site.visit()
    site.mistake = True
    clock.shift(age)
    assert [site.visit(), site.visit()] == ["page 1"] * 2


def test_who_prefers_stale_gets_it(make_site: Callable[..., Site], clock: time_machine.Traveller) -> None:
    site = make_site(PREFER_STALE_HEADER="X-Prefer-Stale")
    site.visit()
    site.mistake = True
    clock.shift(MAX_AGE + SWR + 1)
    assert site.visit(X_Prefer_Stale="1") == "page 1"
    assert site.visit() == "the mistake"


def test_a_wait_does_not_hide_it(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), "view", wait=0)
    site.visit()
    site.mistake = True
    clock.shift(MAX_AGE + SWR + 1)
    assert site.visit() == "the mistake"


def test_the_values_of_a_third_party_that_fails_still_stand_in(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    app.debug, is_down = True, [False]

    @cache.memoize(MAX_AGE, SWR, SIE, jitter=0)
    def rates() -> str:
        if is_down[0]:
            raise ConnectionError("down")
        return "rates"

    with app.app_context():
        assert rates() == "rates"
        is_down[0] = True
        clock.shift(MAX_AGE + SWR + 1)
        assert [rates(), rates()] == ["rates"] * 2


# -- one traceback for one failure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("fallback", [{}, {"fallback": "fallback"}], ids=["raised", "fallback"])
def test_a_first_call_that_fails_writes_one_traceback_and_is_no_refresh(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, workers: int, wait: float | None, fallback: dict[str, str]
) -> None:
    app, cache = make_app(REFRESH_WORKERS=workers)

    @cache.memoize(60, 600, 6000, wait=wait, **fallback)
    def rates() -> str:
        raise ConnectionError("down")

    app.add_url_rule("/", view_func=lambda: rates())
    with caplog.at_level(logging.INFO), app.test_client().get("/") as response:
        assert response.status_code == (200 if fallback else 500)
    assert cache.drain(30)
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 1, [record.getMessage() for record in tracebacks]
    assert "the refresh of" not in tracebacks[0].getMessage()


def test_a_first_call_that_fails_after_its_caller_has_gone_is_logged_and_is_no_refresh(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()

    @cache.memoize(60, wait=0, fallback="fallback")
    def rates() -> str:
        raise ConnectionError("down")

    with app.app_context():
        assert rates() == "fallback"
    assert cache.drain(30)
    assert [record.getMessage() for record in caplog.records if record.exc_info and "down" in str(record.exc_info[1])] == [
        f"{__name__}.{rates.__qualname__}() failed"
    ]


@pytest.mark.parametrize("status", [500, None])
def test_a_view_that_fails_at_its_first_visit_writes_one_traceback(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, status: int | None
) -> None:
    """With an error page of the app's own, or with that of Flask."""
    app, cache = make_app()
    if status is not None:
        app.register_error_handler(status, lambda error: ("our page", status))

    @app.get("/")
    @cache.cached(60, 600, 6000)
    def view() -> str:
        raise ZeroDivisionError

    with app.test_client().get("/") as response:
        assert response.status_code == 500
        assert (response.text == "our page") == (status is not None)
    assert cache.drain(30)
    assert len([record for record in caplog.records if record.exc_info]) == 1
