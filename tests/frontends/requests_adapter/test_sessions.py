"""Sessions: a shared HTTP cache between the app and third parties, against a real server in this process."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine
from flask import Flask
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from flask_stalecache import ConfigError, StaleCache
from support.clock import NOON
from support.engine import named
from support.processes import workers
from support.rude_server import HEAD, Rude, rude
from support.third_party import Site, ThirdParty, outcome, status
from support.threads import wait_until

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
    assert first.headers["Cache-Status"] == "edge; hit, stalecache; fwd=uri-miss; fwd-status=200; ttl=55; stored"
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
    assert second.headers["Age"] == "0"
    assert party.asked[0].port == party.last.port, "the connection is used again"
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
    party.says("Cache-Control: no-cache", 'ETag: "three"')
    answer = session.get(party.url())
    assert (answer.text, party.last.headers["If-None-Match"]) == ("4", '"two"')
    assert "If-None-Match" not in answer.request.headers, "the caller has not said it"
    assert len({asked.port for asked in party.asked}) == 1, "the connection is used again"


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


def test_requests_with_authorization_do_not_wait_for_each_other(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    party.open.clear()

    def ask(_: int) -> int:
        with site.app.app_context():
            return session.get(party.url(), auth=("me", "secret")).status_code

    with ThreadPoolExecutor(3) as pool:
        asked = pool.map(ask, range(3))
        wait_until(lambda: party.calls == 3, "all of them")
        party.open.set()
        assert list(asked) == [200] * 3


def test_no_secret_of_a_key_is_on_the_disk(party: ThirdParty, site: Site, directory: Path) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session(vary=["X-Api-Key"], ignored_parameters=["key"])
    session.get(party.url("/?key=hunter2"), headers={"X-Api-Key": "hunter2", "X-Other": "hunter2"})
    files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    assert any(b"127.0.0.1" in data for data in files)
    assert not any(b"hunter2" in data for data in files)


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
    assert not list(directory.glob("names/*"))


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
    answer = session.get(party.url())
    assert (answer.text, status(answer)) == ("another body", "MISS"), "what was stored is known to be another"


def test_a_get_with_a_body_goes_past_the_store(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    assert [status(session.get(party.url(), data="query")) for _ in range(2)] == ["BYPASS"] * 2


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
    ids=named,
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

    for name in ("adapter", "origin", "fetch", "request", "response"):
        monkeypatch.delitem(sys.modules, f"flask_stalecache.frontends.requests_adapter.{name}", raising=False)
    monkeypatch.delattr("flask_stalecache.frontends.requests_adapter.adapter", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(ConfigError, match=r"pip install 'flask-stalecache\[requests\]'"):
        StaleCache().session()
