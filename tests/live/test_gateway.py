"""The gateway on real servers: one call for a crowd, renewal after the response, and apps of other frameworks behind it.

Statements about order are tested without measuring times: "nobody waits" means that all are answered while the gate is closed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.live_apps import Shop, line_of, new_path
from support.servers import KINDS, PATIENCE, Answer, Gate, Server, crowd, serving, visits, wait_for

pytestmark = pytest.mark.server

FRESH = "max-age=600"
STALE = "max-age=0, stale-while-revalidate=600"
IF_ERROR = "max-age=0, stale-if-error=600"
LINES = 20_000

#: The third party answers with a value, which fills the page, and after a space the Cache-Control of the page.
SOURCE = """
import logging
import os
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from flask_stalecache import GatewayCache

FOLDER = Path(os.environ["FOLDER"])
logging.basicConfig()


def ask(environ):
    refreshing = "flask_stalecache.refreshing" in environ
    with urlopen(f"{os.environ['GATE']}?path={environ['PATH_INFO']}&pid={os.getpid()}&refreshing={refreshing}") as answer:
        value, directives = answer.read().decode().split(" ", 1)
    return f"{value}\\n".encode() * LINES, directives


def site(environ, start_response):
    if environ["PATH_INFO"] == "/pid":
        start_response("200 OK", [("Cache-Control", "no-store"), ("Content-Length", str(len(str(os.getpid()))))])
        return [str(os.getpid()).encode()]
    if environ["PATH_INFO"].startswith("/stream"):
        start_response("200 OK", [("Cache-Control", "max-age=600")])
        return stream(environ)
    try:
        body, directives = ask(environ)
    except HTTPError:
        start_response("503 Service Unavailable", [("Content-Length", "4")])
        return [b"down"]
    vary = [("Vary", "X-Kind")] if environ["PATH_INFO"].startswith("/vary") else []
    start_response("200 OK", [("Cache-Control", directives), ("Content-Length", str(len(body))), *vary])
    return [body]


def stream(environ):
    yield b"begun\\n"
    body, _ = ask(environ)
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


gateway = GatewayCache(site, dir=FOLDER / "cache", refresh_backoff=(0.1, 0.2))


def app(environ, start_response):
    with open(FOLDER / "arrivals", "ab", buffering=0) as arrivals:
        arrivals.write(f"{environ['PATH_INFO']}\\n".encode())
    return gateway(environ, start_response)
""".replace("LINES", str(LINES))

every_kind = pytest.mark.parametrize("running", [*KINDS, "uwsgi", "granian"], indirect=True)


@contextmanager
def shop_on(kind: str, folder: Path, source: str = SOURCE, **settings: Any) -> Iterator[Shop]:
    with Gate() as gate, serving(kind, source, folder, env={"GATE": gate.url, "FOLDER": folder}, **settings) as server:
        yield Shop(kind, server, gate, folder)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop for all tests of its kind."""
    with shop_on(request.param, tmp_path_factory.mktemp(request.param)) as shop:
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


# -- after the response ----------------------------------------------------------------------------------------------


@every_kind
def test_the_connection_that_started_a_refresh_is_not_held(shop: Shop, path: str) -> None:
    with visits(shop.server) as visit:
        assert visit(path).cache == "MISS"
        shop.gate.answer(f"new {FRESH}")
        shop.gate.hold()
        answers = [visit(path), visit(path, method="HEAD")]
        wait_for(lambda: shop.open_calls(path) == 1, what="the refresh runs")
        answers.append(visit(path))
        # Where connections are closed, another worker may answer: it hands over a refresh too, which finds the lock taken.
        assert answers[0].cache == "STALE"
        assert {answer.cache for answer in answers[1:]} <= ({"UPDATING"} if not answers[0].closes else {"STALE", "UPDATING"})
        assert value_of(answers[0]) == value_of(answers[2]) == "old"
        assert [question["refreshing"] for question in shop.questions(path)] == ["False", "True"]
        shop.gate.release()
        wait_for(lambda: value_of(visit(path)) == "new", what="the new page")
        assert visit(path).cache == "HIT"
    assert len(shop.questions(path)) == 2


@every_kind
def test_a_page_stands_in_while_the_app_fails(shop: Shop, path: str) -> None:
    shop.gate.answer(f"old {IF_ERROR}")
    assert shop.server.get(path).cache == "MISS"
    shop.gate.fail()
    for _ in range(3):
        answer = shop.server.get(path)
        assert (answer.cache, value_of(answer)) == ("STALE", "old")
    shop.gate.answer(f"new {FRESH}")
    wait_for(lambda: value_of(shop.server.get(path)) == "new", what="the new page")


# -- streams ---------------------------------------------------------------------------------------------------------


@every_kind
def test_a_stream_is_sent_while_it_is_made(shop: Shop, path: str) -> None:
    path = path.replace("text", "stream")
    shop.gate.answer(f"new {FRESH}")
    shop.gate.hold()
    with asking(shop.server, path) as connection:
        read_some(connection, b"begun\n")
        assert len(shop.questions(path)) <= 1
        shop.gate.release()
        read_lines(connection)
    answer = wait_for(lambda: stored(shop, path), what="the page in the store")
    assert answer.text == "begun\n" + "new\n" * LINES
    assert len(shop.questions(path)) == 1


@every_kind
def test_a_client_that_leaves_in_mid_stream_leaves_nobody_waiting(shop: Shop, path: str) -> None:
    path = path.replace("text", "stream")
    shop.gate.answer(f"new {FRESH}")
    shop.gate.hold()
    with asking(shop.server, path) as connection:
        read_some(connection, b"begun\n")
        wait_for(lambda: shop.open_calls(path) == 1, what="the stream waits")
    with asking(shop.server, path) as connection:
        wait_for(lambda: shop.arrivals(path) == 2, what="another has come in")
        shop.gate.release()
        read_lines(connection)
    assert wait_for(lambda: stored(shop, path), what="the page in the store").text == "begun\n" + "new\n" * LINES
    assert len(shop.questions(path)) <= 2


@contextmanager
def asking(server: Server, path: str) -> Iterator[socket.socket]:
    """Send a request over a plain socket, since an HTTP client would read on."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        host = f"127.0.0.1:{server.port}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        yield connection


def read_some(connection: socket.socket, wanted: bytes) -> None:
    data = b""
    while wanted not in data:
        more = connection.recv(65536)
        assert more, data
        data += more


def read_lines(connection: socket.socket) -> None:
    """Read until all lines of a page have come, whatever is between its chunks; some servers do not close the connection then."""
    data = b""
    while data.count(b"new\n") < LINES:
        more = connection.recv(1 << 20)
        assert more, data[-1000:]
        data += more


def stored(shop: Shop, path: str) -> Answer | None:
    answer = shop.server.get(path)
    return answer if answer.cache == "HIT" else None


# -- a crowd, and a kill ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Two workers with room for a crowd in each."""
    with shop_on("gthread", tmp_path_factory.mktemp("roomy"), threads=110) as shop:
        yield shop


@pytest.mark.grid
@pytest.mark.parametrize("kinds", [("a",), ("a", "b")], ids=["one variant", "two variants"])
@pytest.mark.parametrize("varies", [False, True], ids=["plain", "with Vary"])
def test_a_cold_crowd_asks_the_app_once_for_each_variant(roomy: Shop, path: str, varies: bool, kinds: tuple[str, ...]) -> None:
    """Only the first response, for which all have waited, shows that the page varies."""
    path = path.replace("text", "vary") if varies else path
    roomy.gate.answer(f"new {FRESH}")
    roomy.gate.hold()
    share = 100 // len(kinds)
    with crowds(roomy.server, share, path, kinds) as asked:
        wait_for(lambda: roomy.arrivals(path) == 100, what="all have come in")
        wait_for(lambda: roomy.open_calls(path) == 1, what="the app runs")
        roomy.gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    assert {value_of(answer) for answer in answers} == {"new"}
    assert len(roomy.questions(path)) == (len(kinds) if varies else 1)
    assert {answer.cache for answer in answers} <= {"MISS", "HIT"}


@contextmanager
def crowds(server: Server, count: int, path: str, kinds: tuple[str, ...]) -> Iterator[list[Any]]:
    """Let ``count`` visitors of each kind request a path at the same time."""
    if len(kinds) == 1:
        with crowd(server, count, path, {"X-Kind": kinds[0]}) as asked:
            yield asked
        return
    with crowd(server, count, path, {"X-Kind": kinds[0]}) as some, crowd(server, count, path, {"X-Kind": kinds[1]}) as others:
        yield [*some, *others]


def test_after_the_kill_of_a_worker_in_its_refresh_another_renews(roomy: Shop, path: str) -> None:
    roomy.gate.answer(f"old {STALE}")
    roomy.server.get(path)
    roomy.gate.answer(f"new {FRESH}")
    roomy.gate.hold()
    assert roomy.server.get(path).cache == "STALE"
    wait_for(lambda: roomy.open_calls(path) == 1, what="the refresh hangs")
    os.kill(int(roomy.questions(path)[-1]["pid"]), signal.SIGKILL)
    wait_for(lambda: roomy.open_calls(path) == 0, what="it died with its worker")
    roomy.gate.release()
    wait_for(lambda: value_of(roomy.server.get(path)) == "new", what="the new page")
    assert len(roomy.questions(path)) == 3


# -- other frameworks ------------------------------------------------------------------------------------------------

DJANGO = """
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition

from flask_stalecache import GatewayCache

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware"],
)
calls = {}


def count(request):
    calls[request.path] = calls.get(request.path, 0) + 1
    return calls[request.path]


@cache_control(max_age=600)
def news(request):
    return HttpResponse(f"news {count(request)} by {os.getpid()}")


@cache_control(max_age=600)
def hello(request):
    return HttpResponse(f"hello {request.session.get('user', 'stranger')}")


@cache_control(max_age=600)
def stream(request):
    return StreamingHttpResponse(iter([b"one ", b"two ", f"{count(request)} by {os.getpid()}".encode()]))


@csrf_exempt
def login(request):
    request.session["user"] = request.POST["user"]
    return HttpResponse("welcome")


@cache_control(private=True, max_age=600)
def basket(request):
    return HttpResponse(f"basket {count(request)} by {os.getpid()}")


@csrf_exempt
@cache_control(max_age=600)
def edited(request):
    return HttpResponse(f"edited {count(request)} by {os.getpid()}")


urlpatterns = [path(view.__name__, view) for view in (news, hello, stream, login, basket, edited)]
app = GatewayCache(get_wsgi_application(), dir=os.environ["FOLDER"] + "/cache")
"""


def test_django_behind_the_gateway(tmp_path: Path) -> None:
    """Two workers share the pages that the views allow; pages with a session vary on cookies, and private pages stay private."""
    with shop_on("gthread", tmp_path, DJANGO) as shop:
        server = shop.server
        for page in ("/news", "/stream"):
            texts = {answer.text for answer in (server.get(page), *server.get_at_once(20, page))}
            assert len(texts) == 1, texts
        assert len({answer.text for answer in server.get_at_once(20, "/basket")}) == 20
        assert server.get("/hello").text == "hello stranger"
        members = {name: log_in(server, name) for name in ("ann", "bob")}
        for _ in range(2):
            assert {name: server.get("/hello", headers).text for name, headers in members.items()} == {
                "ann": "hello ann",
                "bob": "hello bob",
            }
            assert server.get("/hello").text == "hello stranger"
        assert [server.get("/hello", members["ann"]).cache, server.get("/hello").cache] == ["HIT", "HIT"]
        before = server.get("/edited").text
        assert server.get("/edited").text == before
        with visits(server) as visit:
            assert visit("/edited", method="PUT").cache == "BYPASS"
        assert server.get("/edited").text != before


def log_in(server: Server, name: str) -> Mapping[str, str]:
    """Log in, and return the Cookie field of the member."""
    import requests

    answer = requests.post(f"{server.url}/login", data={"user": name}, timeout=PATIENCE)
    assert answer.text == "welcome"
    return {"Cookie": f"sessionid={answer.cookies['sessionid']}"}


FLASK = """
import os

import flask_login
from flask import Flask, render_template_string, request
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=os.environ["FOLDER"] + "/cache", STALECACHE_GATEWAY=True)
cache = StaleCache(app)
manager = flask_login.LoginManager(app)
visits = 0


@manager.user_loader
def load(name):
    user = flask_login.UserMixin()
    user.id = name
    return user


@app.before_request
def count():
    global visits
    visits += 1


@app.post("/login")
def login():
    flask_login.login_user(load(request.form["user"]), remember=True)
    return "welcome"


@app.get("/hello")
def hello():
    cache.tag("hello")
    text = render_template_string("hello {{ current_user.id or 'stranger' }}, from ")
    return text + f"{os.getpid()} {visits}", {"Cache-Control": "max-age=600"}


@app.post("/publish")
def publish():
    cache.purge(tag="hello")
    return "published"
"""


def test_flask_login_behind_the_gateway(tmp_path: Path) -> None:
    """Strangers get the stored page from any worker, members get a live one, and a purge by one worker holds for all."""
    with shop_on("gthread", tmp_path, FLASK) as shop:
        server = shop.server
        first = server.get("/hello").text
        assert {answer.text for answer in server.get_at_once(20, "/hello")} == {first}
        for name in ("ann", "bob"):
            cookies = log_in_with_flask(server, name)
            for headers in ({"Cookie": cookies}, {"Cookie": cookies.split("; ")[0]}, {"Cookie": cookies.split("; ")[1]}):
                answers = server.get_at_once(4, "/hello", headers)
                assert {answer.text.partition(",")[0] for answer in answers} == {f"hello {name}"}
                assert {answer.cache for answer in answers} == {"BYPASS"}
        assert {answer.text for answer in server.get_at_once(10, "/hello")} == {first}
        with visits(server) as visit:
            assert visit("/publish", method="POST").text == "published"
        texts = {answer.text for answer in server.get_at_once(10, "/hello")}
        assert len(texts) == 1
        assert first not in texts


def log_in_with_flask(server: Server, name: str) -> str:
    import requests

    answer = requests.post(f"{server.url}/login", data={"user": name}, timeout=PATIENCE)
    assert answer.text == "welcome"
    assert set(answer.cookies.keys()) == {"session", "remember_token"}
    return "; ".join(f"{key}={value}" for key, value in answer.cookies.items())
