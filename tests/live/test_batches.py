"""Warming, publishing and purging by prefix in real processes: a script that is interrupted, and servers with several workers."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_stalecache.stores.file_store import FileStore
from support import prepared
from support.prepared import PreparedProcess
from support.servers import PATIENCE, ROOT, Gate, environment, serving, visitors_of_two_workers, wait_for

SOURCE = """
import os
import sys
import urllib.request
from pathlib import Path

from flask import Flask, request
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
app.config["STALECACHE_BASE_URL"] = "http://shop.example"
cache = StaleCache(app)
log = os.open(os.environ["CACHE"] + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def third_party():
    with urllib.request.urlopen(os.environ["GATE"]) as answer:
        return answer.read().decode()


@app.get("/news/<int:number>")
@cache.cached(3600, 3600, 3600, tags=["news"])
def article(number):
    os.write(log, b"%d\\n" % number)
    return f"{number}: {third_party()} " + "x" * 20000


@app.get("/café/<name>")
@cache.cached(3600)
def cafe(name):
    return name


@app.get("/about")
@cache.cached(3600)
def about():
    return "about"


@app.post("/do/<what>")
def do(what):
    batch = getattr(cache, what)(**request.args)
    if "wait" in request.headers.get("X-Do", ""):
        batch.wait()
    return f"{batch.found} {batch.done} {batch.failed} {batch.skipped}"


@app.after_request
def tell(response):
    response.headers["X-Pid"] = str(os.getpid())
    return response
"""
SCRIPT = """
import json, sys
from live_app import app, cache

with app.app_context():
    batch = cache.warm([*map("/news/{}".format, range(int(sys.argv[1]))), "/café/ü", "/about"], concurrency=4)
    try:
        batch.wait()
    except KeyboardInterrupt:
        batch.cancel()
        sys.exit(130)
print(json.dumps([batch.found, batch.done, batch.failed, batch.skipped, batch.not_stored]))
"""
#: The host that visitors of the server name, since the script does not know the port.
HOST = {"Host": "shop.example"}


class Script(NamedTuple):
    """A script that runs.

    :ivar folder: the folder with its output and its errors.
    """

    process: PreparedProcess
    folder: Path

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end. Return its exit status, its output and its errors."""
        try:
            status = self.process.wait(10 * PATIENCE)
        finally:
            self.process.kill()
        return status, (self.folder / "out").read_text(), (self.folder / "errors").read_text()


def start(folder: Path, count: int, env: dict[str, object]) -> Script:
    """Start a script that warms this many pages of news and two other pages."""
    (folder / "live_app.py").write_text(SOURCE)
    command = ["-c", SCRIPT, str(count)]
    with (folder / "out").open("wb") as output, (folder / "errors").open("wb") as errors:
        process = prepared.start(
            command, prepared.SERVER_MODULES, folder=ROOT, env=environment(folder, env), output=output, errors=errors
        )
    return Script(process, folder)


def stored(cache: Path) -> int:
    """Return how many entries are in a directory, after reading each of them whole."""
    store = FileStore(cache)
    keys = [each.entry.key for each in store.walk()]
    assert all(store.load(key).entry is not None for key in keys)
    assert store.counters["broken_entries"] == 0
    assert len([path for path in cache.glob("??/*") if len(path.name) == 40]) == len(keys)
    return len(keys)


@pytest.mark.soak
@pytest.mark.server
def test_warming_that_is_interrupted_goes_on_where_it_was(tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    count, cache = soak(1000, 60), tmp_path / "cache"
    with Gate() as gate:
        env: dict[str, object] = {"CACHE": cache, "GATE": gate.url}
        gate.hold(after=count // 2)
        script = start(tmp_path, count, env)
        try:
            wait_for(lambda: gate.open == 4, what="four are asked for at a time")
            os.kill(script.process.pid, signal.SIGINT)
        finally:
            status, out, err = script.ended()
        assert (status, out, err) == (130, "", "")
        # The two pages that need no third party come last, so that they are not stored yet.
        done = stored(cache)
        assert done == count // 2
        gate.release()
        status, out, err = start(tmp_path, count, env).ended()
        assert (status, json.loads(out), err) == (0, [count + 2, count + 2 - done, 0, done, 0], "")
        assert stored(cache) == count + 2
        assert gate.calls == count + 4
    made = Counter(Path(f"{cache}.log").read_text().split())
    assert len(made) == count
    assert sum(made.values()) == count + 4


@pytest.mark.server
def test_what_was_warmed_by_a_script_is_served_and_published_by_any_worker(tmp_path: Path) -> None:
    with Gate() as gate, ExitStack() as stack:
        env: dict[str, object] = {"CACHE": tmp_path / "cache", "GATE": gate.url}
        gate.answer("first")
        assert start(tmp_path, 4, env).ended()[0] == 0
        server = stack.enter_context(serving("gthread", SOURCE, tmp_path, env=env))
        one, other = visitors_of_two_workers(server, stack, "/about", HOST)
        for path in ("/news/0", "/caf%C3%A9/%C3%BC", "/about"):
            assert (one.get(path, HOST).cache, other.get(path, HOST).cache) == ("HIT", "HIT"), path

        # One worker publishes pages that neither has made: both serve the new pages, and no visitor has waited.
        gate.answer("second")
        assert one.get("/do/publish?tag=news", {**HOST, "X-Do": "wait"}, method="POST").text == "4 4 0 0"
        for visitor in (other, one):
            seen = visitor.get("/news/0", HOST)
            assert (seen.cache, seen.text[:9]) == ("HIT", "0: second")
        assert gate.calls == 8

        # One worker purges while the other renews the pages: the refreshes began before the purge, so it covers their pages.
        gate.hold()
        one.get("/do/refresh?tag=news", HOST, method="POST")
        wait_for(lambda: gate.open == 4, what="the other's refreshes")
        gate.answer("third")
        assert other.get("/do/purge?prefix=/news/", {**HOST, "X-Do": "wait"}, method="POST").text == "4 4 0 0"
        gate.release()
        wait_for(lambda: gate.open == 0)
        gate.answer("fourth")
        assert [visitor.get("/news/0", HOST).text[:9] for visitor in (other, one)] == ["0: fourth"] * 2
        assert one.get("/do/refresh?tag=none", {**HOST, "X-Do": "wait"}, method="POST").text == "0 0 0 0"
        assert [visitor.get("/news/0", HOST).text[:9] for visitor in (other, one)] == ["0: fourth"] * 2


@pytest.mark.server
def test_what_was_warmed_is_served_where_no_raw_path_is_told(tmp_path: Path) -> None:
    with Gate() as gate:
        env: dict[str, object] = {"CACHE": tmp_path / "cache", "GATE": gate.url}
        assert start(tmp_path, 1, env).ended()[0] == 0
        with serving("granian", SOURCE, tmp_path, env=env, workers=1) as server:
            assert server.get("/news/0", HOST).cache == "HIT"
