"""Fixtures of the tests of full disks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.disks import WORKERS, Shop
from support.servers import serving

SOURCE = """
import os
from pathlib import Path

from flask import Flask
from flask_stalecache import StaleCache, StoreError
from flask_stalecache.engine.scheduling import housekeeper

assert housekeeper.INTERVAL
housekeeper.INTERVAL = 0.1
app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
cache = StaleCache(app)
counters = app.extensions["stalecache"].counters


@app.after_request
def sign(response):
    response.headers["X-Pid"] = os.getpid()
    response.headers["X-Failures"] = counters["store_failures"]
    return response


@app.get("/page/<name>")
@cache.cached(36000, 36000, 36000, tags=["news"])
def page(name):
    return Path(os.environ["CONTENT"]).read_text()


@app.get("/purge")
def purge():
    try:
        cache.purge(tag="news")
    except StoreError as error:
        return f"not purged: {error}", 503
    return "purged"
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    place = tmp_path_factory.mktemp("shop")
    (place / "caches").mkdir(mode=0o700)
    env = {"CACHE": place / "caches" / "cache", "CONTENT": place / "content"}
    with serving("gthread", SOURCE, place, env=env, workers=WORKERS) as server:
        yield Shop(server, place)


#: These mount file systems, which ``make soak`` does as root.
collect_ignore = [] if os.environ.get("STALECACHE_SOAK") == "1" and os.geteuid() == 0 else ["test_file_systems.py"]
