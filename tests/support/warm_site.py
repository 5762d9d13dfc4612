"""Helpers of the tests of warming."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask, request

from flask_stalecache import Batch, ConfigError, Outcome, StaleCache
from support.client import unrecorded_environ, visit
from support.threads import PATIENCE

HERE = "http://shop.example"


class Site:
    """An app at a URL, with pages of many kinds.

    :ivar asked: the paths that were asked for, with their queries.
    :ivar made: the paths that a cached view has made.
    """

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app = app
        self.cache = cache
        self.asked: list[str] = []
        self.made: list[str] = []
        self.environs: list[dict[str, Any]] = []
        self.fails = False
        self.held = threading.Event()
        self.held.set()
        self.open = 0
        app.before_request(self._note)

    def _note(self) -> None:
        self.asked.append(request.full_path.rstrip("?"))
        self.environs.append(unrecorded_environ())

    def make(self) -> str:
        self.made.append(request.path)
        self.open += 1
        assert self.held.wait(PATIENCE)
        self.open -= 1
        if self.fails:
            raise ConnectionError("the third party is down")
        return f"{request.path} {len(self.made)}"

    def warm(self, urls: Any, **options: Any) -> Batch:
        with self.app.app_context():
            batch = self.cache.warm(urls, **options)
        assert batch.wait(PATIENCE)
        return batch

    def refused(self, urls: Any, **options: Any) -> str:
        """Return why warming is refused. Check that this is one line, and that nothing but sitemaps was asked for."""
        self.asked.clear()
        with self.app.app_context(), pytest.raises(ConfigError) as raised:
            self.cache.warm(urls, **options)
        assert [path for path in self.asked if ".xml" not in path] == []
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def see(self, path: str, headers: dict[str, str] | None = None, **environ: Any) -> tuple[str, str]:
        return visit(self.app, path, headers, base_url=HERE, environ=environ).page


def by_path(batch: Batch) -> dict[str, Outcome]:
    return {outcome.url.removeprefix(HERE): outcome for outcome in batch.outcomes}


def stored(batch: Batch) -> set[str]:
    return {outcome.url.removeprefix(HERE) for outcome in batch.outcomes if outcome.stored}


def counts(batch: Batch) -> tuple[int, int, int, int]:
    return batch.found, batch.done, batch.failed, batch.skipped
