"""Cost of a hit at the gateway: ``python benchmarks/gateway.py [--rounds 30] [--wire-rounds 7]`` prints tables as Markdown.

In process, a raw WSGI callable, an empty Flask view and the gateway's answers are called in turn, round by round, first on their
own, then while a thread in the background renders a template in a loop. A ratio is taken within a round; what is printed is the
median of the rounds. Over the wire, wrk asks real servers on 127.0.0.1, in turn too; see ``wire.py``.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

import wire
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from hit import PAGE, SIZE, TURN, TURNS, Target, background_render, call, empty_view, raw, request

from flask_stalecache import GatewayCache, StaleCache
from flask_stalecache.core.model.environ import REFRESHING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FIELDS = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(SIZE)), ("ETag", '"1"')]
YEAR = "max-age=31536000"

RAW, EMPTY = "raw WSGI callable", "empty Flask view"
HIT, NOT_MODIFIED, HEAD, RANGE = "gateway hit", "gateway 304", "gateway HEAD", "gateway range of 1 kB"
VARY, STALE = "gateway hit with Vary", "gateway stale hit, refresh pending"
FLASK, SESSION = "gateway hit before a Flask app", "gateway hit, page that used the session"
SIGNED, SECRET = "the same, visitor with a session", "for this benchmark"
NAMES = (RAW, EMPTY, HIT, NOT_MODIFIED, HEAD, RANGE, VARY, STALE, FLASK, SESSION, SIGNED)

#: The highest acceptable costs, as multiples of an empty Flask view.
AGAINST_EMPTY = {
    HIT: Target(f"{HIT} ÷ {EMPTY}", 0.03),
    VARY: Target(f"{VARY} ÷ {EMPTY}", 0.06),
    NOT_MODIFIED: Target(f"{NOT_MODIFIED} ÷ {EMPTY}", 0.06),
    SIGNED: Target(f"{SIGNED} ÷ {EMPTY}", 0.06),
    STALE: Target(f"{STALE} ÷ {EMPTY}", 0.05),
    RANGE: Target(f"{RANGE} ÷ {EMPTY}", 0.1),
}
UNDER_RENDER = Target(f"p99 of a {HIT} under a background render ÷ its idle median", 10)


# -- what is measured ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """An app, and the request to send to it."""

    app: WSGIApplication
    environ: dict[str, Any]
    status: str = "200 OK"
    word: str | None = "HIT"


def saying(cache_control: str, *more: tuple[str, str], refreshes: threading.Event | None = None) -> WSGIApplication:
    """Return an app that serves the page with the given fields.

    :param refreshes: a refresh waits for this event, so that it is pending during the measurement.
    """
    fields = [*FIELDS, ("Cache-Control", cache_control), *more]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        if REFRESHING in environ and refreshes is not None:
            refreshes.wait()
        start_response("200 OK", fields)
        return [PAGE.encode()]

    return app


def flask_behind(folder: Path) -> WSGIApplication:
    """Return a Flask app with a gateway: one page uses the session, the other does not."""
    app = Flask("behind")
    app.config.from_mapping(SECRET_KEY=SECRET, STALECACHE_DIR=folder, STALECACHE_GATEWAY=True)
    cache = StaleCache(app)
    app.add_url_rule("/page", view_func=cache.cached(3600, gateway=True)(lambda: PAGE), endpoint="page")

    @app.get("/session")
    @cache.cached(3600, gateway=True)
    def with_session() -> str:
        session.get("user")
        return PAGE

    return app


def signed_cookie() -> str:
    """Return the Cookie field of a visitor who has a session, without the key that the page asks for."""
    app = Flask("behind")
    app.secret_key = SECRET
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return f"consent=yes; session={signer.dumps({'csrf_token': 'c' * 40, 'language': 'de'})}"


@contextmanager
def cases(folder: Path) -> Iterator[dict[str, Case]]:
    """Yield all measured cases by name."""
    over, plain = threading.Event(), request()
    # The pending refresh must not reach its deadline during the measurement.
    gate = GatewayCache(saying(YEAR), dir=folder / "gateway")
    stale = GatewayCache(
        saying("max-age=0, stale-while-revalidate=31536000", refreshes=over), dir=folder / "stale", refresh_deadline=86400
    )
    vary = GatewayCache(saying(YEAR, ("Vary", "Accept-Encoding")), dir=folder / "vary")
    behind = flask_behind(folder / "flask")
    try:
        yield {
            RAW: Case(raw, plain, word=None),
            EMPTY: Case(empty_view(), plain, word=None),
            HIT: Case(gate, plain),
            NOT_MODIFIED: Case(gate, {**plain, "HTTP_IF_NONE_MATCH": '"1"'}, "304 Not Modified"),
            HEAD: Case(gate, {**plain, "REQUEST_METHOD": "HEAD"}),
            RANGE: Case(gate, {**plain, "HTTP_RANGE": "bytes=1000-1999"}, "206 Partial Content"),
            VARY: Case(vary, plain),
            STALE: Case(stale, plain, word="UPDATING"),
            FLASK: Case(behind, plain),
            SESSION: Case(behind, {**plain, "PATH_INFO": "/session", "RAW_URI": "/session", "HTTP_COOKIE": "consent=yes"}),
            SIGNED: Case(behind, {**plain, "PATH_INFO": "/session", "RAW_URI": "/session", "HTTP_COOKIE": signed_cookie()}),
        }
    finally:
        over.set()
        stale.drain()


def check(found: Mapping[str, Case]) -> None:
    """Check that each case responds as expected, and that the gateway's responses come from the store."""
    for name in [HIT, *found]:
        case = found[name]
        for _ in range(20):
            fields, _ = call(case.app, case.environ.copy())
        if fields["status"] != case.status or fields.get("X-Cache-Status") != case.word:
            raise SystemExit(f"{name} does not answer {case.status} as {case.word}: {fields}")


# -- measuring -------------------------------------------------------------------------------------------------------


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
    """A ``start_response`` that does nothing."""
    return print


def take_turn(case: Case, times: list[int]) -> None:
    """Call the app for a while like a server, and record the nanoseconds of each response."""
    app, base, clock = case.app, case.environ, time.perf_counter_ns
    until = clock() + int(TURN * 1e9)
    start = 0
    while start < until:
        environ = base.copy()
        start = clock()
        iterable = app(environ, start_response)
        for _ in iterable:
            pass
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
        times.append(clock() - start)


class Times(NamedTuple):
    """Microseconds of the calls in one turn."""

    median: float
    p99: float


def times_of(found: Mapping[str, Case]) -> dict[str, Times]:
    """Call all cases in turn."""
    times: dict[str, list[int]] = {name: [] for name in found}
    for _ in range(TURNS):
        for name, case in found.items():
            take_turn(case, times[name])
    return {name: Times(median(taken) / 1000, quantiles(taken, n=100)[-1] / 1000) for name, taken in times.items()}


class Round(NamedTuple):
    """The measurements of one round by name."""

    idle: Mapping[str, Times]
    rendering: Mapping[str, Times]


def measure(found: Mapping[str, Case], rounds: int) -> list[Round]:
    """Run the rounds, each in another order."""
    order, measured, shuffled = list(found), [], random.Random(1)
    with background_render() as busy:
        for _ in range(rounds):
            shuffled.shuffle(order)
            mixed = {name: found[name] for name in order}
            idle = times_of(mixed)
            busy.set()
            measured.append(Round(idle, times_of(mixed)))
            busy.clear()
    return measured


# -- the report ------------------------------------------------------------------------------------------------------


def ratio(rounds: list[Round], name: str) -> float:
    """Return the cost as a multiple of an empty view."""
    return median(found.idle[name].median / found.idle[EMPTY].median for found in rounds)


def slowest(rounds: list[Round], name: str) -> float:
    """Return the p99 under a render as a multiple of the idle median."""
    return median(found.rendering[name].p99 / found.idle[name].median for found in rounds)


def table(rounds: list[Round]) -> Iterator[str]:
    """Yield the lines of the table, and the results for the targets."""
    yield f"| 10 kB, median of {len(rounds)} rounds | µs | ÷ empty view | p99, µs | p99 under a render, µs | ÷ idle median |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in NAMES:
        idle = [found.idle[name] for found in rounds]
        rendering = median(found.rendering[name].p99 for found in rounds)
        each = f"{median(times.median for times in idle):.2f} | {ratio(rounds, name):.3f}"
        yield f"| {name} | {each} | {median(times.p99 for times in idle):.1f} | {rendering:.1f} | {slowest(rounds, name):.1f} |"
    yield ""
    measured = {target: ratio(rounds, name) for name, target in AGAINST_EMPTY.items()}
    yield "| target | at most | measured | |"
    yield "|---|---:|---:|---|"
    for target, value in {**measured, UNDER_RENDER: slowest(rounds, HIT)}.items():
        yield f"| {target.name} | {target.limit} | {value:.3f} | {'reached' if value <= target.limit else 'NOT REACHED'} |"


def in_process(rounds: int) -> None:
    """Measure in process, and print."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, cases(Path(folder)) as found:
        check(found)
        print("\n".join(table(measure(found, rounds))), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures the gateway's hits and prints tables as Markdown.")
    parser.add_argument("--rounds", type=int, default=30, help="rounds in process (default 30, about 50 s; 0 for none)")
    parser.add_argument("--wire-rounds", type=int, default=7, help="rounds over the wire (default 7, about 4 min; 0 for none)")
    parser.add_argument("--seconds", type=int, default=1, help="seconds that each app is asked in a round (default 1)")
    parser.add_argument("--install", action="store_true", help="let apt-get install wrk, nginx and varnish; as root")
    chosen = parser.parse_args()
    if min(chosen.rounds, chosen.wire_rounds) < 0 or not 1 <= chosen.seconds <= 60:
        parser.error("give 0 rounds or more, and 1 to 60 seconds")
    if chosen.install:
        wire.install()
    if chosen.rounds:
        in_process(chosen.rounds)
    if chosen.wire_rounds:
        print("", *wire.report(chosen.wire_rounds, chosen.seconds), sep="\n")


if __name__ == "__main__":
    main()
