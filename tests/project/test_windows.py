"""The package on a system that lacks what Windows lacks: it can be imported, and keeps entries in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120

#: The packages that this one depends on have their own ways on Windows, so they are imported before.
SCRIPT = """
import asyncio, importlib.abc, json, logging, logging.handlers, multiprocessing, os, subprocess, sys, tempfile, time
import blinker, click, flask, flask.testing, http_sf, msgspec, requests, werkzeug.serving

MODULES = {"fcntl", "grp", "pwd", "resource", "termios"}
NAMES = '''O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC chown fchmod fchown fdatasync fork geteuid getuid getgid getegid
           killpg
           lchown mkfifo posix_fallocate posix_fadvise pread preadv pwrite pwritev register_at_fork sched_getaffinity sendfile
           setsid statvfs sync uname wait4'''.split()


class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


for name in MODULES:
    sys.modules.pop(name, None)
for name in NAMES:
    if hasattr(os, name):
        delattr(os, name)
for name in [name for name in dir(time) if name.startswith(("CLOCK_", "clock_", "pthread_"))]:
    delattr(time, name)
os.supports_dir_fd = os.supports_fd = os.supports_follow_symlinks = set()
sys.meta_path.insert(0, Hidden())


def refuse(*args, **kwargs):
    raise PermissionError(13, "The process cannot access the file because it is being used by another process")


# Over a file that is open, which any file of a cache may be.
os.rename = os.replace = refuse

records = logging.handlers.BufferingHandler(1000)
logging.getLogger("flask_stalecache").addHandler(records)
told = {}
"""

PLAY = """
from flask import Flask
from flask_stalecache import FileStore, GatewayCache, StaleCache
from flask_stalecache.errors import ConfigError
import flask_stalecache.metrics, flask_stalecache.dashboard.blueprint

app = Flask("shop", instance_path=sys.argv[1])
cache = StaleCache(app)
numbers = iter(range(100))

@app.get("/page")
@cache.cached(60)
def page():
    return f"page {rate('EUR')}"

@cache.memoize(60)
def rate(base):
    return next(numbers)

def visit(client, path="/page"):
    with client.get(path) as response:
        return [response.headers.get("X-Cache-Status"), response.get_data(as_text=True)]

client = app.test_client()
told["visits"] = [visit(client) for _ in range(3)]
with app.app_context():
    cache.purge("/page")
    rate.purge("EUR")
told["after a purge"] = visit(client)
with app.app_context():
    told["drained"] = cache.drain(5)
    told["stored"] = cache.stats()["entries"]

def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")])
    return [b"plain"]

gateway = werkzeug.test.Client(GatewayCache(plain))
told["gateway"] = [visit(gateway) for _ in range(2)]
try:
    FileStore(sys.argv[1])
except ConfigError as error:
    told["files"] = str(error)
told["log"] = [record.getMessage() for record in records.buffer]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("windows") / "instance"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + PLAY, str(place)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not place.exists()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_pages_and_values_are_stored_and_purged(told: dict[str, Any]) -> None:
    assert told["visits"] == [["MISS", "page 0"], ["HIT", "page 0"], ["HIT", "page 0"]]
    assert told["after a purge"] == ["MISS", "page 1"]
    assert told["drained"] is True
    assert told["stored"] == 2
    assert told["gateway"] == [["MISS", "plain"], ["HIT", "plain"]]


def test_each_app_says_once_why_nothing_is_shared(told: dict[str, Any]) -> None:
    # One of the Flask app, one of the gateway.
    assert (
        told["log"]
        == [
            "this system lacks flock, so that processes can't share files: each process keeps entries in its own memory, "
            "as with STALECACHE_STORE='memory'"
        ]
        * 2
    )


def test_files_are_refused_with_the_way_out(told: dict[str, Any]) -> None:
    assert told["files"] == "FileStore() needs flock, which this system lacks: set STALECACHE_STORE='memory'"
