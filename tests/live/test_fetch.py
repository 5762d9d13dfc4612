"""Fetch functions on real servers: a third party that hangs, fails or dies does not take the site with it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from flask_stalecache import OriginSuspended, StaleCache
from support.rude_server import HEAD, Rude, rude
from support.servers import PATIENCE, Gate, crowd, serving, wait_for

pytestmark = pytest.mark.server

SOURCE = """
import os, threading
import requests
from flask import Flask
from flask_stalecache import StaleCache

cache = StaleCache()

@cache.memoize(max_age=float(os.environ["MAX_AGE"]), stale_while_revalidate=600, stale_if_error=6000, jitter=0,
               wait=float(os.environ["WAIT"]) or None, fallback="fallback", max_concurrency=2)
def ask(base: str) -> str:
    return requests.get(os.environ["GATE"]).text

app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
cache.init_app(app)

@app.get("/")
def page():
    return ask("EUR")

@app.get("/of/<base>")
def of(base):
    return ask(base)

@app.get("/other")
def other():
    return str(threading.active_count())
"""


@contextmanager
def site(
    kind: str, folder: Path, gate: Gate, *, wait: float, max_age: float = 600, workers: int = 2, **more: object
) -> Iterator[object]:
    env = {"GATE": gate.url, "CACHE": folder / "cache", "WAIT": wait, "MAX_AGE": max_age}
    with serving(kind, SOURCE, folder, env=env, workers=workers, **more) as server:
        yield server


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_many_cold_callers_over_processes_make_one_call(kind: str, tmp_path: Path) -> None:
    with Gate() as gate, site(kind, tmp_path, gate, wait=0, threads=50) as server:
        gate.hold()
        with crowd(server, 100) as asked:  # type: ignore[arg-type]
            wait_for(lambda: gate.open == 1, what="the call")
            gate.release()
            assert {future.result(PATIENCE).text for future in asked} == {"1"}
        assert gate.calls == 1


def test_one_that_hangs_leaves_the_site_alone(tmp_path: Path) -> None:
    with Gate() as gate, site("sync", tmp_path, gate, wait=0.2, workers=4) as server:
        gate.hold()
        for number in range(40):
            assert server.get(f"/of/{number % 10}").text == "fallback"  # type: ignore[attr-defined]
        assert gate.open <= 8, "two calls in each of four processes"
        assert {int(server.get("/other").text) <= 6 for _ in range(20)} == {True}  # type: ignore[attr-defined]
        gate.answer("back")
        gate.release()
        wait_for(lambda: server.get("/of/3").text == "back", what="it is back")  # type: ignore[attr-defined]


def test_a_stale_value_is_renewed_once_by_all_processes(tmp_path: Path) -> None:
    with Gate() as gate, site("sync", tmp_path, gate, wait=0, max_age=0.01) as server:
        assert server.get("/").text == "1"  # type: ignore[attr-defined]
        gate.hold(after=1)
        wait_for(lambda: server.get("/").text == "1" and gate.open == 1, what="it is renewed")  # type: ignore[attr-defined]
        assert {answer.text for answer in server.get_at_once(20)} == {"1"}  # type: ignore[attr-defined]
        assert gate.calls == 2
        gate.release()


# -- real servers misbehaving ----------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(lambda: Rude(HEAD + b"Content-Length: 100\r\n\r\nhalf", reset=True), id="resets in mid-body"),
        pytest.param(lambda: Rude(HEAD + b"Content-Length: 100\r\n\r\nhalf"), id="half of Content-Length"),
        pytest.param(lambda: Rude(b"\0\1\2 nonsense\r\n\r\n"), id="invalid status line"),
        pytest.param(lambda: Rude(HEAD + b"Content-Length: many\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="invalid chunks"),
        pytest.param(lambda: Rude(HEAD + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n"), id="a field of 100 kB"),
        pytest.param(lambda: Rude(HEAD + b"X-Many: 1\r\n" * 200 + b"\r\n"), id="200 fields"),
        pytest.param(lambda: Rude(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), id="two lengths"),
        pytest.param(lambda: Rude(rude("200 OK", "Content-Encoding: gzip", body=b"none")), id="no gzip"),
        pytest.param(lambda: Rude(b""), id="closes at once"),
        pytest.param(lambda: Rude(rude("500 Oh")), id="500"),
        pytest.param(lambda: Rude(rude("503 Oh", "Retry-After: 100")), id="503"),
        pytest.param(lambda: Rude(rude("429 Slowly", "Retry-After: 100")), id="429"),
        pytest.param(lambda: Rude(rude("302 Found", "Location: /again")), id="redirect loop"),
        pytest.param(lambda: Rude(HEAD + b"\r\n", drip=True), id="drips"),
        pytest.param(lambda: None, id="refuses"),
    ],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stale", "cold"])
def test_a_misbehaving_third_party(
    server: Callable[[], Rude | None], stored: bool, make_app: Callable[..., tuple[Flask, StaleCache]]
) -> None:
    made = server()
    url = "http://127.0.0.1:9/" if made is None else made.url
    app, cache = make_app(REFRESH_BACKOFF=(100, 100))
    is_good = [stored]

    @cache.memoize(max_age=0, stale_while_revalidate=0, stale_if_error=6000, wait=20, fallback="fallback")
    def ask() -> str:
        if is_good[0]:
            return "stored"
        with requests.get(url, timeout=5, stream=True) as response:
            response.raise_for_status()
            until = time.monotonic() + 0.5
            parts = []
            for part in response.iter_content(10):
                parts.append(part)
                if time.monotonic() > until:
                    raise TimeoutError("it drips")
            return b"".join(parts).decode()

    with app.app_context():
        if stored:
            assert ask() == "stored"
        is_good[0] = False
        assert [ask() for _ in range(5)] == ["stored" if stored else "fallback"] * 5
        assert cache.drain(30)
    if made is not None:
        with closing(made):
            assert made.calls <= 31, "one attempt; the loop follows thirty times"


@pytest.mark.parametrize(("status", "silent"), [("429 Slowly", 100), ("503 Oh", 100), ("500 Oh", 0)])
def test_retry_after_is_kept_where_nothing_is_stored(
    status: str, silent: int, make_app: Callable[..., tuple[Flask, StaleCache]]
) -> None:
    app, cache = make_app()
    with closing(Rude(rude(status, "Retry-After: 100"))) as server, app.app_context():

        @cache.memoize()
        def ask() -> requests.Response:
            return requests.get(server.url, timeout=5)

        first = ask()
        assert first.status_code == int(status[:3])
        if silent:
            with pytest.raises(OriginSuspended, match="not called again"):
                ask()
            assert server.calls == 1
        else:
            ask()
            assert server.calls == 2


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_that_there_is_none_is_an_answer(status: str, make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, cache = make_app()
    with closing(Rude(rude(status, body=b"none"))) as server, app.app_context():

        @cache.memoize()
        def ask() -> requests.Response:
            return requests.get(server.url, timeout=5)

        answers = [ask() for _ in range(3)]
        assert {(answer.status_code, answer.text) for answer in answers} == {(int(status[:3]), "none")}
        assert server.calls == 1


@pytest.mark.grid
@pytest.mark.parametrize(
    ("fields", "body", "text"),
    [
        (["Content-Type: text/plain; charset=nonsense"], b"\xe9", "\ufffd"),
        (["Content-Type: text/plain; charset=utf-8"], b"caf\xe9", "caf\ufffd"),
        (["Content-Type: text/plain; charset=latin-1"], "\u20ac".encode(), "\xe2\x82\xac"),
        (["Content-Type: text/plain; charset=latin-1"], b"\xe9", "é"),
        (["Content-Encoding: gzip"], gzip.compress(b"0" * 1_000_000), "0" * 1_000_000),
        (["Content-Type: text/plain", "Bad Field: x"], b"text", "text"),
        (["Content-Type: text/plain", "no field at all"], b"text", "text"),
        (["Content-Type: text/plain", "X-Odd: a\0b"], b"text", "text"),
        (["Content-Type: text/plain", "X-Odd: \xe9\xff"], b"text", "text"),
        (["Content-Type: text/plain", "X-Odd: a", " b"], b"text", "text"),
        (["Content-Type: text/plain", "X-Odd: a", "X-Odd: b"], b"text", "text"),
    ],
    ids=[
        "charset",
        "utf-8 that is none",
        "latin-1 that is none",
        "latin-1",
        "bomb",
        "name",
        "no colon",
        "NUL",
        "bytes",
        "folded",
        "twice",
    ],
)
@pytest.mark.parametrize("wait", [None, 20])
def test_odd_answers_come_back(
    fields: list[str], body: bytes, text: str, wait: float | None, make_app: Callable[..., tuple[Flask, StaleCache]]
) -> None:
    app, cache = make_app()
    with closing(Rude(rude("200 OK", *fields, body=body))) as server, app.app_context():

        @cache.memoize(wait=wait)
        def ask() -> requests.Response:
            return requests.get(server.url, timeout=5)

        @cache.memoize(wait=wait)
        def ask_text() -> str:
            return requests.get(server.url, timeout=5).text

        first, second = ask(), ask()
        assert first.text == second.text == text
        assert (first.content, first.headers, first.encoding) == (second.content, second.headers, second.encoding)
        assert [ask_text(), ask_text()] == [text, text]
        assert server.calls == 2


def big_bytes(response: requests.Response) -> bytes:
    return response.content


def big_response(response: requests.Response) -> requests.Response:
    return response


@pytest.mark.grid
@pytest.mark.parametrize("made", [big_bytes, big_response])
@pytest.mark.parametrize(
    ("head", "zeros"),
    [
        (HEAD + b"Content-Length: 30000000\r\n\r\n", 30_000_000),
        (rude("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(30_000_000), 1)), 0),
    ],
    ids=["30 MB", "30 MB in a bomb"],
)
def test_a_body_over_the_limit_is_returned_and_not_stored(
    head: bytes,
    zeros: int,
    made: Callable[[requests.Response], Any],
    make_app: Callable[..., tuple[Flask, StaleCache]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, cache = make_app()
    with closing(Rude(head, zeros=zeros)) as server, app.app_context():

        @cache.memoize(wait=20)
        def ask():  # type: ignore[no-untyped-def]
            return made(requests.get(server.url, timeout=5))

        for number in (1, 2):
            answer = ask()
            body = answer if made is big_bytes else answer.content
            assert (len(body), body.strip(b"\0")) == (30_000_000, b"")
            assert server.calls == number
        assert ask.peek() is None
        assert caplog.text.count("STALECACHE_MAX_ENTRY_SIZE") == 1


def test_one_that_drips_keeps_its_callers_no_longer_than_they_wait(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, cache = make_app()
    with closing(Rude(HEAD + b"\r\nx", drip=True)) as server, app.app_context():

        @cache.memoize(wait=0, fallback="fallback", max_concurrency=2)
        def ask(base: str) -> str:
            # Each byte restarts the timeout, so that the call never ends.
            return requests.get(server.url, timeout=20).text

        for number in range(20):
            assert ask(f"{number % 4}") == "fallback"
            wait_for(lambda number=number: server.calls >= min(2, number + 1), what="it was asked")
        assert server.calls == 2
        assert not cache.drain(0)
        server.ends.set()
        assert cache.drain(30)
        assert [set(ask("0")), set(ask("1"))] == [{"x"}, {"x"}]
        assert server.calls == 2
