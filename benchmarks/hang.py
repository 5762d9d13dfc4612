"""A third party that hangs for ever: ``python benchmarks/hang.py [--seconds 15]`` prints tables as Markdown.

Gunicorn with 4 sync workers serves pages that call a third party, with ``wait=1`` and a fallback. The third party answers once, so
that there are stale values, and then accepts connections and never answers. Visitors request pages of all kinds, plain and cached,
and one page that does not use the third party. The same site with a third party that does not hang runs at the same time, with the
same visits, so that the times of that one page can be compared within a run. A request counts unless the first second of a call in
the process that answered it delayed it: as the request that waited, or behind that one. At the end, a page of five stale values,
each of which takes a second, is renewed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from workers import PATIENCE, gunicorn

WORKERS = 4
#: Number of concurrent visitors, and the seconds between two requests of a visitor.
VISITORS, PAUSE = 8, 0.02
#: Seconds: the wait of a caller, the freshness of a value, and the limit for a response.
WAIT, FRESH, LIMIT = 1.0, 0.5, 0.1
#: Calls that may run at the same time in a process, as is the default.
CONCURRENCY = 8

#: The functions by what they can serve when the third party hangs, with their two stale windows in seconds.
FUNCTIONS = {"cold": (600, 600), "swr": (600, 600), "sie": (0, 600), "gone": (0, 0.5)}

APP = f"""
import os
import time
from pathlib import Path
from urllib.request import urlopen

from flask import Flask, g
from flask_stalecache import StaleCache

THIRD_PARTY = os.environ["THIRD_PARTY"]
app = Flask(__name__)
app.config["STALECACHE_DIR"] = Path(os.environ["FOLDER"])
app.config["STALECACHE_REFRESH_DEADLINE"] = float(os.environ["DEADLINE"])
cache = StaleCache(app)


def ask(function, key):
    # Without a timeout, as it should not be written.
    with urlopen(f"{{THIRD_PARTY}}?function={{function}}&key={{key}}&pid={{os.getpid()}}") as answer:
        return answer.read().decode()


@cache.memoize(600, {FUNCTIONS["cold"][0]}, {FUNCTIONS["cold"][1]}, jitter=0, wait={WAIT}, fallback="fallback")
def cold(key: str) -> str:
    return ask("cold", key)


@cache.memoize({FRESH}, {FUNCTIONS["swr"][0]}, {FUNCTIONS["swr"][1]}, jitter=0, wait={WAIT}, fallback="fallback")
def swr(key: str) -> str:
    return ask("swr", key)


@cache.memoize({FRESH}, {FUNCTIONS["sie"][0]}, {FUNCTIONS["sie"][1]}, jitter=0, wait={WAIT}, fallback="fallback")
def sie(key: str) -> str:
    return ask("sie", key)


@cache.memoize({FRESH}, {FUNCTIONS["gone"][0]}, {FUNCTIONS["gone"][1]}, jitter=0, wait={WAIT}, fallback="fallback")
def gone(key: str) -> str:
    return ask("gone", key)


@cache.memoize({FRESH}, 600, 600, jitter=0)
def part(number: int) -> str:
    time.sleep(1)
    return f"{{time.time()}}"


@app.after_request
def tell(response):
    response.headers["X-Process"] = str(os.getpid())
    response.headers["X-Waited"] = str(g.get("waited", 0.0))
    return response


def shown(function, key):
    start = time.monotonic()
    value = globals()[function](key)
    g.waited = time.monotonic() - start
    return value


app.add_url_rule("/plain/<function>/<key>", "plain", shown)
app.add_url_rule("/cached/<function>/<key>", "cached", cache.cached(600, jitter=0)(shown))


@app.get("/other")
def other():
    return "other"


@app.get("/five")
@cache.cached(600, jitter=0)
def five():
    return " ".join(map(part, range(5)))
"""


class Call(NamedTuple):
    """A call that the third party received, with its time on the monotonic clock."""

    function: str
    key: str
    pid: int
    at: float


class ThirdParty(ThreadingHTTPServer):
    """Answers with ``stored``, or hangs for ever."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hangs = False
        self.over = threading.Event()
        self.calls: list[Call] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the third party."""
        return f"http://127.0.0.1:{self.server_port}/"

    def open(self) -> Counter[tuple[str, int]]:
        """Return the number of calls since the third party began to hang, by function and process."""
        return Counter((call.function, call.pid) for call in self.calls)

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not report clients that disconnected."""

    def stop(self) -> None:
        """End all hanging calls."""
        self.over.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: ThirdParty

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if self.server.hangs:
            self.server.calls.append(Call(asked["function"], asked["key"], int(asked["pid"]), time.monotonic()))
            self.server.over.wait()
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"stored")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


# -- the site --------------------------------------------------------------------------------------------------------


class Visit(NamedTuple):
    """The result of a request.

    :ivar pid: the process that answered.
    :ivar waited: seconds for which its view waited for a value.
    """

    path: str
    start: float
    end: float
    status: int
    text: str
    pid: int = 0
    waited: float = 0.0

    @property
    def took(self) -> float:
        """Its duration in seconds."""
        return self.end - self.start


class Site:
    """The app under gunicorn.

    :param port: its port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> Visit:
        """Send a request on a new connection; sync workers close connections anyway."""
        start = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                text = response.read().decode()
                told = int(response.headers["X-Process"] or 0), float(response.headers["X-Waited"] or 0)
                return Visit(path, start, time.monotonic(), response.status, text, *told)
        except (OSError, HTTPException) as error:
            return Visit(path, start, time.monotonic(), 0, repr(error))
        finally:
            connection.close()


@contextmanager
def running(folder: Path, third_party: ThirdParty, deadline: float) -> Iterator[Site]:
    """Run the app under gunicorn until the end."""
    folder.mkdir()
    env = {"THIRD_PARTY": third_party.url, "FOLDER": str(folder / "cache"), "DEADLINE": str(deadline)}
    with gunicorn(folder, APP, WORKERS, lambda port: Site(port).get("/other").pid, env) as port:
        yield Site(port)


# -- visitors --------------------------------------------------------------------------------------------------------


def paths(keys: int) -> list[str]:
    """Return the paths of the pages that use the third party."""
    return [f"/{kind}/{function}/{key}" for kind in ("plain", "cached") for function in FUNCTIONS for key in range(keys)]


def visited(sites: list[Site], asked: list[str], seconds: float) -> list[list[Visit]]:
    """Send requests of visitors to all sites for this many seconds, and return the results by site."""
    until = time.monotonic() + seconds

    def visit(number: int) -> list[Visit]:
        chance, visits = random.Random(number), list[Visit]()
        while time.monotonic() < until:
            visits.append(sites[number % len(sites)].get("/other" if chance.random() < 0.2 else chance.choice(asked)))
            time.sleep(PAUSE)
        return visits

    with ThreadPoolExecutor(VISITORS * len(sites)) as pool:
        each = list(pool.map(visit, range(VISITORS * len(sites))))
    return [[visit for visits in each[number :: len(sites)] for visit in visits] for number in range(len(sites))]


class Met(NamedTuple):
    """The requests that were delayed by the first second of a call.

    :ivar waits: the requests that waited, the first one of each call and process.
    :ivar again: those that waited although another request of their process had waited for the same call.
    :ivar busy: the times at which each process was busy with a waiting request, or with a page that another process was building.
    """

    waits: list[Visit]
    again: list[Visit]
    busy: dict[int, list[Visit]]


def first_seconds(visits: list[Visit], calls: list[Call]) -> Met:
    """Return the requests that were affected by the first second of a call in a process."""
    met, known = Met([], [], {}), set[tuple[object, ...]]()
    for visit in sorted((visit for visit in visits if visit.waited > LIMIT), key=lambda visit: visit.end):
        about = what(visit)
        # Calls for one key follow each other; the request waited for the last one.
        number = sum((call.function, call.key) == about and call.at < visit.end for call in calls)
        (met.again if (visit.pid, about, number) in known else met.waits).append(visit)
        known.add((visit.pid, about, number))
    waits: dict[tuple[str, ...], list[Visit]] = {}
    for wait in met.waits:
        waits.setdefault(what(wait), []).append(wait)
    for visit in visits:
        if visit in met.waits or (visit.took > LIMIT and any(overlap(visit, wait) for wait in waits.get(what(visit), ()))):
            met.busy.setdefault(visit.pid, []).append(visit)
    return met


def what(visit: Visit) -> tuple[str, ...]:
    """Return the function and the key of a request."""
    return tuple(visit.path.split("/")[2:])


def overlap(one: Visit, other: Visit) -> bool:
    return one.start < other.end and other.start < one.end


def counted(visits: list[Visit], met: Met) -> list[Visit]:
    """Return the requests that count: those not affected by the first second of a call, neither as its caller nor behind one."""
    return [visit for visit in visits if not any(overlap(visit, other) for other in met.busy.get(visit.pid, ()))]


def is_good(visit: Visit) -> bool:
    """Return whether the response was right: the stored value, or the fallback if none is stored."""
    wanted = "other" if visit.path == "/other" else "fallback" if "/cold/" in visit.path else "stored"
    return visit.status == 200 and visit.text == wanted


# -- tables ----------------------------------------------------------------------------------------------------------


def tell_hanging(visits: list[Visit], kept: list[Visit], met: Met, third_party: ThirdParty) -> None:
    print(f"| gunicorn, {WORKERS} sync workers | requests | wrong | counted | within {LIMIT * 1e3:g} ms | p50 | p99 | slowest |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    kinds = sorted({kind_of(visit) for visit in visits})
    for kind in [*kinds, "all"]:
        ours = [visit for visit in visits if kind in ("all", kind_of(visit))]
        took = [visit.took for visit in kept if kind in ("all", kind_of(visit))]
        wrong = sum(not is_good(visit) for visit in ours)
        print(f"| {kind} | {len(ours)} | {wrong} | {len(took)} | {told(took)} |")
    for visit in [visit for visit in visits if not is_good(visit)][:5]:
        print(f"WRONG: {visit}")
    calls = third_party.open()
    most = max(calls.values(), default=0)
    print(
        f"\nOpen calls: {sum(calls.values())}, in one process and of one function at most {most} of {CONCURRENCY}. For the first "
        f"second {len(met.waits)} requests waited, once a call and process; {len(met.again)} waited again."
    )


def kind_of(visit: Visit) -> str:
    return " ".join(visit.path.split("/")[1:3])


def told(took: list[float]) -> str:
    if len(took) < 2:
        return "| | |"
    share = sum(seconds <= LIMIT for seconds in took) / len(took)
    return f"{share:.2%} | {milliseconds(median(took))} | {milliseconds(quantiles(took, n=100)[98])} | {milliseconds(max(took))}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def tell_other(hanging: list[Visit], sound: list[Visit]) -> None:
    """Compare the page that does not use the third party with the same page on a site whose third party responds."""
    times = [[visit.took for visit in visits if visit.path == "/other"] for visits in (hanging, sound)]
    ratios = [f"{name} {function(times[0]) / function(times[1]):.2f}" for name, function in (("median", median), ("p99", p99))]
    print(f"\nA page that does not use it, as a ratio to the same where the third party answers: {', '.join(ratios)}.")


def p99(took: list[float]) -> float:
    return quantiles(took, n=100)[98]


def tell_five(site: Site) -> None:
    """Measure the time until a page with five stale values, each of which takes a second, is fresh."""
    first = site.get("/five").text
    time.sleep(FRESH + 0.1)
    start = time.monotonic()
    answers = [site.get("/five")]
    while answers[-1].text == first and time.monotonic() < start + PATIENCE:
        time.sleep(0.01)
        answers.append(site.get("/five"))
    took, slowest = time.monotonic() - start, max(answer.took for answer in answers)
    renewed = sum(old != new for old, new in zip(first.split(), answers[-1].text.split(), strict=True))
    print(
        f"\nA page of five stale values of 1 s each: {renewed} of 5 are renewed after {took:.2f} s; nobody waited for longer than "
        f"{milliseconds(slowest)}."
    )


def fill(sites: list[Site], keys: int) -> None:
    for site in sites:
        for path in paths(keys):
            if "/cold/" not in path and site.get(path).text != "stored":
                raise SystemExit(f"{path} could not be filled")
    time.sleep(2 * FRESH + 0.2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures pages of a third party that hangs, and prints tables as Markdown.")
    parser.add_argument("--seconds", type=float, default=15, help="how long visitors come (default 15)")
    parser.add_argument("--keys", type=int, default=1, help="different arguments of each function (default 1)")
    parser.add_argument("--deadline", type=float, default=120, help="STALECACHE_REFRESH_DEADLINE (default 120)")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-hang-", ignore_cleanup_errors=True)))
        parties = [ThirdParty(), ThirdParty()]
        for party in parties:
            stack.callback(party.stop)
        sites = [
            stack.enter_context(running(folder / name, party, args.deadline))
            for name, party in zip(("hanging", "sound"), parties, strict=True)
        ]
        fill(sites, args.keys)
        parties[0].hangs = True
        hanging, sound = visited(sites, paths(args.keys), args.seconds)
        met = first_seconds(hanging, parties[0].calls)
        kept = counted(hanging, met)
        tell_hanging(hanging, kept, met, parties[0])
        tell_other(kept, sound)
        tell_five(sites[1])


if __name__ == "__main__":
    main()
