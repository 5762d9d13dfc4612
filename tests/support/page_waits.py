"""Helpers of the tests of waiting for refreshes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import time_machine
from flask import Flask

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.threads import PATIENCE

#: Fresh for a minute, then stale for ten, then only if the view fails; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}

IN_SWR, IN_SIE, PAST_ALL = 61, 661, 6061

#: Nothing is given up because a test moves the clock.
NO_DEADLINE = {"REFRESH_DEADLINE": 10**6}

OLD, NEW = ("STALE", "run 1"), ("EXPIRED", "run 2")


class View:
    """A view whose refreshes hang while a test wants them to.

    :ivar runs: for each run, whether it was a refresh.
    :ivar answers: what it answers; without it, the number of the run.
    """

    def __init__(self) -> None:
        self.runs: list[bool] = []
        self.answers: Callable[[], Any] | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.is_refresh: Callable[[], bool] = lambda: False

    def __call__(self) -> Any:
        self.runs.append(self.is_refresh())
        text = f"run {len(self.runs)}"
        if self.runs[-1]:
            # Longer than a test waits for a visitor: one who waits for the refresh in error would otherwise be served when it ends.
            assert self.go_on.wait(3 * PATIENCE)
        return text if self.answers is None else self.answers()

    def hangs(self) -> None:
        """Let refreshes hang from now on."""
        self.go_on.clear()


def site(make_app: MakeApp, view: View, policy: dict[str, Any], **config: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(**{**NO_DEADLINE, **config})
    app.add_url_rule("/", "page", cache.cached(**{**WINDOWS, **policy})(view))
    view.is_refresh = lambda: cache.refreshing
    return app, cache


def old_site(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    view: View,
    policy: dict[str, Any],
    age: float = IN_SIE,
    **config: Any,
) -> tuple[Flask, StaleCache]:
    """A site with a page that was stored so many seconds ago."""
    app, cache = site(make_app, view, policy, **config)
    assert visit(app).page == ("MISS", "run 1")
    clock.shift(age)
    return app, cache


def fails() -> Any:
    raise ConnectionError("the third party is down")
