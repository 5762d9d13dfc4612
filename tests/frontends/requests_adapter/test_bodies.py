"""Responses of sessions: what callers read of them is what they would read without a cache.

Covers ``frontends.requests_adapter.response``.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from contextlib import closing

import pytest
import requests

from flask_stalecache.frontends.requests_adapter.response import Late, read_whole
from support.rude_server import HEAD, Rude, rude
from support.third_party import Site, ThirdParty, outcome, status

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


@pytest.mark.grid
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
                # How much of a chunked body one raw read returns is up to urllib3.
                read = READERS["raw decoded"]
            expected = read(plain.get(url, stream=stream))
            assert [read(session.get(url, stream=stream)) for _ in range(2)] == [expected] * 2, name
            session.get(url)
            hit = session.get(url, stream=stream)
            assert (read(hit), hit.from_cache) == (expected, True), name  # type: ignore[attr-defined]
            hit.close()


def test_what_hooks_see(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60", chunked=True)
    session, seen = site.session(), []
    session.hooks["response"].append(lambda response, **kwargs: seen.append((status(response), response.elapsed is not None)))
    for _ in range(3):
        answer = session.get(party.url())
        assert not answer.raw.chunked
        answer.headers["X-Cache-Status"] = "changed"
        assert "X-Own" not in answer.raw.headers
        answer.raw.headers["X-Own"] = "changed"
    assert seen == [("MISS", True), ("HIT", True), ("HIT", True)]
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


@pytest.mark.grid
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
        with requests.Session() as plain:
            plain.trust_env = False
            assert outcome(session, server.url, stream=True) == outcome(plain, server.url, stream=True)
        outcome(session, server.url)
        assert server.calls == 3


def test_a_refresh_that_never_ends_is_given_up(make_site: Callable[..., Site]) -> None:
    site = make_site(REFRESH_DEADLINE=0.3)
    with closing(Rude(rude("200 OK", body=b"1"))) as server:
        session = site.session(0, 600)
        session.get(server.url)
        server.data, server.drip = HEAD + b"\r\n", True
        assert session.get(server.url).text == "1"
        site.drain()
        assert session.get(server.url).text == "1"


def test_nothing_is_read_past_its_time() -> None:
    with closing(Rude(HEAD + b"\r\n", drip=True)) as server, requests.Session() as plain:
        plain.trust_env = False
        with pytest.raises(Late):
            read_whole(plain.get(server.url, stream=True), 1_000_000, time.monotonic())
