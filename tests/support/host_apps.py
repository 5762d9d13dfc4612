"""Apps on hosts that share a real server, and what they print: for tests of the shell and of the dashboard."""

from __future__ import annotations

import pytest
from click.testing import Result
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.stores.shared import host_reports, logs

BASE = "http://shop.example"


def live_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hosts count as connected however slow this machine is."""
    monkeypatch.setattr(logs, "LIVE", 60_000_000)
    monkeypatch.setattr(host_reports, "LIVE", 60_000_000)


class Host:
    """An app on one host, and its shell."""

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app = app
        _add_views(app, cache)
        state = app.extensions["stalecache"]
        self.runtime, self.store = state.engine.runtime, state.engine.store

    @property
    def name(self) -> str:
        return str(self.store._known.host_id())

    def visit(self, path: str = "/news") -> str:
        with self.app.test_client().get(path, base_url=BASE) as response:
            return str(response.headers["X-Cache-Status"])

    def run(self, *args: str) -> Result:
        result = self.app.test_cli_runner().invoke(args=["stalecache", *args])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        return result

    def lines(self, *args: str) -> list[str]:
        return [" ".join(line.split()) for line in self.run(*args).stdout.splitlines()]


def _add_views(app: Flask, cache: StaleCache) -> None:
    @app.get("/news")
    @cache.cached(60, 600, 86400, tags=["news"])
    def news() -> str:
        return "news"

    @app.get("/sport/<number>")
    @cache.cached(60)
    def sport(number: str) -> str:
        return number

    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
