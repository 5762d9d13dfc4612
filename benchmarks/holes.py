"""Cost of a hit with holes, in process: ``python benchmarks/holes.py [--rounds 30]`` prints a table as Markdown.

Pages of 10 kB without a hole, with one trivial hole and with five are answered from the store in turn, round by round, so that a
machine that becomes slower affects all of them. A ratio is taken within a round; what is printed is the median of rounds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.test import create_environ

from flask_stalecache import StaleCache

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SIZE = 10_000
#: The highest acceptable ratio of a hit with one trivial hole to one without.
LIMIT = 1.1
NAMES = {0: "no hole", 1: "one hole", 5: "five holes"}
#: Hits of each page in one turn, and turns of each page in one round.
CALLS, TURNS = 100, 6


def site(folder: Path) -> WSGIApplication:
    """Return an app whose pages are named by their number of holes."""
    app = Flask("shop", static_folder=None)
    app.config["STALECACHE_DIR"] = folder
    cache = StaleCache(app)

    @cache.hole
    def hole() -> str:
        return "x"

    @app.route("/<int:count>")
    @cache.cached(3600)
    def page(count: int) -> str:
        return "".join(["x" * ((SIZE - count) // (count + 1)), *(f"{hole()}{'x' * (SIZE // (count + 1))}" for _ in range(count))])

    return app


def call(app: WSGIApplication, environ: dict[str, Any]) -> tuple[str, bytes]:
    """Make one request like a server. Return how it was answered, and the body."""
    fields: dict[str, str] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        fields.update(headers)

    iterable: Any = app(environ, start_response)
    body = b"".join(iterable)
    if hasattr(iterable, "close"):
        iterable.close()
    return fields["X-Cache-Status"], body


def turn(app: WSGIApplication, environ: dict[str, Any]) -> float:
    """Return the median microseconds of some hits."""
    times = []
    for _ in range(CALLS):
        copy = environ.copy()
        start = time.perf_counter_ns()
        call(app, copy)
        times.append(time.perf_counter_ns() - start)
    return median(times) / 1000


def measure(app: WSGIApplication, rounds: int) -> list[dict[int, float]]:
    """Run the rounds, each in another order."""
    environs = {count: create_environ(f"/{count}", "http://shop.example") for count in NAMES}
    for environ in environs.values():
        for _ in range(20):
            word, _body = call(app, environ.copy())
        if word != "HIT":
            raise SystemExit(f"no hit: {word}")
    order, shuffled, found = list(NAMES), random.Random(1), []
    for _ in range(rounds):
        times: dict[int, list[float]] = {count: [] for count in NAMES}
        for _turn in range(TURNS):
            shuffled.shuffle(order)
            for count in order:
                times[count].append(turn(app, environs[count]))
        found.append({count: median(values) for count, values in times.items()})
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures hits with holes and prints a table as Markdown.")
    parser.add_argument("--rounds", type=int, default=30, help="number of rounds (default 30, about 15 s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: give 1 or more")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = measure(site(Path(folder)), rounds)
    print(f"| hit of 10 kB, median of {rounds} rounds | µs | ÷ no hole |\n|---|---:|---:|")
    ratios = {count: median(each[count] / each[0] for each in found) for count in NAMES}
    for count, name in NAMES.items():
        print(f"| {name} | {median(each[count] for each in found):.1f} | {ratios[count]:.2f} |")
    print(f"\none hole at most {LIMIT}: {'reached' if ratios[1] <= LIMIT else 'NOT REACHED'}")


if __name__ == "__main__":
    main()
