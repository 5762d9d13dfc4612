"""Cost of a fragment that is a hit, in process: ``python benchmarks/fragment.py [--rounds 20]`` prints a table as Markdown.

A template with a list of 200 products in ``{% cache %}`` is rendered within a request by apps that differ in their cache: none, so
that the list is rendered each time, ours, and Flask-Caching's. The same template without the list has the lowest possible cost. The
apps take turns, so that a machine that becomes slower affects all of them; what is printed are medians of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask, render_template
from flask_caching import Cache
from jinja2 import DictLoader

from flask_stalecache import StaleCache

LINK = "{% if links %} <a href='{{ url_for('show', n=n) }}'>more</a>{% endif %}"
LIST = f"{{% for n in range(200) %}}<li>{{{{ n }}}}: {{{{ n * n }}}}{LINK}</li>{{% endfor %}}"
TAG = '{% cache 3600, "products", lang %}'
#: Renderings of an app in one turn.
TURN = 20

NOTHING, LIVE, OURS, LINKS = "the page without the list", "the list, rendered", "our hit", "our hit, with links in the list"
SIMPLE, FILES = "Flask-Caching's hit, SimpleCache", "Flask-Caching's hit, FileSystemCache"


def app_of(body: str, setup: Callable[[Flask], object]) -> Flask:
    """Return an app whose page is a heading and a body."""
    app = Flask("fragment")
    app.jinja_loader = DictLoader({"page.html": f"<h1>Products</h1>{body}"})
    app.add_url_rule("/show/<int:n>", "show", lambda n: "")
    setup(app)
    return app


def ours(folder: Path) -> Callable[[Flask], object]:
    def setup(app: Flask) -> object:
        app.config["STALECACHE_DIR"] = folder
        return StaleCache(app)

    return setup


def apps(folder: Path) -> dict[str, Flask]:
    """Return all measured apps by name."""
    part = f"{TAG}{LIST}{{% endcache %}}"
    files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(folder / "theirs")}
    return {
        NOTHING: app_of("", lambda app: None),
        LIVE: app_of(LIST, lambda app: None),
        OURS: app_of(part, ours(folder / "ours")),
        LINKS: app_of("{% set links = true %}" + part, ours(folder / "links")),
        SIMPLE: app_of(part, lambda app: Cache(app, config={"CACHE_TYPE": "SimpleCache"})),
        FILES: app_of(part, lambda app: Cache(app, config=files)),
    }


def take_turn(app: Flask) -> float:
    """Return the median microseconds of a rendering."""
    times = []
    with app.test_request_context("/", base_url="http://shop.example"):
        for _ in range(TURN):
            start = time.perf_counter_ns()
            render_template("page.html", lang="en")
            times.append(time.perf_counter_ns() - start)
    return median(times) / 1000


def measure(measured: Mapping[str, Flask], rounds: int) -> dict[str, list[float]]:
    """Let all apps take turns, and return the microseconds of each round by name."""
    for app in measured.values():
        take_turn(app)
    found: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, app in measured.items():
            found[name].append(take_turn(app))
    return found


def ratio(found: Mapping[str, list[float]], name: str, other: str) -> float:
    """Return how much longer one takes than another: the median of the rounds."""
    return median(one / another for one, another in zip(found[name], found[other], strict=True))


def table(found: Mapping[str, list[float]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| a page with 200 products | µs | ÷ without the list | ÷ rendered | ÷ FileSystemCache |"
    yield "|---|---:|---:|---:|---:|"
    for name, times in found.items():
        ratios = " | ".join(f"{ratio(found, name, other):.2f}" for other in (NOTHING, LIVE, FILES))
        yield f"| {name} | {median(times):.0f} | {ratios} |"


def main(arguments: Any = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures the hit of a fragment and prints a table as Markdown.")
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds (default 20, about 2 s)")
    rounds = parser.parse_args(arguments).rounds
    if rounds < 1:
        parser.error("--rounds: give 1 or more")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        print("\n".join(table(measure(apps(Path(folder)), rounds))))


if __name__ == "__main__":
    main()
