"""Sessions: stale answers, and one request for many callers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
import time_machine
from flask import Flask

from flask_stalecache import StaleCache
from support.processes import workers
from support.rude_server import HEAD, Rude, rude
from support.third_party import Site, ThirdParty, outcome, status
from support.threads import wait_until

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


@pytest.mark.grid
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


def test_a_timeout_is_a_failure(party: ThirdParty, site: Site) -> None:
    party.says()
    session = site.session(0, 0, 6000)
    session.get(party.url())
    party.open.clear()
    assert [session.get(party.url(), timeout=0.5).text for _ in range(3)] == ["1"] * 3
    assert party.calls == 2
    with pytest.raises(requests.ReadTimeout):
        session.get(party.url("/other"), timeout=0.5)


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


def test_must_revalidate_binds_the_callers_stale_if_error(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, must-revalidate", body="1")
    session = site.session()
    session.get(party.url())
    clock.shift(61)
    party.says(status=503)
    assert session.get(party.url(), headers={"Cache-Control": "stale-if-error=50"}).status_code == 503


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
        wait_until(lambda: party.calls == 1, "the request")
        party.open.set()
        assert list(asked) == [(503, "down")] * 10
    assert party.calls < 10


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
