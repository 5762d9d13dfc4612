"""Helpers of the tests of what a view says of its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from support.client import visit

#: Fresh for a minute, then stale for ten; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}


class Runs:
    """Counts how often a view ran, by name."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def __call__(self, name: str = "page") -> str:
        self.of[name] = self.of.get(name, 0) + 1
        return f"{name}, run {self.of[name]}"


def add(app: Flask, cache: StaleCache, view: Callable[..., Any], path: str = "/", **policy: Any) -> None:
    app.add_url_rule(path, f"page at {path}", cache.cached(**{**WINDOWS, **policy})(view))


def is_stored(app: Flask, path: str = "/") -> bool:
    """Whether a visitor is served a stored page. If not, this visit stores the page."""
    return visit(app, path).word != "MISS"


def purged_by(app: Flask, cache: StaleCache, tag: str, path: str = "/") -> bool:
    """Whether a stored page is gone after a purge of a tag."""
    assert is_stored(app, path), "it was not stored"
    with app.app_context():
        cache.purge(tag=tag)
    return not is_stored(app, path)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("flask_stalecache")]


def wrong(*_: object, **__: object) -> Any:
    raise KeyError("no such item")


def words_at(app: Flask, path: str, visits: int) -> list[str]:
    return [visit(app, path).word for _ in range(visits)]
