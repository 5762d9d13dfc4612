"""Floods of made-up requests against one worker of gunicorn: its memory, its threads and its directory stay within limits.

``make soak`` prints the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from support.servers import PATIENCE, Server, serving, visits, wait_for

pytestmark = [pytest.mark.server, pytest.mark.soak]

MIB = 1024 * 1024
MAX_SIZE = 4 * MIB
MEMORY_SIZE = 2 * MIB
THREADS = 8
REFRESH_WORKERS = 2
VISITORS = 4
#: Bytes that a worker may grow by: copies, the index and the known URLs up to their limits, and memory that CPython keeps.
GROWTH = 48 * MIB
#: The tables of a directory, which have a fixed size, and what is written between two sweeps.
FIXED = 4 * MIB
#: The threads of the server and of the refreshes, the one that answers the signals, and the housekeeping.
ALL_THREADS = THREADS + REFRESH_WORKERS + 4

SOURCE = f"""
import os
import time

from flask import Flask, Response, request
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config.update(
    STALECACHE_DIR=os.environ["DIR"],
    STALECACHE_GATEWAY=True,
    STALECACHE_MAX_SIZE={MAX_SIZE},
    STALECACHE_MEMORY_SIZE={MEMORY_SIZE},
    STALECACHE_REFRESH_WORKERS={REFRESH_WORKERS},
)
cache = StaleCache(app)


@app.get("/hot")
def hot():
    return Response("hot", headers={{"Cache-Control": "max-age=3600"}})


@app.route("/pages/<path:name>", methods=["GET", "POST"])
def page(name):
    return Response("a page " * 20, headers={{"Cache-Control": "max-age=3600"}})


@app.get("/agents")
def agents():
    return Response(request.user_agent.string, headers={{"Cache-Control": "max-age=3600", "Vary": "User-Agent"}})


@app.get("/stale/<path:name>")
def stale(name):
    return Response("stale", headers={{"Cache-Control": "max-age=0, stale-while-revalidate=3600"}})
"""


class State(NamedTuple):
    """The resources that a worker and its directory use.

    :ivar memory: bytes of the worker that are in memory.
    :ivar files: files and folders in the directory.
    :ivar size: bytes on disk of the directory.
    """

    memory: int
    threads: int
    files: int
    size: int

    def __str__(self) -> str:
        return f"{self.memory / MIB:.1f} MiB, {self.threads} threads, {self.files} files of {self.size / MIB:.1f} MiB"


def state_of(server: Server, directory: Path) -> State:
    (pid,) = server.worker_pids
    status = Path(f"/proc/{pid}/status").read_text()
    memory, threads = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("VmRSS", "Threads"))
    taken = []
    for path in directory.rglob("*"):
        try:
            taken.append(512 * path.lstat().st_blocks)
        except FileNotFoundError:
            # The worker sweeps meanwhile.
            continue
    return State(memory * 1024, threads, len(taken), sum(taken))


Send = Callable[[Callable[..., object], int], object]

#: How each flood sends a number, which is sent once, with ``visit(path, headers, method)``.
FLOODS: dict[str, Send] = {
    "made-up queries": lambda visit, number: visit(f"/pages/a?x={number}"),
    "long URLs": lambda visit, number: visit(f"/pages/{number}/{'x' * 3000}"),
    "long agents": lambda visit, number: visit("/agents", {"User-Agent": f"{number} {'x' * 3000}"}),
    "POST to made-up URLs": lambda visit, number: visit(f"/pages/{number}", {"Content-Length": "0"}, "POST"),
    "stale pages": lambda visit, number: [visit(f"/stale/{number}") for _ in range(2)],
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path, directory: Path) -> Iterator[Server]:
    with serving("gthread", SOURCE, tmp_path, env={"DIR": directory}, workers=1, threads=THREADS) as server:
        yield server


def test_a_worker_and_its_directory_stay_within_limits(
    server: Server, directory: Path, soak: Callable[[int, int], int], capsys: pytest.CaptureFixture[str]
) -> None:
    count = soak(4_000, 100)

    def send(flood: Send, first: int) -> None:
        with visits(server) as visit:
            for number in range(first, count, VISITORS):
                flood(visit, number)

    def look(name: str) -> State:
        state = state_of(server, directory)
        with capsys.disabled():
            print(f"\n{name}: {state}" if soak(1, 0) else "", end="")
        return state

    with visits(server) as visit:
        assert [visit("/hot").cache for _ in range(2)] == ["MISS", "HIT"]
    before = look("before")
    for name, flood in FLOODS.items():
        with ThreadPoolExecutor(VISITORS) as pool:
            for sent in [pool.submit(send, flood, first) for first in range(VISITORS)]:
                sent.result(60 * PATIENCE)
        now = look(f"{count} {name}")
        assert now.memory - before.memory < GROWTH, name
        assert now.threads <= ALL_THREADS, name
        wait_for(lambda: state_of(server, directory).size <= MAX_SIZE + FIXED, what="the directory is within its limit")
