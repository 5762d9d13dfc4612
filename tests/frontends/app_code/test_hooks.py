"""Calls of a developer's callable: if it raises, the error is logged and a default takes the place of its result."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.frontends.app_code.hooks import ask


def broken() -> bool:
    raise ValueError("no such tenant")


def test_what_a_hook_returns_is_returned_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert ask(lambda: "a value", None, RateLimitedLog(), "unless", "%r") == "a value"
    assert caplog.records == []


@pytest.mark.parametrize("default", [True, False, None, ("tag",)])
def test_a_hook_that_raises_gives_the_default(default: object) -> None:
    assert ask(broken, default, RateLimitedLog(), "unless", "%r") == default


def test_the_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    ask(broken, None, RateLimitedLog(), "unless", "the %s of %s raised: %r", "unless", "shop.show")
    (record,) = caplog.records
    assert record.getMessage() == "the unless of shop.show raised: ValueError('no such tenant')"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


def test_the_same_trouble_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog()
    for about in ("unless", "unless", "tags"):
        ask(broken, None, log, about, f"{about}: %r")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["unless", "tags"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_end_of_the_process_is_not_survived(error: type[BaseException]) -> None:
    def ends() -> Callable[[], None]:
        raise error

    with pytest.raises(error):
        ask(ends, None, RateLimitedLog(), "unless", "%r")
