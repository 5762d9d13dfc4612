"""Sessions: a shared HTTP cache between the app and third parties, against a real server in this process."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine
from conftest import NOON
from flask import Flask
from origins import PATIENCE, wait_until, workers
from requests.adapters import HTTPAdapter
from test_fetch_live import HEAD, Rude, rude
from urllib3 import HTTPResponse

from flask_stalecache import ConfigError, StaleCache


@dataclass
class Asked:
    """What a third party was asked."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """What it answers; a body that is a callable is made of what was asked and the number of the call."""

    headers: dict[str, str] | list[tuple[str, str]] = field(default_factory=dict)
    body: Any = lambda asked, number: str(number)
    status: int = 200
    reason: str | None = None
    chunked: bool = False
    #: The answer is 304 where If-None-Match or If-Modified-Since is there.
    confirms: bool = False


class ThirdParty(ThreadingHTTPServer):
    """A third party that answers as it is told and remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.replies: dict[str, Reply] = {}
        self.open = threading.Event()
        self.open.set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def says(self, *lines: str, path: str = "/", **more: Any) -> None:
        """Answer with these fields from now on."""
        pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.replies[path] = Reply(pairs, **more)

    @property
    def calls(self) -> int:
        return len(self.asked)

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that has gone is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: One packet for each answer: many small ones would wait for each other.
    wbufsize = 65536
    server: ThirdParty

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, dict(self.headers.items()))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(asked)
        number = self.server.calls
        assert self.server.open.wait(PATIENCE)
        reply = self.server.replies.get(self.path) or self.server.replies["/"]
        is_confirmed = reply.confirms and ("If-None-Match" in self.headers or "If-Modified-Since" in self.headers)
        self.send_response_only(304 if is_confirmed else reply.status, None if is_confirmed else reply.reason)
        headers = [*(reply.headers.items() if isinstance(reply.headers, dict) else reply.headers)]
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Date" for name, _ in headers):
            self.send_header("Date", formatdate(time.time(), usegmt=True))
        body = b"" if is_confirmed or reply.status == 204 else self._body(reply, asked, number)
        if reply.chunked and not is_confirmed:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(
                b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
            )
            self.wfile.write(b"0\r\n\r\n")
            return
        if not is_confirmed:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET

    @staticmethod
    def _body(reply: Reply, asked: Asked, number: int) -> bytes:
        body = reply.body(asked, number) if callable(reply.body) else reply.body
        return body if isinstance(body, bytes) else str(body).encode()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def party() -> Iterator[ThirdParty]:
    with ThirdParty() as server:
        try:
            yield server
        finally:
            server.open.set()
            server.shutdown()


@dataclass
class Site:
    """An app with its cache, and sessions in its context."""

    app: Flask
    cache: StaleCache
    stack: ExitStack

    def session(self, *windows: float | None, **options: Any) -> requests.Session:
        session = self.stack.enter_context(self.cache.session(*windows, **options))
        session.trust_env = False
        return session

    def drain(self) -> None:
        assert self.cache.drain(PATIENCE)


@pytest.fixture
def make_site(make_app: Callable[..., tuple[Flask, StaleCache]]) -> Iterator[Callable[..., Site]]:
    """``make_site(**config)``: an app whose context is entered."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Site:
            app, cache = make_app(**settings)
            stack.enter_context(app.app_context())
            return Site(app, cache, stack)

        yield make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def status(response: requests.Response) -> str:
    return response.headers["X-Cache-Status"]


# -- freshness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "windows", "fresh_for"),
    [
        (["Cache-Control: max-age=60"], (), 60),
        (["Cache-Control: s-maxage=30, max-age=60"], (), 30),
        (["CDN-Cache-Control: max-age=90", "Cache-Control: max-age=60"], (), 90),
        ([f"Expires: {formatdate(NOON + 45, usegmt=True)}"], (), 45),
        (["Cache-Control: max-age=60", "Age: 50"], (), 10),
        ([f"Last-Modified: {formatdate(NOON - 1000, usegmt=True)}"], (), 100),
        ([], (120,), 120),
        (["Cache-Control: max-age=60"], (120,), 60),
        ([], (), 0),
        (["Expires: 0"], (120,), 0),
        (["Cache-Control: no-store"], (120,), 0),
        (["Cache-Control: private, max-age=60"], (120,), 0),
        (["Cache-Control: no-cache"], (120,), 0),
        (["Cache-Control: max-age=60", "Set-Cookie: a=b"], (120,), 0),
        (["Cache-Control: max-age=60", "Vary: *"], (120,), 0),
    ],
)
def test_a_third_party_says_how_long_its_answer_is_fresh(
    lines: list[str], windows: tuple[float, ...], fresh_for: float, party: ThirdParty, site: Site, clock: time_machine.Traveller
) -> None:
    party.says(*lines)
    session = site.session(*windows)
    first = session.get(party.url())
    assert (first.text, status(first), first.from_cache) == ("1", "MISS", False)  # type: ignore[attr-defined]
    if fresh_for:
        clock.shift(fresh_for - 0.5)
        second = session.get(party.url())
        assert (second.text, status(second), second.from_cache) == ("1", "HIT", True)  # type: ignore[attr-defined]
        clock.shift(1)
    assert session.get(party.url()).text == "2"


def test_age_and_ttl_are_told(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60", "Cache-Status: edge; hit", "X-Cache-Status: theirs", "Age: 5")
    session = site.session()
    first = session.get(party.url())
    assert first.headers["Cache-Status"] == "edge; hit, stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    assert first.headers["Age"] == "5"
    clock.shift(10)
    second = session.get(party.url())
    assert second.headers["Cache-Status"] == "edge; hit, stalecache; hit; ttl=45"
    assert (second.headers["Age"], status(second)) == ("15", "HIT")


def test_the_setting_chooses_the_status_fields(party: ThirdParty, make_site: Callable[..., Site]) -> None:
    site = make_site(STATUS_HEADERS=["Cache-Status"])
    party.says("Cache-Control: max-age=60")
    session = site.session()
    for response in (session.get(party.url()), session.get(party.url()), session.post(party.url())):
        assert "Cache-Status" in response.headers
        assert "X-Cache-Status" not in response.headers


@pytest.mark.parametrize(
    ("code", "lines", "options", "stored"),
    [
        (404, ["Cache-Control: max-age=60"], {}, True),
        (404, [], {"max_age": 60}, False),
        (404, [], {"statuses": {404: 30}}, True),
        (403, ["Cache-Control: max-age=60"], {}, True),
        (403, [], {"max_age": 60}, False),
        (500, [], {"max_age": 60}, False),
        (206, ["Cache-Control: max-age=60"], {}, False),
    ],
)
def test_statuses(code: int, lines: list[str], options: dict[str, Any], stored: bool, party: ThirdParty, site: Site) -> None:
    party.says(*lines, status=code, reason="As I say")
    session = site.session(**options)
    answers = [session.get(party.url()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [code, code]
    assert [answer.reason for answer in answers] == ["As I say"] * 2
    assert party.calls == (1 if stored else 2)


# -- revalidation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "condition"),
    [('ETag: "one"', ("If-None-Match", '"one"')), (f"Last-Modified: {formatdate(NOON - 5, usegmt=True)}", ("If-Modified-Since",))],
)
def test_a_304_renews(line: str, condition: tuple[str, ...], party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60", line, "X-Number: 1", "Content-Type: text/plain; charset=utf-8", body="ü", confirms=True)
    session = site.session()
    session.get(party.url())
    clock.shift(61)
    party.says("Cache-Control: max-age=60", line, "X-Number: 2", "Set-Cookie: seen=1", confirms=True)
    second = session.get(party.url())
    assert (status(second), second.status_code, second.text, second.headers["X-Number"]) == ("REVALIDATED", 200, "ü", "2")
    assert second.headers["Cache-Status"] == "stalecache; fwd=stale; fwd-status=304; ttl=60; stored"
    assert party.last.headers[condition[0]] == (condition[1] if condition[1:] else formatdate(NOON - 5, usegmt=True))
    assert session.cookies.get_dict() == {"seen": "1"}, "the caller's own"
    assert (party.calls, status(session.get(party.url()))) == (2, "HIT")
    assert "Set-Cookie" not in session.get(party.url()).headers


def test_no_cache_asks_each_time(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: no-cache", 'ETag: "one"', confirms=True)
    session = site.session(60, 60, 60)
    assert [session.get(party.url()).text for _ in range(3)] == ["1"] * 3
    assert party.calls == 3


def test_a_304_about_something_else_is_asked_again(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: no-cache", 'ETag: "one"')
    session = site.session()
    session.get(party.url())
    party.says("Cache-Control: no-cache", 'ETag: "two"', confirms=True)
    answer = session.get(party.url())
    assert (answer.text, answer.headers["ETag"], party.calls) == ("3", '"two"', 3)


@pytest.mark.parametrize(
    ("conditions", "code"),
    [({"If-None-Match": '"one"'}, 304), ({"If-None-Match": '"other"'}, 200), ({"If-None-Match": b'W/"one"'}, 304)],
)
def test_a_callers_own_condition_is_answered_from_what_is_stored(
    conditions: dict[str, str], code: int, party: ThirdParty, site: Site
) -> None:
    party.says("Cache-Control: max-age=60", 'ETag: "one"', confirms=True)
    session = site.session()
    answers = [session.get(party.url(), headers=conditions) for _ in range(2)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(code, "" if code == 304 else "1")] * 2
    assert party.calls == 1
    assert "If-None-Match" not in party.last.headers
    assert session.get(party.url()).text == "1"


def test_a_range_goes_past_the_store(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    answers = [session.get(party.url(), headers={"Range": "bytes=0-1"}) for _ in range(2)]
    assert [status(answer) for answer in answers] == ["BYPASS"] * 2
    assert party.calls == 2


# -- what a caller says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "after", "text", "word"),
    [
        ("no-cache", 10, "2", "EXPIRED"),
        ("max-age=5", 10, "2", "EXPIRED"),
        ("max-age=20", 10, "1", "HIT"),
        ("min-fresh=55", 10, "2", "EXPIRED"),
        ("min-fresh=30", 10, "1", "HIT"),
        ("max-stale=20", 70, "1", "STALE"),
        ("max-stale=5", 70, "2", "EXPIRED"),
        ("no-store", 10, "1", "HIT"),
        ("no-store", 70, "2", "EXPIRED"),
    ],
)
def test_a_caller_is_obeyed(
    said: str, after: float, text: str, word: str, party: ThirdParty, site: Site, clock: time_machine.Traveller
) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    session.get(party.url())
    clock.shift(after)
    answer = session.get(party.url(), headers={"Cache-Control": said})
    assert (answer.text, status(answer)) == (text, word)


def test_what_a_caller_does_not_want_stored_is_not(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    assert [session.get(party.url(), headers={"Cache-Control": "no-store"}).text for _ in range(2)] == ["1", "2"]
    assert [session.get(party.url()).text for _ in range(2)] == ["3", "3"]
    assert session.get(party.url(), headers={"Cache-Control": "no-store, no-cache"}).text == "4"
    assert session.get(party.url()).text == "3", "and what was stored is still there"


def test_only_if_cached(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    only = {"Cache-Control": "only-if-cached"}
    none = session.get(party.url(), headers=only)
    assert (none.status_code, none.text, party.calls) == (504, "", 0)
    session.get(party.url())
    assert session.get(party.url(), headers=only).text == "1"
    clock.shift(61)
    assert session.get(party.url(), headers=only).status_code == 504
    assert party.calls == 1


# -- variants and keys -----------------------------------------------------------------------------------------------


def test_vary(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60", "Vary: Accept-Language, X_Odd", body=lambda asked, n: asked.headers["Accept-Language"])
    session = site.session()
    for _ in range(2):
        for language in ("de", "en"):
            assert session.get(party.url(), headers={"Accept-Language": language}).text == language
    assert party.calls == 2
    session.get(party.url(), headers={"Accept-Language": "de", "X_Odd": "1"})
    assert party.calls == 3


@pytest.mark.parametrize(
    ("one", "other", "options", "shared"),
    [
        ({"params": {"b": "1", "utm_a": "2"}}, {"params": {"b": "1", "utm_a": "3"}}, {"ignored_parameters": ["utm_*"]}, True),
        ({"params": {"b": "1"}}, {"params": {"b": "2"}}, {}, False),
        ({"headers": {"X-Api-Key": "a"}}, {"headers": {"X-Api-Key": "b"}}, {}, True),
        ({"headers": {"X-Api-Key": "a"}}, {"headers": {"X-Api-Key": "b"}}, {"vary": ["X-Api-Key"]}, False),
        ({"headers": {"X-Api-Key": "a"}}, {"headers": {"X-Api-Key": "A"}}, {"vary": {"X-Api-Key": lambda v: v.upper()}}, True),
        ({"cookies": {"a": "1"}}, {"cookies": {"a": "2"}}, {}, True),
        ({"proxies": {"https": "http://proxy.example"}}, {}, {}, True),
        ({"verify": False}, {}, {}, True),
    ],
)
def test_what_is_in_the_key(
    one: dict[str, Any], other: dict[str, Any], options: dict[str, Any], shared: bool, party: ThirdParty, site: Site
) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session(**options)
    texts = [session.get(party.url("/#a"), **one).text, session.get(party.url(), **other).text]
    assert texts == (["1", "1"] if shared else ["1", "2"])


class Told(HTTPAdapter):
    """Answers with what it was given."""

    def send(self, request: Any, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        said = {"verify": options["verify"], "cert": options["cert"], "proxies": list(options["proxies"])}
        body, headers = BytesIO(json.dumps(said).encode()), {"Cache-Control": "max-age=60"}
        return self.build_response(request, HTTPResponse(body=body, status=200, headers=headers, preload_content=False))


@pytest.mark.parametrize(
    "way",
    [
        {"verify": False},
        {"verify": "/etc/ssl/own.pem"},
        {"cert": "/etc/client.pem"},
        {"cert": ("/etc/client.pem", "/etc/client.key")},
        {"proxies": {"https": "http://user:secret@proxy.example:3128"}},
    ],
    ids=str,
)
def test_what_came_another_way_is_kept_apart(way: dict[str, Any], site: Site, directory: Path) -> None:
    session = site.session(adapter=Told())
    for _ in range(2):
        plain, other = session.get("https://api.example/").json(), session.get("https://api.example/", **way).json()
        assert plain == {"verify": True, "cert": None, "proxies": []}
        assert other == json.loads(json.dumps({**plain, **way, "proxies": list(way.get("proxies", ()))}))
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("line", "stored"),
    [
        ("Cache-Control: max-age=60", False),
        ("Cache-Control: public, max-age=60", True),
        ("Cache-Control: s-maxage=60", True),
        ("Cache-Control: max-age=60, must-revalidate", True),
    ],
)
def test_authorization(line: str, stored: bool, party: ThirdParty, site: Site) -> None:
    party.says(line)
    session = site.session(60)
    assert session.get(party.url(), auth=("me", "secret")).text == "1"
    assert session.get(party.url()).text == ("1" if stored else "2")
    assert session.get(party.url(), auth=("me", "secret")).text == ("1" if stored else "3")


# -- stale -----------------------------------------------------------------------------------------------------------


def test_stale_while_revalidate(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-while-revalidate=600", "Vary: X-Key")
    session = site.session()
    mine = {"X-Key": "mine", "X-Token": "secret", "Cache-Control": "max-stale", "Authorization": ""}
    del mine["Authorization"]
    session.get(party.url(), headers=mine)
    clock.shift(61)
    party.open.clear()
    answers = [session.get(party.url(), headers=mine) for _ in range(3)]
    assert [(answer.text, status(answer)) for answer in answers] == [("1", "STALE"), ("1", "UPDATING"), ("1", "UPDATING")]
    party.open.set()
    site.drain()
    assert session.get(party.url(), headers=mine).text == "2"
    assert (party.calls, party.last.headers["X-Token"], "Cache-Control" in party.last.headers) == (2, "secret", False)


def test_windows_of_a_session_are_defaults(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    session = site.session(60, 60, 60)
    party.says()
    session.get(party.url())
    clock.shift(70)
    assert status(session.get(party.url())) == "STALE"
    site.drain()
    party.says("Cache-Control: max-age=60, must-revalidate")
    clock.shift(130)
    session.get(party.url())
    clock.shift(70)
    assert status(session.get(party.url())) == "EXPIRED"


def test_a_refresh_waits_for_the_response_to_be_closed(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-while-revalidate=600")
    session = site.session()
    site.app.add_url_rule("/", view_func=lambda: session.get(party.url()).text)
    client = site.app.test_client()
    assert client.get("/").text == "1"
    clock.shift(61)
    with client.get("/") as page:
        assert page.text == "1"
        site.drain()
        assert party.calls == 1
    site.drain()
    assert party.calls == 2


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(lambda: Rude(HEAD + b"Content-Length: 100\r\n\r\nhalf", reset=True), id="resets in mid-body"),
        pytest.param(lambda: Rude(HEAD + b"Content-Length: 100\r\n\r\nhalf"), id="half of Content-Length"),
        pytest.param(lambda: Rude(b"\0\1\2 nonsense\r\n\r\n"), id="invalid status line"),
        pytest.param(lambda: Rude(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), id="invalid chunks"),
        pytest.param(lambda: Rude(b""), id="closes at once"),
        pytest.param(lambda: Rude(b"HTTP/1.1 ", drip=False, reset=True), id="resets"),
        pytest.param(lambda: Rude(rude("500 Oh", body=b"oh")), id="500"),
        pytest.param(lambda: Rude(rude("503 Oh", "Retry-After: 100", body=b"oh")), id="503"),
        pytest.param(lambda: Rude(rude("429 Slowly", "Retry-After: 100", body=b"oh")), id="429"),
        pytest.param(lambda: None, id="refuses"),
    ],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stale", "cold"])
def test_a_third_party_that_fails(server: Callable[[], Rude | None], stored: bool, make_site: Callable[..., Site]) -> None:
    site, made = make_site(REFRESH_BACKOFF=(100, 100)), server()
    session, plain = site.session(0, 0, 6000), requests.Session()
    plain.trust_env = False
    with ExitStack() as stack:
        stack.callback(plain.close)
        party = made or Rude(b"")
        stack.callback(party.close)
        url = party.url
        if stored:
            bad, party.data, party.reset = (party.data, party.reset), rude("200 OK", body=b"stored"), False
            assert session.get(url, timeout=5).text == "stored"
            (party.data, party.reset), calls = bad, party.calls
        if made is None:
            # Closing alone would not end the wait for the next caller.
            party.socket.shutdown(socket.SHUT_RDWR)
        if stored:
            answers = [session.get(url, timeout=5) for _ in range(3)]
            assert [(answer.text, status(answer)) for answer in answers] == [("stored", "STALE")] * 3
            assert party.calls == calls + (made is not None), "it is left alone for a while"
        else:
            assert outcome(session, url) == outcome(plain, url)


def outcome(session: requests.Session, url: str) -> object:
    try:
        answer = session.get(url, timeout=5)
    except requests.RequestException as error:
        return type(error)
    return answer.status_code, answer.text


def test_a_timeout_is_a_failure(party: ThirdParty, site: Site) -> None:
    party.says()
    session = site.session(0, 0, 6000)
    session.get(party.url())
    party.open.clear()
    assert [session.get(party.url(), timeout=0.1).text for _ in range(3)] == ["1"] * 3
    assert party.calls == 2
    with pytest.raises(requests.ReadTimeout):
        session.get(party.url("/other"), timeout=0.1)


def test_it_is_gone_for_good_once_its_windows_are_over(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-if-error=60", body="1")
    session = site.session()
    session.get(party.url())
    party.says(status=503, body="down")
    clock.shift(70)
    assert (session.get(party.url()).text, status(session.get(party.url()))) == ("1", "STALE")
    clock.shift(60)
    answer = session.get(party.url())
    assert (answer.status_code, answer.text) == (503, "down")


def test_404_is_an_answer(party: ThirdParty, site: Site) -> None:
    party.says()
    session = site.session(0, 0, 6000)
    session.get(party.url())
    party.says(status=404, body="none")
    assert session.get(party.url()).status_code == 404


def test_a_callers_own_stale_if_error(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60", body="1")
    session = site.session()
    session.get(party.url())
    clock.shift(100)
    party.says(status=503, body="down")
    assert session.get(party.url()).status_code == 503
    party.says("Cache-Control: max-age=60", body="1")
    session.get(party.url())
    clock.shift(100)
    party.says(status=503, body="down")
    answer = session.get(party.url(), headers={"Cache-Control": "stale-if-error=50"})
    assert (answer.text, status(answer)) == ("1", "STALE")
    clock.shift(50)
    assert session.get(party.url(), headers={"Cache-Control": "stale-if-error=50"}).status_code == 503


def test_wait(party: ThirdParty, site: Site) -> None:
    party.says()
    session = site.session(0, 0, 6000, wait=0.05)
    session.get(party.url())
    party.open.clear()
    answer = session.get(party.url())
    assert (answer.text, status(answer)) == ("1", "STALE")
    party.open.set()
    site.drain()
    assert party.calls == 2


def test_prefer_stale(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session(prefer_stale=True)
    session.get(party.url())
    clock.shift(100_000)
    assert session.get(party.url()).text == "1"
    site.drain()
    assert session.get(party.url()).text == "2"


# -- what is unsafe, and HEAD ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "code", "lines", "gone"),
    [
        ("POST", 200, [], ["/a"]),
        ("PUT", 303, ["Location: /b"], ["/a", "/b"]),
        ("DELETE", 204, ["Content-Location: /b"], ["/a", "/b"]),
        ("POST", 201, ["Location: http://other.example/b"], ["/a"]),
        ("POST", 500, [], []),
        ("POST", 404, [], []),
        ("OPTIONS", 200, [], []),
    ],
)
def test_unsafe_methods_invalidate(
    method: str, code: int, lines: list[str], gone: list[str], party: ThirdParty, site: Site
) -> None:
    session = site.session()
    party.says("Cache-Control: max-age=60", "Vary: Accept", body=lambda asked, number: asked.path)
    for path in ("/a", "/b"):
        session.get(party.url(path))
    party.says(*lines, "Cache-Control: max-age=60", path="/a", status=code)
    answer = session.request(method, party.url("/a"), data="x" if method == "POST" else None, allow_redirects=False)
    assert (answer.status_code, answer.headers["Cache-Status"]) == (code, f"stalecache; fwd=method; fwd-status={code}")
    party.says("Cache-Control: max-age=60", path="/a")
    again = {path: status(session.get(party.url(path))) for path in ("/a", "/b")}
    assert again == {path: "MISS" if path in gone else "HIT" for path in ("/a", "/b")}


def test_unsafe_requests_for_what_nobody_stored_leave_nothing_behind(party: ThirdParty, site: Site, directory: Path) -> None:
    session = site.session()
    party.says()
    for number in range(5):
        session.post(party.url(f"/orders/{number}"))
    assert not list((directory / "names").glob("*")) if (directory / "names").exists() else True


@pytest.mark.parametrize("selected", [{"url": True}, {"tag": "rates"}, {"all": True}])
@pytest.mark.parametrize("soft", [True, False])
def test_purge(selected: dict[str, Any], soft: bool, party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60", "Vary: Accept", 'ETag: "one"', confirms=True)
    session = site.session(tags=["rates"])
    session.get(party.url("/?a=1"))
    site.cache.purge("/?a=1")
    assert status(session.get(party.url("/?a=1"))) == "HIT", "a path is one of the app's own pages"
    site.cache.purge(**{**selected, **({"url": party.url("/?a=1")} if "url" in selected else {})}, soft=soft)
    assert status(session.get(party.url("/?a=1"))) == ("REVALIDATED" if soft else "MISS")


def test_head(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-while-revalidate=60", body="body")
    session = site.session()
    assert [status(session.head(party.url())) for _ in range(2)] == ["MISS", "MISS"], "it fills nothing"
    session.get(party.url())
    head = session.head(party.url())
    assert (head.text, head.headers["Content-Length"], status(head)) == ("", "4", "HIT")
    clock.shift(61)
    assert status(session.head(party.url())) == "STALE"
    site.drain()
    assert party.last.method == "GET"
    assert session.get(party.url()).text == "body"
    clock.shift(200)
    party.says("Cache-Control: max-age=60", body="another body")
    assert status(session.head(party.url())) == "EXPIRED"
    assert session.get(party.url()).text == "another body"


def test_a_get_with_a_body_goes_past_the_store(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    assert [status(session.get(party.url(), data="query")) for _ in range(2)] == ["BYPASS"] * 2


# -- responses as without a cache ------------------------------------------------------------------------------------

BODIES = {
    "plain": (b"h\xc3\xa9", ["Content-Type: text/plain; charset=utf-8"]),
    "latin-1": (b"h\xe9", ["Content-Type: text/plain"]),
    "json": (b'{"a": [1]}', ["Content-Type: application/json"]),
    "gzip": (gzip.compress(b"zipped" * 1000), ["Content-Encoding: gzip", "Content-Type: text/plain"]),
    "empty": (b"", []),
    "lines": (b"one\ntwo\nthree", ["Link: <a>; rel=next", "Link: <b>; rel=prev"]),
}
READERS: dict[str, Callable[[requests.Response], object]] = {
    "text": lambda r: (r.text, r.encoding, r.apparent_encoding if r.content else None),
    "content": lambda r: (r.content, r.content),
    "iter_content": lambda r: b"".join(r.iter_content(3)),
    "iter_content whole": lambda r: b"".join(r.iter_content(None)),
    "iter_lines": lambda r: list(r.iter_lines(decode_unicode=True)),
    "raw": lambda r: (r.raw.read(2), r.raw.read(), r.raw.read(1), r.raw.status, r.raw.reason),
    "raw decoded": lambda r: r.raw.read(decode_content=True),
    "links": lambda r: (r.links, r.raw.headers.getlist("Link"), r.ok, r.is_redirect, r.history, r.url),
    "context": lambda r: r.__enter__().content,
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
@pytest.mark.parametrize("kind", BODIES)
def test_responses_are_read_as_without_a_cache(kind: str, chunked: bool, stream: bool, party: ThirdParty, site: Site) -> None:
    body, lines = BODIES[kind]
    party.says("Cache-Control: max-age=60", *lines, body=body, chunked=chunked)
    session = site.session()
    with requests.Session() as plain:
        plain.trust_env = False
        for name, read in READERS.items():
            url = party.url(f"/{name.replace(' ', '')}")
            if "raw" in name and chunked:
                # Of chunks urllib3 reads as it pleases.
                read = READERS["raw decoded"]
            expected = read(plain.get(url, stream=stream))
            assert [read(session.get(url, stream=stream)) for _ in range(2)] == [expected] * 2, name
            session.get(url)
            hit = session.get(url, stream=stream)
            assert (read(hit), hit.from_cache) == (expected, True), name  # type: ignore[attr-defined]
            hit.close()


def test_what_hooks_see(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session, seen = site.session(), []
    session.hooks["response"].append(lambda response, **kwargs: seen.append((status(response), response.elapsed is not None)))
    for _ in range(2):
        answer = session.get(party.url())
        answer.headers["X-Cache-Status"] = "changed"
        answer.raw.headers["X-Cache-Status"] = "changed"
    assert seen == [("MISS", True), ("HIT", True)]
    assert answer.request.url == party.url()


def test_each_hop_of_a_redirect_is_cached_on_its_own(party: ThirdParty, site: Site) -> None:
    session = site.session()
    party.says("Cache-Control: max-age=60", "Location: /b", path="/a", status=301)
    party.says("Location: /c", path="/b", status=302)
    party.says("Cache-Control: max-age=60", path="/c", body="here")
    for calls in (3, 4):
        answer = session.get(party.url("/a"))
        assert ([hop.status_code for hop in answer.history], answer.text, answer.url) == ([301, 302], "here", party.url("/c"))
        assert party.calls == calls
    assert [status(hop) for hop in (*answer.history, answer)] == ["HIT", "MISS", "HIT"]


def test_cookies_are_the_sessions_own_business(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60", "Set-Cookie: id=1", path="/login")
    party.says("Cache-Control: max-age=60", "Vary: Cookie", body=lambda asked, number: asked.headers.get("Cookie", "none"))
    session = site.session()
    assert session.get(party.url()).text == "none"
    session.get(party.url("/login"))
    assert [session.get(party.url()).text for _ in range(2)] == ["id=1"] * 2
    assert site.session().get(party.url()).text == "none"
    assert party.calls == 3


# -- large and streamed bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_body_over_the_limit_is_returned_and_not_stored(
    chunked: bool, stream: bool, party: ThirdParty, make_site: Callable[..., Site]
) -> None:
    site = make_site(MAX_ENTRY_SIZE=100_000)
    party.says("Cache-Control: max-age=60", body=b"x" * 300_000, chunked=chunked)
    session = site.session()
    assert [len(session.get(party.url(), stream=stream).content) for _ in range(2)] == [300_000] * 2
    assert party.calls == 2


def test_a_streamed_body_is_stored_once_it_was_read(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60", body=b"x" * 100_000)
    session = site.session()
    with session.get(party.url(), stream=True) as answer:
        assert len(next(answer.iter_content(1000))) == 1000
    assert status(session.get(party.url(), stream=True)) == "MISS", "the first was not read to its end"
    with session.get(party.url(), stream=True) as answer:
        assert sum(map(len, answer.iter_content(1000))) == 100_000
    assert status(session.get(party.url())) == "HIT"


def test_an_endless_stream_is_not_held_up(site: Site) -> None:
    with closing(Rude(HEAD + b"Cache-Control: max-age=60\r\n\r\nfirst", drip=True)) as server:
        session = site.session(60)
        with session.get(server.url, stream=True) as answer:
            assert next(answer.iter_content(5)) == b"first"
            with session.get(server.url, stream=True) as other:
                assert next(other.iter_content(5)) == b"first"


def test_a_body_that_breaks_off_while_it_is_streamed(site: Site) -> None:
    with closing(Rude(HEAD + b"Cache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf")) as server:
        session = site.session()
        for _ in range(2):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                assert session.get(server.url, stream=True).content
        assert server.calls == 2


def test_a_refresh_that_never_ends_is_given_up(make_site: Callable[..., Site]) -> None:
    site = make_site(REFRESH_DEADLINE=0.3)
    with closing(Rude(rude("200 OK", body=b"1"))) as server:
        session = site.session(0, 600)
        session.get(server.url)
        server.data, server.drip = HEAD + b"\r\n", True
        assert session.get(server.url).text == "1"
        site.drain()
        assert session.get(server.url).text == "1"


# -- one request for many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines", [["Cache-Control: max-age=60"], ["Cache-Control: max-age=60", "Vary: Accept"]], ids=["plain", "vary"]
)
def test_many_threads_make_one_request(lines: list[str], party: ThirdParty, site: Site) -> None:
    party.says(*lines)
    session = site.session()
    party.open.clear()

    def ask(_: int) -> tuple[str, bool]:
        with site.app.app_context():
            answer = session.get(party.url())
            return answer.text, "collapsed" in answer.headers["Cache-Status"] or answer.from_cache  # type: ignore[attr-defined]

    with ThreadPoolExecutor(20) as pool:
        asked = pool.map(ask, range(20))
        wait_until(lambda: party.calls == 1, "the request")
        party.open.set()
        answers = list(asked)
    assert [text for text, _ in answers] == ["1"] * 20
    assert sum(shared for _, shared in answers) == 19
    assert party.calls == 1


def test_many_threads_share_a_failure(party: ThirdParty, site: Site) -> None:
    party.says(status=503, body="down")
    session = site.session()
    party.open.clear()

    def ask(_: int) -> tuple[int, str]:
        with site.app.app_context():
            answer = session.get(party.url())
            return answer.status_code, answer.text

    with ThreadPoolExecutor(10) as pool:
        asked = pool.map(ask, range(10))
        flights = site.app.extensions["stalecache"].engine._process.flights
        wait_until(lambda: party.calls == 1, "the request")
        wait_until(lambda: flights._flights, "it is waited for")
        party.open.set()
        assert list(asked) == [(503, "down")] * 10
    assert party.calls <= 3


def _ask(directory: str, url: str) -> str:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)
    with app.app_context(), cache.session() as session:
        session.trust_env = False
        return session.get(url).text


@pytest.mark.server
def test_two_processes_make_one_request(party: ThirdParty, directory: Path) -> None:
    party.says("Cache-Control: max-age=60")
    party.open.clear()
    with workers(2) as pair:
        for worker in pair:
            worker.start(_ask, str(directory), party.url())
        wait_until(lambda: party.calls == 1, "the request")
        party.open.set()
        assert [worker.result() for worker in pair] == ["1", "1"]
    assert party.calls == 1


# -- where it works --------------------------------------------------------------------------------------------------


def test_outside_an_app_context_nothing_is_cached(party: ThirdParty, make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    _, cache = make_app()
    party.says("Cache-Control: max-age=60")
    with cache.session() as session:
        answers = [session.get(party.url()) for _ in range(2)]
    assert [(answer.text, answer.from_cache) for answer in answers] == [("1", False), ("2", False)]  # type: ignore[attr-defined]
    assert "Cache-Status" not in answers[0].headers


def test_where_caching_is_off_nothing_is_cached(party: ThirdParty, make_site: Callable[..., Site]) -> None:
    party.says("Cache-Control: max-age=60")
    session = make_site(ENABLED=False).session(60)
    assert [session.get(party.url()).text for _ in range(2)] == ["1", "2"]


def test_an_app_without_a_cache_is_told() -> None:
    with Flask("other").app_context(), StaleCache().session() as session, pytest.raises(ConfigError, match="call init_app"):
        session.get("http://127.0.0.1:9/")


def test_mounted_by_prefix_on_a_session_that_is_there(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    with requests.Session() as session:
        session.trust_env = False
        session.mount(party.url("/api/"), site.cache.adapter())
        assert [session.get(party.url("/api/x")).text for _ in range(2)] == ["1", "1"]
        assert [session.get(party.url("/other")).text for _ in range(2)] == ["2", "3"]


def test_another_adapter_asks(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")

    class Counting(HTTPAdapter):
        calls = 0

        def send(self, *args: Any, **options: Any) -> requests.Response:
            self.calls += 1
            return super().send(*args, **options)

    adapter = Counting(max_retries=3)
    session = site.session(adapter=adapter)
    assert [session.get(party.url()).text for _ in range(2)] == ["1", "1"]
    assert adapter.calls == 1


def test_a_session_that_is_closed_at_once_is_still_renewed(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-while-revalidate=600")
    texts = []
    for _ in range(3):
        with site.cache.session() as session:
            session.trust_env = False
            texts.append(session.get(party.url()).text)
        site.drain()
        clock.shift(61)
    assert texts == ["1", "1", "2"]


def test_two_apps_keep_apart(party: ThirdParty, tmp_path: Path) -> None:
    cache, texts = StaleCache(), []
    party.says("Cache-Control: max-age=60")
    with cache.session() as session:
        session.trust_env = False
        for name in ("one", "two", "one"):
            app = Flask(name)
            app.config["STALECACHE_DIR"] = tmp_path / name
            cache.init_app(app)
            with app.app_context():
                texts.append(session.get(party.url()).text)
    assert texts == ["1", "2", "1"]


# -- what is made of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inherit", "fresh_for"), [(True, 5), (False, 60)])
def test_freshness_and_tags_travel_up(
    inherit: bool, fresh_for: float, party: ThirdParty, site: Site, clock: time_machine.Traveller
) -> None:
    party.says("Cache-Control: max-age=5")
    session = site.session(tags=["rates"], inherit=inherit)
    app, cache = site.app, site.cache

    @app.get("/")
    @cache.cached(60, 600, 600, jitter=0)
    def page() -> str:
        return session.get(party.url()).text

    client = app.test_client()
    assert client.get("/").headers["X-Cache-Status"] == "MISS"
    clock.shift(fresh_for - 1)
    assert client.get("/").headers["X-Cache-Status"] == "HIT"
    clock.shift(2)
    with client.get("/") as answer:
        assert answer.headers["X-Cache-Status"] == "STALE"
    site.drain()
    assert client.get("/").text == "2"
    cache.purge(tag="rates")
    assert client.get("/").headers["X-Cache-Status"] == ("MISS" if inherit else "HIT")


def test_a_page_made_of_a_stale_response_is_stale_at_once(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=5, stale-while-revalidate=600")
    session = site.session()
    session.get(party.url())
    clock.shift(6)

    @site.app.get("/")
    @site.cache.cached(60, 600, 600)
    def page() -> str:
        return session.get(party.url()).text

    client = site.app.test_client()
    party.open.clear()
    with client.get("/") as answer:
        assert (answer.text, answer.headers["X-Cache-Status"]) == ("1", "MISS")
    with client.get("/") as answer:
        assert (answer.text, answer.headers["X-Cache-Status"]) == ("1", "STALE")
    party.open.set()
    site.drain()
    assert client.get("/").text in ("2", "3")


def test_a_fetch_function_takes_over_the_freshness(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=5")
    session = site.session()

    @site.cache.memoize(60, 0, 0)
    def rates() -> str:
        return session.get(party.url()).text

    assert [rates(), rates()] == ["1", "1"]
    clock.shift(6)
    assert rates() == "2"


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["session", "adapter"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_age": -1}, "max_age=-1"),
        ({"stale_if_error": "1h"}, "stale_if_error='1h'"),
        ({"ignored_parameters": "utm"}, "ignored_parameters='utm'"),
        ({"vary": "Accept"}, "vary='Accept'"),
        ({"vary": ["Cookie"]}, "names it in Vary"),
        ({"vary": ["Authorization"]}, "where the third party allows"),
        ({"statuses": {503: 1}}, "503"),
        ({"tags": "rates"}, "tags='rates'"),
        ({"tags": lambda: ()}, "tags="),
        ({"prefer_stale": lambda: True}, "prefer_stale="),
        ({"prefer_stale": 1}, "prefer_stale=1"),
        ({"wait": -1}, "wait=-1"),
        ({"lock_timeout": "x"}, "lock_timeout='x'"),
        ({"inherit": 1}, "inherit=1"),
        ({"adapter": object()}, "give an adapter of requests"),
        ({"max_agee": 1}, "the nearest is max_age"),
        ({"timeout": 1}, "a wait for the renewal is wait="),
        ({"refresh_ahead": 1}, "has no parameter 'refresh_ahead'"),
    ],
    ids=str,
)
def test_bad_input_is_refused_at_the_call(method: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(StaleCache(), method)(**given)
    assert said in str(caught.value)


def test_without_requests_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    real = builtins.__import__

    def refusing(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "requests":
            raise ModuleNotFoundError("No module named 'requests'", name="requests")
        return real(name, *args, **options)

    for name in ("sessions", "session_origin", "session_asked", "sending", "wire"):
        monkeypatch.delitem(sys.modules, f"flask_stalecache.{name}", raising=False)
    monkeypatch.delattr("flask_stalecache.sessions", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(ConfigError, match=r"pip install 'flask-stalecache\[requests\]'"):
        StaleCache().session()
