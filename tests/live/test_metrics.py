"""Four workers of gunicorn, one of which is killed while they are asked: the page for Prometheus says what the visitors counted."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flask_stalecache.stores.file_store import FileStore
from support.servers import PATIENCE, Server, Visitor, serving, wait_for

pytestmark = [pytest.mark.server, pytest.mark.soak]

SOURCE = """
import json, os, time
from flask import Flask, Response, abort, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from flask_stalecache import StaleCache
from flask_stalecache.metrics import StaleCacheCollector

app = Flask(__name__)
app.config.update(STALECACHE_DIR=os.environ["CACHE"], STALECACHE_GATEWAY=True)
cache = StaleCache(app)
registry = CollectorRegistry()
registry.register(StaleCacheCollector(app))

@cache.memoize(3600)
def name_of(number: int) -> str:
    return f"page {number}"

@app.get("/decorated/<int:number>")
@cache.cached(3600, unless=lambda: "live" in request.args)
def decorated(number):
    return name_of(number)

@app.get("/opened/<int:number>")
def opened(number):
    return Response(f"page {number}", headers={"Cache-Control": "max-age=3600"})

@app.get("/failing/<int:number>")
@cache.cached(3600)
def failing(number):
    abort(503)

def tell(body, kind):
    return Response(body, content_type=kind, headers={"X-Worker": str(os.getpid()), "Cache-Control": "no-store"})

def metrics():
    return tell(generate_latest(registry), CONTENT_TYPE_LATEST)

def stats():
    return tell(json.dumps(cache.stats()), "application/json")

# Beside the gateway, which would count what it hands on.
def aside(environ, start_response, inner=app.wsgi_app):
    view = {"/metrics": metrics, "/stats": stats}.get(environ["PATH_INFO"])
    if view is None:
        return inner(environ, start_response)
    with app.app_context():
        return view()(environ, start_response)

app.wsgi_app = aside
"""
#: Visitors at once, and the pages of each endpoint.
VISITORS, PAGES = 8, 50
#: The endpoints of ten consecutive requests.
WANTED = ("decorated",) * 6 + ("opened",) * 3 + ("failing",)
#: Pages of ``decorated`` that are asked for: the function is called once for each.
DECORATED = PAGES * 6 // 10
#: Numbers of requests, by endpoint and cache status.
Counted = Counter[tuple[str, str]]


def path_of(number: int) -> tuple[str, str]:
    """Return the path and the endpoint of the request with a number."""
    endpoint = WANTED[number % len(WANTED)]
    return f"/{endpoint}/{number % PAGES}{'?live' if number % 40 == 0 else ''}", endpoint


class Crowd:
    """Visitors who count how they were answered.

    :ivar answered: requests by endpoint and status.
    :ivar broken: requests by endpoint that got no answer.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answered: Counted = Counter()
        self.broken: Counter[str] = Counter()
        self._numbers = count()
        self._begun = 0

    def come(self, total: int, meanwhile: Callable[[], object]) -> None:
        """Send this many requests, and call ``meanwhile`` after half of them."""
        with ThreadPoolExecutor(VISITORS, "visitor") as pool:
            asked = [pool.submit(self._visit, total // VISITORS) for _ in range(VISITORS)]
            wait_for(lambda: self._begun >= total // 2, 600, "half of the visits")
            meanwhile()
            for future in asked:
                answered, broken = future.result(600)
                self.answered += answered
                self.broken += broken

    def _visit(self, times: int) -> tuple[Counted, Counter[str]]:
        answered: Counted = Counter()
        broken: Counter[str] = Counter()
        with ExitStack() as stack:
            visitor: Visitor | None = None
            for _ in range(times):
                self._begun = number = next(self._numbers)
                path, endpoint = path_of(number)
                try:
                    visitor = visitor or stack.enter_context(Visitor(self.server))
                    # The error page for an exception of a view has no X-Cache-Status.
                    answered[endpoint, visitor.get(path).cache or "MISS"] += 1
                except (OSError, HTTPException):
                    broken[endpoint] += 1
                    visitor = None
        return answered, broken


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(server: Server) -> list[dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
    """Return the samples on the page for Prometheus, of each worker."""
    pages: dict[str, str] = {}

    def ask() -> bool:
        with suppress(OSError, HTTPException):
            answer = server.get("/metrics")
            assert answer.status == 200
            pages[answer.headers["X-Worker"]] = answer.text
        return len(pages) == 4

    wait_for(ask, PATIENCE, "an answer of each worker")
    return [samples(page) for page in pages.values()]


def requests_in(page: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Counted:
    told: Counted = Counter()
    for (name, labels), value in page.items():
        if name == "stalecache_requests_total" and value:
            told[dict(labels)["endpoint"], dict(labels)["status"]] += int(value)
    return told


def check(told: Counted, crowd: Crowd) -> None:
    """Check that all answered requests were counted, and beyond them at most those that broke off in the killed worker."""
    assert not crowd.answered - told
    for endpoint in set(WANTED):
        more = sum(value for (name, _), value in (told - crowd.answered).items() if name == endpoint)
        assert more <= crowd.broken[endpoint]
    assert {endpoint for endpoint, _ in told} == set(WANTED)


def test_the_page_adds_up_to_what_the_visitors_counted(tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    total, env = soak(20_000, 400), {"CACHE": tmp_path / "cache"}
    with serving("gthread", SOURCE, tmp_path, env=env, workers=4) as server:
        crowd = Crowd(server)
        crowd.come(total, meanwhile=lambda: os.kill(server.worker_pids[0], signal.SIGKILL))
        assert sum(crowd.answered.values()) + sum(crowd.broken.values()) == total
        assert sum(crowd.broken.values()) <= VISITORS
        pages = scraped(server)
        told = requests_in(pages[0])
        check(told, crowd)
        # Any worker's page has the totals of all.
        assert [requests_in(page) for page in pages] == [told] * 4
        stats = server.get("/stats").text
        bodies = {name: value for (name, labels), value in pages[0].items() if not labels}
        # The store maps the table until the next server does: caches of other tests remove tables that no process has mapped.
        store = FileStore(tmp_path / "cache")
        assert store.usage().entries == bodies["stalecache_entries"]
    with serving("gthread", SOURCE, tmp_path, env=env, workers=1) as server:
        # Counters go on over a restart.
        again = samples(server.get("/metrics").text)
        assert requests_in(again) == told
        assert again["stalecache_entries", ()] == bodies["stalecache_entries"]
        check_stats(server.get("/stats").text, stats, told)


def check_stats(now: str, before: str, told: Counted) -> None:
    """Check that ``stats()`` has the numbers of the page, before and after a restart."""
    for text in (now, before):
        stats = json.loads(text)
        by_status: Counter[str] = Counter()
        for (_, status), value in told.items():
            by_status[status] += value
        assert {status: value for status, value in stats["requests"].items() if value} == dict(by_status)
        assert stats["endpoints"].keys() == set(WANTED)
        [of_calls] = stats["functions"].values()
        # One more if it was under way in the worker that was killed.
        assert of_calls["origin_calls"] in (DECORATED, DECORATED + 1)
