"""The numbers of four workers, one of which is killed in the middle, add up to what the visitors were told."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from support import prepared
from support.servers import Server, Visitor, environment, serving, wait_for

pytestmark = [pytest.mark.server, pytest.mark.soak]

WORKERS, VISITORS = 4, 6
SOURCE = """
import os
from flask import Flask
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config.update(STALECACHE_DIR=os.environ["CACHE"])
if os.environ.get("AT_THE_GATEWAY"):
    app.config["STALECACHE_GATEWAY"] = True
cache = StaleCache(app)
# What of a line is written is whole, and there also if the process is killed.
runs = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def say(name):
    os.write(runs, b".")
    return f"{name} from {os.getpid()}"


@app.route("/hit/<name>", methods=["GET", "POST"])
@cache.cached(3600)
def hit(name):
    return say(name)


@app.get("/stale/<name>")
@cache.cached(0, 3600, jitter=0)
def stale(name):
    return say(name)


@app.get("/miss/<name>")
def miss(name):
    return say(name), {"Cache-Control": "max-age=60"}


if not os.environ.get("AT_THE_GATEWAY"):
    app.view_functions["miss"] = cache.cached(60)(app.view_functions["miss"])
"""
#: Prints the numbers, in a process that answers nobody.
READER = """
import json
from live_app import app, cache

with app.app_context():
    print(json.dumps(cache.stats()))
"""


class Told:
    """The answers that visitors got.

    :ivar words: their number, by X-Cache-Status.
    :ivar broken: connections that broke before an answer was there.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.words: Counter[str] = Counter()
        self.broken = 0
        self.done = 0
        self._lock = threading.Lock()

    def visit_often(self, times: int, seed: int) -> None:
        """Visit pages at random."""
        chance, words, broken, visitor = random.Random(seed), Counter[str](), 0, None
        with ExitStack() as stack:
            for number in range(times):
                path, method = self._whereto(chance, f"{seed}-{number}")
                try:
                    visitor = visitor or stack.enter_context(Visitor(self.server))
                    answer = visitor.get(path, method=method)
                    words[answer.headers["X-Cache-Status"]] += 1
                    # A new connection now and then, since one is with the same worker as long as it lasts.
                    visitor = None if answer.closes or chance.random() < 0.1 else visitor
                except (OSError, HTTPException):
                    broken, visitor = broken + 1, None
                self.done += 1
                if visitor is None:
                    stack.close()
        with self._lock:
            self.words += words
            self.broken += broken

    @staticmethod
    def _whereto(chance: random.Random, name: str) -> tuple[str, str]:
        kind = chance.random()
        if kind < 0.7:
            return f"/hit/{chance.randrange(20)}", "GET"
        if kind < 0.8:
            return f"/stale/{chance.randrange(3)}", "GET"
        return (f"/miss/{name}", "GET") if kind < 0.9 else (f"/hit/{chance.randrange(20)}", "POST")


def read_elsewhere(folder: Path, env: dict[str, str]) -> Any:
    """Return the numbers as another process reads them."""
    done = prepared.run(["-c", READER], folder=folder, env=environment(folder, env), timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.grid
@pytest.mark.parametrize("gateway", ["", "yes"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_the_numbers_add_up_though_a_worker_is_killed(
    kind: str, gateway: str, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    times = soak(12_000, 480) // VISITORS
    env = {"CACHE": str(tmp_path / "cache"), "RUNS": str(tmp_path / "runs"), "AT_THE_GATEWAY": gateway}
    with serving(kind, SOURCE, tmp_path, env=env, workers=WORKERS) as server:
        told = Told(server)
        with ThreadPoolExecutor(VISITORS) as pool:
            visiting = [pool.submit(told.visit_often, times, seed) for seed in range(VISITORS)]
            wait_for(lambda: told.done >= times * VISITORS // 2, 300, "half of the visits")
            os.kill(server.worker_pids[0], signal.SIGKILL)
            for future in visiting:
                future.result(300)
        wait_for(lambda: _is_settled(read_elsewhere(tmp_path, env)), what="the refreshes are done")
        living = read_elsewhere(tmp_path, env)
    dead = read_elsewhere(tmp_path, env)
    assert sum(told.words.values()) + told.broken == times * VISITORS
    assert {"HIT", "MISS", "BYPASS"} <= told.words.keys()
    assert {"STALE", "UPDATING"} & told.words.keys()
    assert living["workers"] >= 2
    assert dead["workers"] == 0
    for stats in (living, dead):
        more = Counter(stats["requests"])
        more.subtract(told.words)
        # Requests that were cut off may have been counted.
        assert min(more.values()) >= 0
        assert sum(more.values()) <= told.broken
        assert sum(one["served"]["count"] for one in stats["endpoints"].values()) == sum(stats["requests"].values())
        # Calls that ran in the killed worker have written their dot, and were not counted.
        assert 0 <= (tmp_path / "runs").stat().st_size - stats["origin_calls"] <= VISITORS + 4
    assert dead["requests"] == living["requests"]


def _is_settled(stats: Any) -> bool:
    return bool(stats["refreshes"]["pending"] == 0)
