"""Work after the response, forks and exits on the servers that test_pages.py does not use, and refreshes where no thread runs.

Statements about order are tested without measuring times: "nobody waits" means that all are answered while the gate is closed.
"""

from __future__ import annotations

import json
import os
import re
import select
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import pytest

from support import live_apps, prepared
from support.live_apps import line_of, new_path
from support.prepared import PreparedProcess
from support.servers import (
    MORE_KINDS,
    PATIENCE,
    STOP_PATIENCE,
    Answer,
    Gate,
    Visitor,
    crowd,
    environment,
    is_alive,
    serving,
    visits,
    wait_for,
)

pytestmark = pytest.mark.server

FRESH = "max-age=600"
STALE = "max-age=0, stale-while-revalidate=600, stale-if-error=0"
LINES = 5_000

#: The third party answers with a value, which fills the page, and after a space the Cache-Control of the page.
SOURCE = """
import json
import logging
import os
import threading
from pathlib import Path
from urllib.request import urlopen

from flask import Flask, request, send_file
from flask_stalecache import StaleCache
from flask_stalecache.engine.scheduling import thread_pool

# A thread without work waits for longer than any test, so that whoever it holds up is seen.
assert thread_pool.IDLE
thread_pool.IDLE = 600
FOLDER = Path(os.environ["FOLDER"])
logging.basicConfig(format="%(process)d %(name)s %(levelname)s %(message)s")
refresh_runs = threading.Event()
app = Flask(__name__)
app.config.update(json.loads(os.environ["SETTINGS"]))
cache = StaleCache(app)


@app.before_request
def arrive():
    if not cache.refreshing:
        with open(FOLDER / "arrivals", "ab", buffering=0) as arrivals:
            arrivals.write(f"{request.path}\\n".encode())


def page():
    if cache.refreshing:
        refresh_runs.set()
    with urlopen(f"{os.environ['GATE']}?path={request.path}&pid={os.getpid()}&refreshing={cache.refreshing}") as answer:
        value, directives = answer.read().decode().split(" ", 1)
    return f"{value}\\n".encode() * LINES, {"Cache-Control": directives}


@app.get("/text/<number>")
@cache.cached()
def text(number):
    return page()


@app.get("/file/<number>")
@cache.cached()
def file(number):
    body, headers = page()
    path = FOLDER / f"{os.urandom(8).hex()}.txt"
    path.write_bytes(body)
    response = send_file(path)
    response.headers.update(headers)
    return response


@app.get("/pid")
def pid():
    return str(os.getpid())


if "WARM" in os.environ:
    visitor = app.test_client()
    for _ in range(2):
        visitor.get("/text/warm", base_url="http://shop.example").close()
    assert refresh_runs.wait(30)
    if os.environ["WARM"] == "done":
        with app.app_context():
            assert cache.drain(30)
""".replace("LINES", str(LINES))
#: The page that the app itself visits before the fork, and the host name that it uses.
WARM, HOST = "/text/warm", {"Host": "shop.example"}

#: The kinds that load the app before they fork.
FORKING = ("gevent-preload", "uwsgi")
#: The kinds that close each connection.
CLOSING = ("reloader",)
#: How many visitors a server of a kind lets in at once. A worker of uWSGI lets in one, unless it has threads for requests.
ROOM = {"uwsgi": 2, "uwsgi-lazy": 6, "uwsgi-threadless": 2}
every_kind = pytest.mark.parametrize("running", MORE_KINDS, indirect=True)


class Shop(live_apps.Shop):
    """The app on a server, and the third party that it asks."""

    @property
    def room(self) -> int:
        """How many visitors it lets in at once."""
        return ROOM.get(self.kind, 12)


@contextmanager
def shop_on(
    kind: str, folder: Path, settings: Mapping[str, object] | None = None, warm: str | None = None, workers: int = 2
) -> Iterator[Shop]:
    """Serve the app from a cache directory in the folder.

    :param settings: the app's, without ``STALECACHE_``.
    :param warm: ``done`` if the app is used, and its refresh over, before the fork; ``running`` if the refresh hangs at the fork.
    """
    with Gate() as gate:
        gate.answer(f"old {STALE}")
        if warm == "running":
            # The call for the page itself passes. The refresh finds the gate closed, so that it hangs at the fork.
            gate.hold(after=1)
        env: dict[str, object] = {} if warm is None else {"WARM": warm}
        threads: dict[str, Any] = {"granian": {"threads": 24}, "uwsgi-lazy": {"threads": 4}}.get(kind, {})
        env |= app_environment(gate, folder, settings)
        with serving(kind, SOURCE, folder, env=env, workers=workers, **threads) as server:
            yield Shop(kind, server, gate, folder)


def app_environment(gate: Gate, folder: Path, settings: Mapping[str, object] | None = None) -> dict[str, object]:
    config = {"STALECACHE_DIR": str(folder / "cache"), **{f"STALECACHE_{name}": value for name, value in (settings or {}).items()}}
    return {"GATE": gate.url, "FOLDER": folder, "SETTINGS": json.dumps(config)}


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop for all tests of its kind; if the server loads the app before it forks, the app has been used before the fork."""
    kind = request.param
    # Far shorter than servers wait for workers that do not end, and than tests wait.
    settings = {"SHUTDOWN_WAIT": 0.5}
    with shop_on(kind, tmp_path_factory.mktemp(kind), settings, warm="done" if kind in FORKING else None) as shop:
        yield shop


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    """The shop, whose third party answers again after the test."""
    running.gate.answer(f"old {STALE}")
    yield running
    running.gate.release()


@pytest.fixture
def path() -> str:
    """A page that no other test visits."""
    return new_path()


def value_of(answer: Answer) -> str:
    return line_of(answer, LINES)


def values_of(answers: list[Answer]) -> set[str]:
    return {value_of(answer) for answer in answers}


# -- after the response ----------------------------------------------------------------------------------------------


@pytest.mark.grid
@every_kind
@pytest.mark.parametrize(("view", "method"), [("text", "GET"), ("text", "HEAD"), ("file", "GET"), ("file", "HEAD")])
def test_the_connection_that_started_a_refresh_is_not_held(shop: Shop, path: str, view: str, method: str) -> None:
    path = path.replace("text", view)
    with visits(shop.server) as visit:
        assert visit(path).cache == "MISS"
        shop.gate.answer(f"new {FRESH}")
        shop.gate.hold()
        answers = [visit(path, method=method), visit(path, method=method)]
        wait_for(lambda: shop.open_calls(path) == 1, what="the refresh runs")
        answers.append(visit(path))
        assert [answer.closes for answer in answers] == [shop.kind in CLOSING] * 3
        # On one connection, or in one process: the same worker answers.
        assert [answer.cache for answer in answers] == ["STALE", "UPDATING", "UPDATING"]
        assert {answer.headers["Content-Length"] for answer in answers} == {str(len("old\n") * LINES)}
        assert [len(answer.body) for answer in answers[:2]] == [len("old\n") * LINES if method == "GET" else 0] * 2
        assert value_of(answers[-1]) == "old"
        assert [question["refreshing"] for question in shop.questions(path)] == ["False", "True"]
        shop.gate.release()
        wait_for(lambda: value_of(visit(path)) == "new", what="the new page")
        assert visit(path).cache == "HIT"
    assert len(shop.questions(path)) == 2


@every_kind
def test_nobody_waits_for_a_stale_page(shop: Shop, path: str) -> None:
    shop.server.get(path)
    shop.gate.answer(f"new {FRESH}")
    shop.gate.hold()
    assert values_of(shop.server.get_at_once(shop.room, path)) == {"old"}
    wait_for(lambda: shop.open_calls(path) == 1, what="the refresh runs")
    answers = shop.server.get_at_once(2 * shop.room, path)
    assert values_of(answers) == {"old"}
    assert {answer.cache for answer in answers} <= {"STALE", "UPDATING"}
    assert len(shop.questions(path)) == 2
    shop.gate.release()
    wait_for(lambda: value_of(shop.server.get(path)) == "new", what="the new page")
    assert values_of(shop.server.get_at_once(shop.room, path)) == {"new"}
    assert len(shop.questions(path)) == 2


# -- collapsing ------------------------------------------------------------------------------------------------------


@every_kind
def test_many_at_once_run_the_view_once_and_others_are_answered_meanwhile(shop: Shop, path: str) -> None:
    shop.gate.answer(f"new {FRESH}")
    shop.gate.hold()
    with crowd(shop.server, shop.room, path) as asked:
        wait_for(lambda: shop.arrivals(path) == shop.room, what="all have come in")
        wait_for(lambda: shop.open_calls(path) == 1, what="the view runs")
        if not shop.kind.startswith("uwsgi"):
            wait_for_each_worker(shop)
        assert len(shop.questions(path)) == 1
        shop.gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    assert values_of(answers) == {"new"}
    assert {answer.cache for answer in answers} <= {"MISS", "HIT"}
    assert len(shop.questions(path)) == 1


def wait_for_each_worker(shop: Shop) -> None:
    """Visit until each worker has answered, whatever else it is doing."""
    left = set(shop.server.worker_pids)

    def all_answered() -> bool:
        left.difference_update(int(answer.text) for answer in shop.server.get_at_once(4, "/pid"))
        return not left

    wait_for(all_answered, what="an answer of each worker")


# -- forks -----------------------------------------------------------------------------------------------------------


@every_kind
def test_each_worker_refreshes(shop: Shop) -> None:
    if shop.kind in FORKING:
        assert {question["pid"] for question in shop.questions(WARM)[:2]} == {str(shop.server.pid)}
    shop.server.get(WARM, HOST)
    wait_for_refreshes_of_each_worker(shop)


# Without these hooks, uWSGI forks while any thread may hold the interpreter's lock; a worker that finds it held never starts.
@pytest.mark.parametrize("kind", ["gevent-preload", "uwsgi-fork-hooks"])
def test_a_refresh_that_runs_at_the_fork_does_not_keep_the_workers_from_refreshing(kind: str, tmp_path: Path) -> None:
    with shop_on(kind, tmp_path, {"REFRESH_WORKERS": 1}, warm="running") as shop:
        wait_for(lambda: shop.gate.calls == 2, what="the refresh in the parent")
        assert [question["refreshing"] for question in shop.gate.questions] == ["False", "True"]
        assert {question["pid"] for question in shop.gate.questions} == {str(shop.server.pid)}
        assert values_of(shop.server.get_at_once(4, WARM, HOST)) == {"old"}
        shop.gate.release()
        wait_for_refreshes_of_each_worker(shop)


def wait_for_refreshes_of_each_worker(shop: Shop) -> None:
    """Visit the page that is always stale until each worker has refreshed it."""
    workers = {str(pid) for pid in shop.server.worker_pids}
    assert workers

    def all_refreshed() -> bool:
        values_of(shop.server.get_at_once(4, WARM, HOST))
        return workers <= {question["pid"] for question in shop.questions(WARM) if question["refreshing"] == "True"}

    wait_for(all_refreshed, what="a refresh by each worker")


def test_uwsgi_that_runs_threads_without_being_asked_refreshes_in_them(path: str, tmp_path: Path) -> None:
    with shop_on("uwsgi-unasked", tmp_path) as shop, Visitor(shop.server) as visitor:
        visitor.get(path)
        shop.gate.hold()
        assert visitor.get(path).cache == "STALE"
        wait_for(lambda: shop.open_calls(path) == 1, what="the refresh runs")
        assert visitor.get(path).cache == "UPDATING"
        assert not warnings_of(shop.server.log_text)
        shop.gate.release()


# -- where no thread runs --------------------------------------------------------------------------------------------


def warnings_of(log: str, *names: str) -> Counter[int]:
    """Return how many times each process warned that its refreshes run in line.

    :param names: what each warning contains.
    """
    lines = re.findall(r"^(\d+) flask_stalecache (\w+) (.*)", log, re.MULTILINE)
    for _, level, message in lines:
        assert level == "WARNING"
        assert all(name in message for name in ("in line", *names)), message
    return Counter(int(pid) for pid, _, _ in lines)


@pytest.mark.parametrize("running", ["uwsgi-threadless"], indirect=True)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_threads_a_page_is_renewed_after_its_response(shop: Shop, path: str, method: str) -> None:
    with Visitor(shop.server) as visitor:
        visitor.get(path)
        shop.gate.answer(f"new {FRESH}")
        shop.gate.hold()
        # The whole response has arrived, although the third party has not answered.
        answer = visitor.get(path, method=method)
        assert answer.cache == "STALE"
        assert len(answer.body) == (len("old\n") * LINES if method == "GET" else 0)
        wait_for(lambda: shop.open_calls(path) == 1, what="the refresh runs")
        assert value_of(shop.server.get(path)) == "old", "the other worker is not held"
        shop.gate.release()
        answer = visitor.get(path)
        assert (answer.cache, value_of(answer)) == ("HIT", "new")
    assert len(shop.questions(path)) == 2


@pytest.mark.parametrize("running", ["uwsgi-threadless"], indirect=True)
def test_without_threads_many_at_once_run_the_view_once(shop: Shop, path: str) -> None:
    shop.gate.answer(f"new {FRESH}")
    shop.gate.hold()
    with crowd(shop.server, 6, path) as asked:
        wait_for(lambda: shop.arrivals(path) == shop.room, what="all have come in that can")
        wait_for(lambda: shop.open_calls(path) == 1, what="the view runs")
        shop.gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    assert values_of(answers) == {"new"}
    assert len(shop.questions(path)) == 1


@pytest.mark.parametrize("running", ["uwsgi-threadless"], indirect=True)
def test_without_threads_each_process_warns_once_and_names_the_way_out(shop: Shop) -> None:
    shop.server.get(WARM, HOST)
    wait_for_refreshes_of_each_worker(shop)
    # Once more, so that a second warning would be there.
    shop.server.get_at_once(8, WARM, HOST)
    assert warnings_of(shop.server.log_text, "--enable-threads") == dict.fromkeys(shop.server.worker_pids, 1)


CGI = """\
from wsgiref.handlers import CGIHandler

from live_app import app

CGIHandler().run(app)
"""


class Cgi(NamedTuple):
    """A process that answers one request."""

    process: PreparedProcess
    output: FileIO
    errors: BinaryIO

    @property
    def log(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode()


@contextmanager
def cgi(path: str, folder: Path, gate: Gate, settings: Mapping[str, object] | None = None) -> Iterator[Cgi]:
    """Run the app for one request."""
    (folder / "live_app.py").write_text(SOURCE)
    request = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    request |= {"SERVER_NAME": "shop.example", "SERVER_PORT": "80", "HTTP_HOST": "shop.example", "GATEWAY_INTERFACE": "CGI/1.1"}
    env = environment(folder, {**app_environment(gate, folder, settings), **request})
    reading, writing = os.pipe()
    with FileIO(reading) as output, TemporaryFile() as errors:
        with open(writing, "wb") as theirs:
            process = prepared.start(["-c", CGI], prepared.SERVER_MODULES, folder=folder, env=env, output=theirs, errors=errors)
        try:
            yield Cgi(process, output, errors)
        finally:
            process.kill()
            process.wait(PATIENCE)


def answer_of(running: Cgi) -> tuple[str, str]:
    """Read as much as Content-Length says, and return the cache's status and what the page shows."""
    output, data = running.output, b""

    def read_more() -> bool:
        nonlocal data
        if select.select([output], [], [], 0)[0]:
            data += output.read(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"^Content-Length: (\d+)\r?$", head, re.MULTILINE)
        return length is not None and len(body) == int(length[1])

    wait_for(read_more, what="the answer")
    head, _, body = data.decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines())
    [value] = set(body.splitlines())
    return headers["X-Cache-Status"], value


@pytest.mark.parametrize(
    ("settings", "warnings"), [({"SHUTDOWN_WAIT": 0}, 1), ({"REFRESH_WORKERS": 0}, 0)], ids=["as it is", "in line as told"]
)
def test_under_cgi_a_page_is_renewed_after_its_response(
    settings: dict[str, object], warnings: int, path: str, tmp_path: Path
) -> None:
    with Gate() as gate:
        gate.answer(f"old {STALE}")
        with cgi(path, tmp_path, gate, settings) as running:
            assert answer_of(running) == ("MISS", "old")
        gate.answer(f"new {FRESH}")
        gate.hold()
        with cgi(path, tmp_path, gate, settings) as running:
            assert answer_of(running) == ("STALE", "old")
            wait_for(lambda: gate.open == 1, what="the refresh runs")
            gate.release()
            assert running.process.wait(PATIENCE) == 0
            assert warnings_of(running.log) == ({running.process.pid: 1} if warnings else {})
        with cgi(path, tmp_path, gate, settings) as running:
            assert answer_of(running) == ("HIT", "new")
        assert gate.calls == 2


# -- exits: these tests come last, since they end the server of their kind --------------------------------------------


@pytest.mark.parametrize("running", ["reloader"], indirect=True)
def test_the_reloader_starts_a_child_that_refreshes_although_the_old_one_hangs(shop: Shop, path: str) -> None:
    [old] = shop.server.worker_pids
    assert old != shop.server.pid
    shop.server.get(path)
    shop.gate.hold()
    assert shop.server.get(path).cache == "STALE"
    wait_for(lambda: shop.open_calls(path) == 1, what="the refresh hangs")
    later = time.time() + 10
    os.utime(shop.folder / "live_app.py", (later, later))
    wait_for(lambda: shop.server.worker_pids not in ([], [old]), what="a new child while the third party hangs")
    wait_for(lambda: shop.open_calls(path) == 0, what="the refresh died with the old child")
    [new] = shop.server.worker_pids
    shop.gate.answer(f"new {FRESH}")
    assert shop.server.get(path).cache == "STALE"
    wait_for(lambda: shop.open_calls(path) == 1, what="the refresh in the new child")
    assert values_of(shop.server.get_at_once(4, path)) == {"old"}
    shop.gate.release()
    wait_for(lambda: value_of(shop.server.get(path)) == "new", what="the new page")
    assert [int(question["pid"]) for question in shop.questions(path)] == [old, old, new]


@pytest.mark.parametrize("running", [*MORE_KINDS, "uwsgi-threadless"], indirect=True)
def test_a_hanging_refresh_does_not_hold_up_the_exit(shop: Shop, path: str) -> None:
    shop.server.get(path)
    shop.gate.hold()
    assert shop.server.get(path).cache == "STALE"
    wait_for(lambda: shop.open_calls(path) == 1, what="the refresh hangs")
    workers = shop.server.worker_pids
    shop.server.process.terminate()
    wait_for(lambda: shop.server.process.poll() is not None, STOP_PATIENCE, "the server ends while the third party hangs")
    assert shop.server.process.returncode == 0
    assert not re.search("SIGKILL|SIGSEGV|Fatal", shop.server.log_text)
    wait_for(lambda: shop.open_calls(path) == 0, what="the refresh died with its worker")
    wait_for(lambda: not any(map(is_alive, workers)), what="no worker is left")
