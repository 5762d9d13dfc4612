"""Sessions: a shared HTTP cache between the app and third parties, against a real server in this process.

Covers ``frontends.requests_adapter.adapter``, ``frontends.requests_adapter.origin``, ``frontends.requests_adapter.url_key``,
``frontends.requests_adapter.fetch`` and ``frontends.requests_adapter.request``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from support.clock import NOON
from support.third_party import Site, ThirdParty, status
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
    assert (answer.text, status(answer)) == ("another body", "EXPIRED"), "what was stored is kept for failures"


def test_a_get_with_a_body_goes_past_the_store(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    assert [status(session.get(party.url(), data="query")) for _ in range(2)] == ["BYPASS"] * 2
