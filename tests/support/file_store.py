"""Helpers of the tests of the file store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from flask_stalecache import StaleCache
from flask_stalecache.stats.counters import Counters

LOGGER = "flask_stalecache"


def make_site(directory: Path, **settings: Any) -> tuple[Flask, list[int]]:
    """Return an app whose pages are numbered by their views' runs, and the list of runs."""
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    for name, value in settings.items():
        app.config[f"STALECACHE_{name}"] = value
    cache = StaleCache(app)
    runs: list[int] = []

    @app.get("/<page>")
    @cache.cached(60, 600, 86400)
    def show(page: str) -> str:
        runs.append(len(runs) + 1)
        return f"run {runs[-1]}"

    return app, runs


def visit(app: Flask, path: str = "/page") -> tuple[str, str]:
    """Return what a visitor sees: the status word and the page."""
    with FlaskClient(app, app.response_class).get(path) as response:
        assert response.status_code == 200
        return response.headers["X-Cache-Status"], response.get_data(as_text=True)


def counted(app: Flask, name: str) -> int:
    counters: Counters = app.extensions["stalecache"].counters
    return counters[name]


def reached(path: Any, **kwargs: Any) -> str:
    """Return the whole path that a system call is given: the path may be relative to the descriptor of a folder."""
    at = kwargs.get("dir_fd", kwargs.get("src_dir_fd"))
    return str(path) if at is None else f"{os.readlink(f'/proc/self/fd/{at}')}/{path}"


def temporary_files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.tmp"))


def entries_in(directory: Path) -> list[Path]:
    """Return the entries that another process would find."""
    return [path for path in directory.glob("??/*") if not path.suffix]
