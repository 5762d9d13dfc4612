"""Helpers of the tests of ``memoize``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_stalecache import (
    MemoizedFunction,
    StaleCache,
)

MakeApp = Callable[..., tuple[Flask, StaleCache]]


class Fetch:
    """A third party in the test's hands: it counts its calls, fails or hangs as told, and answers with a number."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, *asked: Any) -> str:
        self.calls.append(asked)
        number = len(self.calls)
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return f"{'-'.join(map(str, asked))} {number}"


Shop = tuple[Flask, StaleCache]


def rates_of(cache: StaleCache, fetch: Fetch, **rules: Any) -> MemoizedFunction[..., Any]:
    rules = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0, **rules}

    @cache.memoize(**rules)
    def rates(base: str, day: int = 1) -> str:
        return fetch(base, day)

    return rates
