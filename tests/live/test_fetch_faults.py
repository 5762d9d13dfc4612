"""Fetch functions over four sync workers of gunicorn: a third party that hangs for ever, or is down for a minute and comes back."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from support.servers import PATIENCE, Answer, Gate, Server, serving, wait_for

pytestmark = pytest.mark.server

#: The functions differ in what they can serve when the third party fails: nothing (``cold``), or a value in one of the stale
#: windows (``swr``, ``sie``). Each exists with and without ``wait``.
SOURCE = """
import json, os, threading, time
from urllib.request import urlopen
from flask import Flask
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config.update(json.loads(os.environ["SETTINGS"]))
cache = StaleCache(app)
WINDOWS = {"cold": (600, 600, 600), "swr": (0.01, 6000, 6000), "sie": (0.01, 0, 6000)}


def made(name, windows, wait, most=2):
    def ask(key: str) -> str:
        with urlopen(f"{os.environ['GATE']}?name={name}&key={key}&pid={os.getpid()}&at={time.time()}") as answer:
            return answer.read().decode()

    ask.__qualname__ = name
    return cache.memoize(*windows, jitter=0, wait=wait, fallback="fallback", max_concurrency=most)(ask)


functions = {
    f"{kind}-{wait}": made(f"{kind}-{wait}", windows, wait) for kind, windows in WINDOWS.items() for wait in (None, 0.2)
}
parts = [made(f"parts-{wait}", WINDOWS["swr"], wait, None) for wait in (None, 20)]


@app.get("/plain/<name>/<key>")
def plain(name, key):
    return functions[name](key)


@app.get("/cached/<name>/<key>")
@cache.cached(600, 6000, 6000, jitter=0)
def cached(name, key):
    return functions[name](key)


@app.get("/five/<int:which>")
@cache.cached(600, 6000, 6000, jitter=0)
def five(which):
    return " ".join(parts[which](str(number)) for number in range(5))


@app.get("/threads")
def threads():
    return str(threading.active_count())
"""


@contextmanager
def site(folder: Path, gate: Gate, **settings: object) -> Iterator[Server]:
    config = {f"STALECACHE_{name}": value for name, value in {"DIR": str(folder / "cache"), **settings}.items()}
    with serving("sync", SOURCE, folder, env={"GATE": gate.url, "SETTINGS": json.dumps(config)}, workers=4) as server:
        yield server


@contextmanager
def visitors(server: Server, paths: list[str], wanted: dict[str, set[str]]) -> Iterator[Callable[[], int]]:
    """Let four visitors request the paths over and over, and fail if an answer is an error or not one of those wanted for its path.

    It yields a function that returns the number of answers so far.
    """
    over, count = threading.Event(), [0] * 4

    def visit(number: int) -> None:
        chance = random.Random(number)
        while not over.wait(0.01):
            path = chance.choice(paths)
            answer = server.get(path)
            assert (answer.status, answer.text in wanted[path]) == (200, True), (path, answer.status, answer.text)
            count[number] += 1

    with ThreadPoolExecutor(4) as pool:
        each = [pool.submit(visit, number) for number in range(4)]
        try:
            yield lambda: sum(count) if not any(visiting.done() for visiting in each) else pytest.fail("a visitor gave up")
        finally:
            over.set()
            for visiting in each:
                visiting.result(PATIENCE)


def fill(server: Server, paths: list[str]) -> None:
    """Fill the cache. On a busy machine, a call may take longer than its wait: then it is stored later."""
    for path in paths:
        if "cold" not in path:
            wait_for(lambda path=path: server.get(path).text == "stored", PATIENCE, path)  # type: ignore[misc]


# -- hanging ---------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("page", ["plain", "cached"])
def test_one_that_hangs_for_ever_harms_nobody(page: str, tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    keys = range(6)
    paths = [f"/{page}/{kind}-0.2/{key}" for kind in ("cold", "swr", "sie") for key in keys]
    # The main thread, housekeeping, 2 for each of three functions, and for stored pages 4, and one for those that compute.
    most = 2 + 3 * 2 + (4 + 1 if page == "cached" else 0)
    wanted = {path: {"fallback" if "cold" in path else "stored"} for path in paths} | {"/threads": {*map(str, range(most + 1))}}
    with Gate() as gate, site(tmp_path, gate) as server:
        gate.answer("stored")
        fill(server, paths)
        gate.hold()
        with visitors(server, [*paths, "/threads"], wanted) as answers:
            wait_for(lambda: answers() >= soak(8_000, 120), 600, "answers")
            assert gate.open <= 3 * 2 * 4, "two calls of each of three functions in each of four processes"
        assert {int(server.get("/threads").text) <= most for _ in range(20)} == {True}
        gate.release()


# -- down for a minute -----------------------------------------------------------------------------------------------


def attempts(gate: Gate, after: int) -> dict[tuple[str, str], list[float]]:
    """Return when each function called the third party for each key, by the clock of the calling process."""
    found: dict[tuple[str, str], list[float]] = {}
    for question in gate.questions[after:]:
        found.setdefault((question["name"], question["key"]), []).append(float(question["at"]))
    return found


@pytest.mark.soak
@pytest.mark.parametrize("kinds", [["swr", "sie"], ["cold"]], ids=["stored", "cold"])
def test_one_that_is_down_is_asked_once_a_step_by_all_workers(
    kinds: list[str], tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    paths = [f"/{page}/{kind}-{wait}/{page}" for page in ("plain", "cached") for kind in kinds for wait in (None, 0.2)]
    first, longest = soak(2, 0) or 0.2, 300
    with Gate() as gate, site(tmp_path, gate, REFRESH_BACKOFF=[first, longest]) as server:
        gate.answer("stored")
        fill(server, paths)
        gate.fail()
        before = gate.calls
        with visitors(server, paths, {path: {"fallback" if kinds == ["cold"] else "stored", "back"} for path in paths}):
            threading.Event().wait(soak(30, 0))
            wait_for(lambda: min(map(len, attempts(gate, before).values()), default=0) >= 3, 120, "three attempts for each")
            down = {about: len(asked) for about, asked in attempts(gate, before).items()}
            gate.answer("back")
            # One more call may have failed meanwhile. The step after it is twice as long, and chance adds up to a quarter.
            patience = first * 2.0 ** max(down.values()) * 1.25 + PATIENCE
            wait_for(lambda: all(server.get(path).text == "back" for path in paths), patience, "it is back")
        assert len(attempts(gate, before)) == len(paths)
        for about, asked in attempts(gate, before).items():
            for number, (one, other) in enumerate(pairwise(asked[: down[about] + 1])):
                assert other - one >= first * 2**number, f"{about}: attempt {number + 2} came within a step: {asked}"


# -- a page of five --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/five/0", "/five/1"], ids=["without wait", "wait"])
def test_a_pages_five_stale_values_are_renewed_at_the_same_time(path: str, tmp_path: Path) -> None:
    with Gate() as gate, site(tmp_path, gate) as server:
        assert server.get(path).text == "1 2 3 4 5"
        filled = time.time()
        wait_for(lambda: time.time() > filled + 0.01, what="all five are stale")
        gate.hold()

        def visit() -> Answer:
            answer = server.get(path)
            assert (answer.cache in ("STALE", "UPDATING"), answer.text) == (True, "1 2 3 4 5")
            return answer

        wait_for(lambda: visit() and gate.open == 5, what="all five are asked for at the same time")
        gate.release()
        renewed = wait_for(lambda: text if (text := server.get(path).text) != "1 2 3 4 5" else "", what="it is renewed")
        assert int(min(renewed.split(), key=int)) > 5, "one refresh renews all of it"
