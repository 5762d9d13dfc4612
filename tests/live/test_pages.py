"""The main job over real sockets: gunicorn and waitress, a third party that is held still, real files and locks.

Statements about order are tested without measuring times: "nobody waits" means that all are answered while the gate is closed.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.endurance import IS_SOAK
from support.servers import KINDS, PATIENCE, Answer, Gate, Server, crowd, serving, visits, wait_for

pytestmark = pytest.mark.server

FRESH = "max-age=600"
STALE = "max-age=0, stale-while-revalidate=600, stale-if-error=0"
ONLY_IF_ERROR = "max-age=0, stale-while-revalidate=0, stale-if-error=600"
EXPIRED = "max-age=0, stale-while-revalidate=0, stale-if-error=0"
#: For pages that several servers have in common; their ports are in the key otherwise.
HOST = {"Host": "shop.example"}

#: Bytes of a page that no buffer on its way takes at once.
LARGE = (5 if IS_SOAK else 2) << 20

#: The third party answers with a value, and after a space the Cache-Control of the page. The page begins with a checksum.
SOURCE = """
import json
import os
import threading
from hashlib import sha256
from pathlib import Path
from urllib.request import urlopen

from flask import Flask, request, send_file
from flask_stalecache import StaleCache

FOLDER = Path(os.environ["FOLDER"])
refresh_runs = threading.Event()
app = Flask(__name__)
app.config.update(json.loads(os.environ["SETTINGS"]))
cache = StaleCache(app)


@app.before_request
def arrive():
    if not cache.refreshing:
        with open(FOLDER / "arrivals", "ab", buffering=0) as arrivals:
            arrivals.write(b".")


def page(size=0):
    if cache.refreshing:
        refresh_runs.set()
    with urlopen(f"{os.environ['GATE']}?pid={os.getpid()}&refreshing={cache.refreshing}") as answer:
        value, directives = answer.read().decode().split(" ", 1)
    text = f"{value} for {request.cookies.get('member', 'anybody')}\\n".encode()
    text *= 1 + size // len(text)
    return sha256(text).hexdigest().encode() + b"\\n" + text, {"Cache-Control": directives}


@app.get("/")
@app.get("/page/<int:number>")
@cache.cached()
def small(number=0):
    return page()


@app.get("/large")
@app.get("/large/<int:number>")
@cache.cached()
def large(number=0):
    return page(int(os.environ["LARGE"]))


@app.get("/file")
@app.get("/file/<int:number>")
@cache.cached()
def file(number=0):
    text, headers = page(100_000)
    path = FOLDER / f"{os.urandom(8).hex()}.txt"
    path.write_bytes(text)
    response = send_file(path)
    response.headers.update(headers)
    return response


@app.get("/counts")
def counts():
    return app.extensions["stalecache"].counters.as_dict()


if "WARM" in os.environ:
    visitor = app.test_client()
    visitor.get("/", base_url="http://shop.example").close()
    visitor.get("/", base_url="http://shop.example").close()
    assert refresh_runs.wait(30)
    if os.environ["WARM"] == "done":
        with app.app_context():
            assert cache.drain(30)
"""


def site(
    kind: str,
    folder: Path,
    gate: Gate,
    *,
    settings: Mapping[str, object] | None = None,
    env: Mapping[str, object] | None = None,
    workers: int = 2,
    server: Mapping[str, object] | None = None,
) -> AbstractContextManager[Server]:
    """Serve the app from a cache directory in the folder.

    :param settings: the app's, without ``STALECACHE_``.
    :param server: further arguments of :func:`serving`.
    """
    config = {"STALECACHE_DIR": str(folder / "cache"), **{f"STALECACHE_{name}": value for name, value in (settings or {}).items()}}
    environment = {"GATE": gate.url, "FOLDER": folder, "LARGE": LARGE, "SETTINGS": json.dumps(config), **(env or {})}
    return serving(kind, SOURCE, folder, env=environment, workers=workers, **dict(server or {}))  # type: ignore[arg-type]


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate


class Shared(NamedTuple):
    """A site that tests share; each test uses a page of its own.

    :ivar before: how often the third party was called before the test.
    """

    kind: str
    folder: Path
    gate: Gate
    server: Server
    before: int = 0

    def page(self, kind: str = "page") -> str:
        """Return the path of a page that no other test has."""
        return f"/{kind}/{next(NUMBERS)}"

    @property
    def calls(self) -> int:
        """The calls since the test began."""
        return self.gate.calls - self.before


#: Numbers of pages.
NUMBERS = itertools.count(1)


@contextmanager
def shared(kind: str, folder: Path, **options: Any) -> Iterator[Shared]:
    with Gate() as gate, site(kind, folder, gate, **options) as server:
        yield Shared(kind, folder, gate, server)


@pytest.fixture(scope="module", params=KINDS)
def lone_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared(request.param, tmp_path_factory.mktemp("lone"), workers=1) as site:
        yield site


@pytest.fixture(scope="module", params=KINDS)
def wide_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared(request.param, tmp_path_factory.mktemp("wide"), server=room_for(request.param, 102)) as site:
        yield site


@contextmanager
def at_rest(site: Shared) -> Iterator[Shared]:
    wait_for(lambda: site.gate.open == 0, what="the end of what another test has begun")
    try:
        yield site._replace(before=site.gate.calls)
    finally:
        site.gate.release()


@pytest.fixture
def lone(lone_site: Shared) -> Iterator[Shared]:
    """A server with one worker."""
    with at_rest(lone_site) as site:
        yield site


@pytest.fixture
def wide(wide_site: Shared) -> Iterator[Shared]:
    """A server that lets a hundred visitors in at once, but for a sync one."""
    with at_rest(wide_site) as site:
        yield site


def value_of(answer: Answer) -> str:
    """Return what a page shows: the value, and whom it is for. A page that is wrong, cut or mixed from two is an AssertionError."""
    assert answer.status == 200, answer
    checksum, _, text = answer.body.partition(b"\n")
    assert sha256(text).hexdigest() == checksum.decode()
    return text.partition(b"\n")[0].decode()


def values_of(answers: list[Answer]) -> set[str]:
    return {value_of(answer) for answer in answers}


def wait_for_page(value: str, server: Server, path: str = "/", headers: Mapping[str, str] | None = None) -> None:
    """Visit a page until it shows a value to anybody."""
    wait_for(lambda: value_of(server.get(path, headers)) == f"{value} for anybody", what=f"{path} with {value}")


def statuses_of(answers: list[Answer]) -> set[str | None]:
    return {answer.cache for answer in answers}


def arrivals(folder: Path) -> int:
    """How many visits have come in."""
    path = folder / "arrivals"
    return path.stat().st_size if path.exists() else 0


def room_for(kind: str, visitors: int) -> dict[str, object]:
    """Return settings that let so many visitors in at once; a sync worker has one at a time."""
    if kind == "sync":
        return {}
    if kind == "waitress":
        return {"threads": visitors}
    threads = math.ceil(visitors / 2)
    # A worker takes no more connections than it has threads, or some would wait for a thread and not arrive.
    return {"threads": threads, "worker_connections": threads, "keepalive": 0}


# -- collapsing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [None, EXPIRED], ids=["cold", "expired"])
def test_a_hundred_at_once_run_the_view_once(stored: str | None, wide: Shared) -> None:
    path, gate = wide.page(), wide.gate
    if stored is not None:
        gate.answer(f"old {stored}")
        wide.server.get(path)
    calls, visits = wide.calls, arrivals(wide.folder)
    gate.answer(f"new {FRESH}")
    gate.hold()
    with crowd(wide.server, 100, path) as asked:
        wait_for(lambda: arrivals(wide.folder) == visits + (2 if wide.kind == "sync" else 100), what="all have come in")
        wait_for(lambda: gate.open == 1, what="the view runs")
        gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    assert values_of(answers) == {"new for anybody"}
    assert statuses_of(answers) <= {"MISS" if stored is None else "EXPIRED", "HIT"}
    assert wide.calls == calls + 1


def test_a_member_who_comes_first_costs_the_crowd_one_run(wide: Shared) -> None:
    path, gate, visits = wide.page(), wide.gate, arrivals(wide.folder)
    gate.answer(f"# {FRESH}")
    gate.hold()
    with crowd(wide.server, 1, path, headers={"Cookie": "member=ada"}) as member:
        wait_for(lambda: gate.open == 1, what="the member's page is being made")
        with crowd(wide.server, 100, path) as anonymous:
            wait_for(lambda: arrivals(wide.folder) == visits + (2 if wide.kind == "sync" else 101), what="all have come in")
            gate.release()
            answers = [future.result(PATIENCE) for future in anonymous]
        assert value_of(member[0].result(PATIENCE)) == f"{wide.before + 1} for ada"
        assert values_of(answers) == {f"{wide.before + 2} for anybody"}
        assert wide.calls == 2


@pytest.mark.parametrize("wide_site", ["gthread", "waitress"], indirect=True)
@pytest.mark.parametrize(
    ("first", "directives", "crowds"),
    [
        ({}, "private", {}),
        ({"Cookie": "member=ada"}, FRESH, {"Cookie": "member=grace"}),
        ({}, FRESH, {"Cookie": "member=grace"}),
    ],
    ids=["private", "members", "members beside a stored page"],
)
def test_pages_that_cannot_be_stored_do_not_queue(
    first: dict[str, str], directives: str, crowds: dict[str, str], wide: Shared
) -> None:
    path, gate = wide.page(), wide.gate
    gate.answer(f"# {directives}")
    wide.server.get(path, first)
    gate.hold()
    with crowd(wide.server, 10, path, headers=crowds) as asked:
        try:
            wait_for(lambda: gate.open == 10, what="all run the view at the same time")
        finally:
            gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    assert len(values_of(answers)) == 10
    assert statuses_of(answers) <= {"MISS", "BYPASS"}


# -- stale pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "visitors"), [("page", 40), ("file", 12), ("large", 4)])
def test_nobody_waits_for_a_stale_page(page: str, visitors: int, wide: Shared) -> None:
    path, gate, server = wide.page(page), wide.gate, wide.server
    gate.answer(f"old {STALE}")
    server.get(path)
    gate.answer(f"new {FRESH}")
    gate.hold()
    answers = server.get_at_once(visitors, path)
    assert values_of(answers) == {"old for anybody"}
    assert "STALE" in statuses_of(answers) <= {"STALE", "UPDATING"}
    wait_for(lambda: gate.open == 1, what="the refresh runs")
    answers = server.get_at_once(visitors, path)
    assert values_of(answers) == {"old for anybody"}
    assert (gate.open, wide.calls) == (1, 2)
    gate.release()
    wait_for_page("new", server, path)
    assert values_of(server.get_at_once(visitors, path)) == {"new for anybody"}
    assert wide.calls == 2


@pytest.mark.parametrize(
    ("page", "method", "conditional"),
    [("page", "GET", False), ("page", "GET", True), ("page", "HEAD", False), ("file", "GET", False), ("large", "GET", False)],
    ids=["small", "not modified", "head", "send_file", "large"],
)
def test_the_connection_that_started_a_refresh_is_not_held(page: str, method: str, conditional: bool, lone: Shared) -> None:
    path, gate, kind = lone.page(page), lone.gate, lone.kind
    gate.answer(f"old {STALE}")
    # There is one worker: if the refresh held it, nothing could answer the next request, not even on a new connection.
    with visits(lone.server) as visit:
        full = visit(path)
        headers = {"If-None-Match": full.headers["ETag"]} if conditional else {}
        gate.answer(f"new {FRESH}")
        gate.hold()
        first = visit(path, headers, method)
        answers = [first, visit(path, headers, method)]
        wait_for(lambda: gate.open == 1, what="the refresh runs")
        answers.append(visit(path))
        # Waitress closes the connection after a response without Content-Length, such as 304.
        closes = kind == "sync" or (kind == "waitress" and conditional)
        assert [answer.closes for answer in answers[:2]] == [closes, closes]
        assert [answer.cache for answer in answers] == ["STALE", "UPDATING", "UPDATING"]
        assert [answer.status for answer in answers] == [304, 304, 200] if conditional else [200, 200, 200]
        assert value_of(answers[-1]) == "old for anybody"
        assert (gate.open, lone.calls) == (1, 2)
        gate.release()
        wait_for(lambda: value_of(visit(path)) == "new for anybody", what="the new page")


def test_a_visitor_who_leaves_in_the_middle_of_a_stale_page_still_starts_its_refresh(lone: Shared) -> None:
    path, gate = lone.page("large"), lone.gate
    gate.answer(f"old {STALE}")
    lone.server.get(path, HOST)
    gate.answer(f"new {FRESH}")
    gate.hold()
    with socket.create_connection(("127.0.0.1", lone.server.port), PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode())
        assert connection.recv(1000)
        # Closing resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: gate.open == 1, what="the refresh runs")
    gate.release()
    wait_for_page("new", lone.server, path, HOST)


def test_two_servers_share_a_directory(gate: Gate, tmp_path: Path) -> None:
    gate.answer(f"old {STALE}")
    with site("gthread", tmp_path, gate) as gunicorn, site("waitress", tmp_path, gate) as waitress:
        both = (gunicorn, waitress)
        gunicorn.get(headers=HOST)
        gate.answer(f"new {FRESH}")
        gate.hold()
        answers = [answer for server in both for answer in server.get_at_once(10, headers=HOST)]
        wait_for(lambda: gate.open == 1, what="the refresh runs")
        answers += [answer for server in both for answer in server.get_at_once(10, headers=HOST)]
        assert values_of(answers) == {"old for anybody"}
        assert (gate.open, gate.calls) == (1, 2)
        gate.release()
        for server in both:
            wait_for_page("new", server, headers=HOST)
        assert gate.calls == 2


# -- a third party that fails or hangs -------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("directives", [STALE, ONLY_IF_ERROR], ids=["refreshed behind", "called in the request"])
def test_a_dead_third_party_is_left_alone_and_nobody_sees_it(
    directives: str, gate: Gate, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    directives = directives.replace("stale-if-error=0", "stale-if-error=600")
    bursts, first = soak(30, 6), soak(2, 1) / 2
    gate.answer(f"old {directives}")
    with site("gthread", tmp_path, gate, settings={"REFRESH_BACKOFF": (first, 300)}) as server:
        server.get()
        gate.fail()
        answers: list[Answer] = []
        start = time.monotonic()
        for burst in range(1, bursts + 1):
            answers += server.get_at_once(10)
            # The pace is 300 requests in 10 s. The assertions do not rely on it.
            time.sleep(max(0.0, start + burst / 3 - time.monotonic()))
        elapsed = time.monotonic() - start
        assert len(answers) == 10 * bursts
        assert values_of(answers) == {"old for anybody"}
        assert statuses_of(answers) <= {"STALE", "UPDATING"}
        # The pauses are at least 1, 2, 4 … times the first one: attempt n + 1 comes after 2 ** n - 1 first pauses or later.
        assert 2 <= gate.calls - 1 <= 1 + math.floor(math.log2(elapsed / first + 1))
        gate.answer(f"new {FRESH}")
        wait_for_page("new", server)


def test_a_hung_refresh_is_given_up_at_its_deadline(gate: Gate, tmp_path: Path) -> None:
    settings = {"REFRESH_DEADLINE": 1, "REFRESH_BACKOFF": (0.1, 0.1), "REFRESH_WORKERS": 1}
    gate.answer(f"old {STALE}")
    with site("gthread", tmp_path, gate, settings=settings) as server:
        server.get()
        gate.answer(f"new-# {FRESH}")
        gate.hold()
        assert value_of(server.get()) == "old for anybody"
        wait_for(lambda: gate.open == 1, what="the refresh hangs")
        gate.let_new_pass()
        wait_for_page("new-3", server)
        assert (gate.open, gate.calls) == (1, 3)
        gate.release()
        wait_for(lambda: gate.open == 0, what="the hung call is answered")
        assert values_of(server.get_at_once(20)) == {"new-3 for anybody"}
        assert gate.calls == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_hanging_refresh_does_not_hold_up_the_exit(kind: str, gate: Gate, tmp_path: Path) -> None:
    gate.answer(f"old {STALE}")
    with site(kind, tmp_path, gate, settings={"SHUTDOWN_WAIT": 1}, server={"graceful_timeout": 60}) as server:
        server.get()
        gate.hold()
        server.get()
        wait_for(lambda: gate.open == 1, what="the refresh hangs")
        server.process.terminate()
        wait_for(lambda: server.process.poll() is not None, seconds=15, what="the server ends while the third party hangs")
        assert server.process.returncode == (-signal.SIGTERM if kind == "waitress" else 0)
        assert "SIGKILL" not in server.log_text
        wait_for(lambda: gate.open == 0, what="the refresh died with its worker")


def test_a_full_queue_drops_refreshes_and_the_pages_are_still_there(gate: Gate, tmp_path: Path) -> None:
    paths = [f"/page/{number}" for number in range(10)]
    gate.answer(f"old {STALE}")
    with site("gthread", tmp_path, gate, workers=1, settings={"REFRESH_WORKERS": 1, "REFRESH_QUEUE": 1}) as server:
        for path in paths:
            server.get(path)
        gate.answer(f"new {FRESH}")
        gate.hold()
        server.get(paths[0])
        wait_for(lambda: gate.open == 1, what="the only thread is busy")
        for _ in range(2):
            answers = [server.get(path) for path in paths]
            assert values_of(answers) == {"old for anybody"}
            # The first is being refreshed. Each of the others takes the only place in the queue from the one before.
            assert [answer.cache for answer in answers] == ["UPDATING", *["STALE"] * 9]
        # The last hand-over may come after its visitor has the page.
        wait_for(lambda: json.loads(server.get("/counts").body)["refreshes_dropped"] == 17, what="all others are dropped")
        gate.release()
        for path in paths:
            wait_for_page("new", server, path)
        assert gate.calls == 20


# -- processes that fork and die -------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", ["done", "running"])
def test_an_app_that_was_used_before_the_fork_refreshes_in_the_workers(warm: str, gate: Gate, tmp_path: Path) -> None:
    gate.answer(f"old {STALE}")
    if warm == "running":
        # The call for the page itself passes. The refresh finds the gate closed, so that it hangs at the fork.
        gate.hold(after=1)
    with site("preload", tmp_path, gate, settings={"REFRESH_WORKERS": 1}, env={"WARM": warm}) as server:
        wait_for(lambda: gate.calls == 2, what="the refresh in the parent")
        assert [question["refreshing"] for question in gate.questions] == ["False", "True"]
        assert {question["pid"] for question in gate.questions} == {str(server.pid)}
        assert values_of(server.get_at_once(16, headers=HOST)) == {"old for anybody"}
        gate.release()
        workers = {str(pid) for pid in server.worker_pids}
        assert len(workers) == 2

        def both_refreshed() -> bool:
            values_of(server.get_at_once(16, headers=HOST))
            return workers == {question["pid"] for question in gate.questions[2:]}

        wait_for(both_refreshed, what="both workers have refreshed")


@pytest.mark.soak
def test_a_killed_worker_leaves_nothing_wrong_and_the_next_refresh_comes(
    gate: Gate, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    moments = random.Random(2)
    gate.answer(f"# {STALE}")
    with site("gthread", tmp_path, gate) as server, crowd_that_looks_on(server, "/large") as seen:
        for _ in range(soak(50, 2)):
            calls = _kill_while_it_refreshes(gate, server, moments)
            seen.wait_for_a_stale_hit()
            wait_for(partial(gate.has_more_calls_than, calls), soak(2, int(PATIENCE)), "the next refresh")
            gate.release()
        last = gate.calls
        wait_for(lambda: int(value_of(server.get("/large")).split()[0]) > last, what="a page made after the last kill")
    assert not seen.complaints
    assert seen.counts["STALE"]


def _kill_while_it_refreshes(gate: Gate, server: Server, moments: random.Random) -> int:
    """Kill the worker that refreshes: a fifth while it waits for the third party, the others while it renders or writes.

    Return a number of calls that only a later refresh exceeds.
    """
    gate.hold()
    wait_for(lambda: gate.open > 0, what="a refresh waits for the third party")
    pid = int(gate.questions[-1]["pid"])
    calls, waits = gate.calls, moments.random() < 0.2
    if not waits:
        gate.release()
        time.sleep(moments.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in server.worker_pids, what="the worker is dead")
    return calls if waits else gate.calls


class _Seen:
    """What the visitors saw."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []

    def wait_for_a_stale_hit(self) -> None:
        """Wait until one more stale page has been served."""
        before = self._stale()
        wait_for(lambda: self._stale() > before, what="a stale hit")

    def _stale(self) -> int:
        return self.counts["STALE"] + self.counts["UPDATING"]


@contextmanager
def crowd_that_looks_on(server: Server, path: str) -> Iterator[_Seen]:
    """Visit a page over and over in two threads, and check all that comes."""
    seen, over = _Seen(), threading.Event()
    until = time.monotonic() + 10 * PATIENCE

    def look_on() -> None:
        while not over.wait(0.01) and time.monotonic() < until:
            try:
                answer = server.get(path)
            except (OSError, HTTPException):
                # The worker died during the request, and the client noticed that the page was cut off.
                continue
            try:
                value_of(answer)
            except AssertionError as error:
                seen.complaints.append(str(error)[:500])
            seen.counts[str(answer.cache)] += 1

    threads = [threading.Thread(target=look_on, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
