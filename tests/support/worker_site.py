"""An app, its worker in processes of its own, and visitors in this process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.core.packets.packets import socket_name
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.stats.schema import RunningRefresh, WorkerState
from flask_stalecache.stats.worker_state import read_state
from support import prepared
from support.client import Seen, visit
from support.files import replace_text
from support.prepared import PreparedProcess
from support.servers import environment
from support.threads import PATIENCE, wait_until

#: The source of the app. Its pages and values are always stale, except ``/long``; most of them name the process that made them.
SHOP = """
import os, threading
from pathlib import Path
from flask import Flask, abort, request
from flask_stalecache import Policy, StaleCache
from support.files import replace_text

FOLDER = Path({folder!r})
app = Flask("shop", root_path=str(FOLDER), static_folder=None)
app.config.update(STALECACHE_DIR=FOLDER / "cache", STALECACHE_GATEWAY=[("/open", Policy())], **{settings!r})
if "REFRESHER" in globals():
    app.config["STALECACHE_REFRESHER"] = REFRESHER
cache = StaleCache(app)
WINDOWS = dict(max_age=0, stale_while_revalidate=3600, stale_if_error=3600)

def is_held(path):
    try:
        return (FOLDER / "hold").read_text() in ("", path)
    except FileNotFoundError:
        return False

def made():
    if (FOLDER / "die").exists() and cache.refreshing:
        os._exit(9)
    with open(FOLDER / "runs", "a") as runs:
        runs.write(f"{{os.getpid()}} {{request.path}}\\n")
    while cache.refreshing and is_held(request.path):
        replace_text(FOLDER / "held", f"{{os.getpid()}} {{request.path}}")
        threading.Event().wait(0.005)
    if (FOLDER / "fail").exists():
        abort(503)
    return f"made by {{os.getpid()}}"

@app.get("/<int:number>")
@cache.cached(**WINDOWS, vary=["X-Theme"], tags=lambda number: [f"page:{{number}}"])
def page(number):
    return f"{{number}} {{request.headers.get('X-Theme', 'plain')}} {{made()}}"

@app.get("/open")
def opened():
    return made(), {{"Cache-Control": "max-age=0, stale-while-revalidate=3600"}}

@cache.memoize(**WINDOWS)
def rates(base):
    return f"{{base}} made by {{os.getpid()}}"

@cache.memoize(**WINDOWS, wait=10)
def slow(base):
    return f"{{base}} made by {{os.getpid()}}"

@cache.memoize(**WINDOWS, tags=["price"])
def price():
    return (FOLDER / "price").read_text()

@app.get("/price")
@cache.cached(**WINDOWS)
def priced():
    return f"{{price()}} {{made()}}"

@app.get("/long")
@cache.cached(3600, 3600, 3600)
def made_from_what_is_stale():
    return f"{{price()}} {{made()}}"

@app.get("/mine")
@cache.cached(**WINDOWS, key=lambda: "mine")
def mine():
    return made()
"""

_moments = count(1_000_000)


class WorkerSite:
    """The app, as a web process has it.

    :param folder: where app and cache are.
    :param refresher: queues refreshes.
    :param more: further lines of the app.
    :param settings: of the cache, without ``STALECACHE_``.
    """

    def __init__(self, folder: Path, *, refresher: Any = None, more: str = "", **settings: Any) -> None:
        self.folder = folder
        self.settings = {f"STALECACHE_{name}": value for name, value in settings.items()}
        self.source = SHOP.format(folder=str(folder), settings=self.settings) + more
        module = folder / "shop.py"
        module.write_text(self.source, encoding="utf-8")
        # Python would use the bytecode of an earlier source that has the same length and was written in the same second.
        os.utime(module, (next(_moments),) * 2)
        self.refresher = refresher
        self.price(1)
        self.module = self.load()
        self.app: Flask = self.module.app
        self.cache: StaleCache = self.module.cache

    def load(self) -> ModuleType:
        """Return the app of another web process."""
        module = ModuleType("shop")
        module.__dict__["REFRESHER"] = self.refresher
        exec(compile(self.source, str(self.folder / "shop.py"), "exec"), module.__dict__)
        return module

    def price(self, price: int) -> None:
        """Set what the third party says."""
        replace_text(self.folder / "price", str(price))

    @contextmanager
    def worker(self, *options: str) -> Iterator[PreparedProcess]:
        """Run a worker, until the end of the block."""
        process = self.start(*options)
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE)

    def start(self, *options: str) -> PreparedProcess:
        """Start a worker."""
        command = ["-m", "flask", "--app", "shop", "stalecache", "worker", *options]
        env = {**environment(self.folder, {}), "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])}
        with open(self.folder / "worker.log", "ab") as log:
            return prepared.start(command, prepared.SERVER_MODULES, folder=self.folder, env=env, output=log)

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def state(self) -> WorkerState | None:
        """What the worker says that it is doing."""
        directory = Directory(self.folder / "cache")
        try:
            directory.hold()
        except OSError:
            return None
        return read_state(directory.at(f"{socket_name('shop', self.settings.get('STALECACHE_VERSION', ''))}.state"))

    def await_worker(self, pid: int | None = None) -> WorkerState:
        """Wait until a worker is there."""
        found: list[WorkerState] = []

        def is_there() -> bool:
            state = self.state()
            if state is not None and (pid is None or state["pid"] == pid) and state["processes"]:
                found.append(state)
            return bool(found)

        wait_until(is_there, "the worker")
        return found[-1]

    def await_running(self, *titles: str) -> list[RunningRefresh]:
        """Wait until the worker runs the refreshes of these URLs and no others, and return what it says of them."""
        running: list[RunningRefresh] = []

        def is_so() -> bool:
            with self.app.app_context():
                worker = self.cache.stats().get("worker")
            running[:] = [] if worker is None else worker["running"]
            return worker is not None and sorted(each["title"] for each in running) == sorted(titles)

        wait_until(is_so, f"a worker that runs {titles} alone")
        return running

    # -- visitors ------------------------------------------------------------------------------------------------

    def fill(self, *paths: str) -> None:
        """Let this process make pages, which are stale at once."""
        for path in paths:
            assert visit(self.app, path).text.endswith(f"made by {os.getpid()}")

    def maker(self, path: str, **options: Any) -> int:
        """Return who has made a page, as a visitor sees it."""
        seen = visit(self.app, path, **options)
        assert seen.status == 200, seen
        return maker_of(seen)

    def await_maker(self, path: str, *, other_than: int | None = None, **options: Any) -> int:
        """Visit a stale page until another process than ``other_than`` has made it, and return that process.

        :param other_than: default: this process.
        """
        before = os.getpid() if other_than is None else other_than
        makers: list[int] = []

        def is_made() -> bool:
            makers.append(self.maker(path, **options))
            return makers[-1] != before

        wait_until(is_made, f"somebody else makes {path}")
        return makers[-1]

    def runs(self, path: str = "") -> list[int]:
        """Return the processes that have begun to make a page, one after the other.

        :param path: of this page alone.
        """
        file = self.folder / "runs"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [int(pid) for pid, page in lines if path in ("", page)]

    def await_run(self, path: str, before: int) -> None:
        """Visit a stale page until somebody has begun to make it, in this process or elsewhere.

        :param before: how many runs there were before.
        """
        wait_until(lambda: self.maker(path) and len(self.runs()) > before, f"a run after {before}")

    def set(self, name: str, on: bool) -> None:
        """Let all refreshes wait (``hold``) or end their process (``die``), or let pages fail (``fail``)."""
        if on:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink(missing_ok=True)

    def hold_one(self, path: str) -> int:
        """Let a refresh of a page be held, and return the process that runs it.

        Refreshes of other pages, such as those that an earlier test has left, are not held.
        """
        self.set("held", False)
        replace_text(self.folder / "hold", path)
        wait_until(lambda: self.maker(path) and self._held()[1:] == [path], "a refresh that is held")
        return int(self._held()[0])

    def _held(self) -> list[str]:
        """Return the process and the path of a refresh that is held."""
        held = self.folder / "held"
        return held.read_text().split() if held.exists() else []


def maker_of(seen: Seen) -> int:
    return int(seen.text.rpartition(" ")[2])


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def moment(seconds: float) -> float:
    """Return the time at which some seconds have passed."""
    return time.monotonic() + seconds
