"""Conditions and ranges of what is not stored: answered from the response while the app makes it, later passed to the app."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, request, send_file
from werkzeug.http import http_date

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import MakeApp, settle
from support.clock import NOON
from support.wsgi_apps import App, Body, Got, ask, environ_for

BODY = bytes(range(256)) * 40
PRIVATE = ("Cache-Control", "private")
TAG = ("ETag", '"a"')
LENGTH = ("Content-Length", str(len(BODY)))


class Site:
    """An app that never looks at conditions or ranges itself, behind a gateway.

    :param fields: the fields of its page.
    :param size: bytes in a chunk of its body.
    """

    def __init__(self, folder: Path, *fields: tuple[str, str], size: int = 1000, status: str = "200 OK", **settings: Any) -> None:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            start_response(status, [*fields])
            chunks = [BODY[at : at + size] for at in range(0, len(BODY), size)]
            return Body(*([] if environ["REQUEST_METHOD"] == "HEAD" else chunks))

        self.app = App(answer)
        self.gateway = GatewayCache(self.app, dir=folder, **settings)

    def ask(self, **fields: str) -> Got:
        return ask(self.gateway, **{f"HTTP_{name.upper()}": value for name, value in fields.items()})

    @property
    def last(self) -> Body:
        body = self.app.bodies[-1]
        assert isinstance(body, Body)
        return body


def number(got: Got) -> int:
    return int(got.status[:3])


def field(got: Got, name: str) -> str | None:
    return next((value for other, value in got.fields if other.lower() == name.lower()), None)


# -- an app that answers no conditions -------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_control", ["private", "no-store", "max-age=60"])
@pytest.mark.parametrize("cookie", ["", "session=ann"])
def test_a_page_that_is_not_stored_is_confirmed(
    tmp_path: Path, clock: time_machine.Traveller, cache_control: str, cookie: str
) -> None:
    """To members and strangers."""
    site = Site(tmp_path, ("Cache-Control", cache_control), ("Set-Cookie", "seen=1"), TAG, LENGTH)
    for _ in range(3):
        got = site.ask(if_none_match='"a"', cookie=cookie)
        assert (number(got), got.body, field(got, "ETag"), field(got, "Set-Cookie")) == (304, b"", '"a"', "seen=1")
        assert field(got, "Cache-Control") == cache_control
        assert site.ask(if_none_match='"b"', cookie=cookie).body == BODY
        clock.shift(60)
    assert site.app.closed == [1] * site.app.calls


@pytest.mark.parametrize("length", [(LENGTH,), ()], ids=["of known size", "of unknown size"])
def test_a_stream_is_confirmed_without_being_read(tmp_path: Path, length: tuple[tuple[str, str], ...]) -> None:
    site = Site(tmp_path, ("Cache-Control", "no-store"), TAG, *length)
    assert number(site.ask(if_none_match='W/"a"')) == 304
    assert (site.last.asked, site.last.closed) == (0, 1)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("fields", "asked", "status", "content_range", "body"),
    [
        ((LENGTH,), {"range": "bytes=1500-2499"}, 206, f"bytes 1500-2499/{len(BODY)}", BODY[1500:2500]),
        ((LENGTH,), {"range": "bytes=-5"}, 206, f"bytes {len(BODY) - 5}-{len(BODY) - 1}/{len(BODY)}", BODY[-5:]),
        ((LENGTH,), {"range": "bytes=9000-"}, 206, f"bytes 9000-{len(BODY) - 1}/{len(BODY)}", BODY[9000:]),
        ((LENGTH,), {"range": "bytes=99999-"}, 416, f"bytes */{len(BODY)}", b""),
        ((LENGTH,), {"range": "bytes=0-1,5-6"}, 200, None, BODY),
        ((LENGTH,), {"range": "lines=0-1"}, 200, None, BODY),
        ((LENGTH, TAG), {"range": "bytes=0-1", "if_range": '"a"'}, 206, f"bytes 0-1/{len(BODY)}", BODY[:2]),
        ((LENGTH, TAG), {"range": "bytes=0-1", "if_range": '"b"'}, 200, None, BODY),
        ((LENGTH, ("ETag", 'W/"a"')), {"range": "bytes=0-1", "if_range": 'W/"a"'}, 200, None, BODY),
        ((LENGTH, TAG), {"range": "bytes=0-1", "if_none_match": '"a"'}, 304, None, b""),
        ((LENGTH, TAG), {"range": "bytes=0-1", "if_match": '"b"'}, 200, None, BODY),
        ((LENGTH, ("Accept-Ranges", "none")), {"range": "bytes=0-1"}, 200, None, BODY),
        ((LENGTH, ("Content-Encoding", "br")), {"range": "bytes=0-1"}, 206, f"bytes 0-1/{len(BODY)}", BODY[:2]),
        # Content-Length does not give the size of the whole.
        ((("Content-Length", "many"),), {"range": "bytes=0-1"}, 200, None, BODY),
    ],
)
@pytest.mark.parametrize("cache_control", ["no-store", "max-age=60"])
def test_a_range_is_cut_from_a_stream(
    tmp_path: Path, cache_control: str, fields: Any, asked: dict[str, str], status: int, content_range: str | None, body: bytes
) -> None:
    site = Site(tmp_path, ("Cache-Control", cache_control), *fields)
    for _ in range(2):
        got = site.ask(**asked)
        assert (number(got), got.body == body, field(got, "Content-Range")) == (status, True, content_range)
        assert field(got, "Content-Length") in ((str(len(body)), None) if status != 200 else (str(len(BODY)), None, "many"))
        assert field(got, "Content-Encoding") in (None, "br")
        site.gateway.drain(10)
    assert site.app.closed == [1] * site.app.calls


def test_a_stream_that_does_not_tell_its_size_is_sent_whole(tmp_path: Path) -> None:
    site = Site(tmp_path, ("Cache-Control", "max-age=60"))
    assert site.ask(range="bytes=0-1").page == ("MISS", BODY)
    assert site.ask(range="bytes=0-1").page == ("HIT", BODY[:2])


def test_what_comes_after_the_range_is_not_read(tmp_path: Path) -> None:
    site = Site(tmp_path, ("Cache-Control", "no-store"), LENGTH, size=100)
    assert site.ask(range="bytes=150-249").body == BODY[150:250]
    assert (site.last.asked, site.last.closed) == (3, 1)


class Film(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_what_comes_before_the_range_in_a_file_is_not_read(tmp_path: Path) -> None:
    """The end of a film of gigabytes, by an app that answers no ranges, such as Django's FileResponse."""
    films: list[Film] = []

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        films.append(Film(BODY * 100))
        start_response("200 OK", [PRIVATE, ("Content-Length", str(len(BODY) * 100))])
        return environ["wsgi.file_wrapper"](films[-1], 1000)

    gateway = GatewayCache(answer, dir=tmp_path)
    for asked, part in {"bytes=1000000-1000009": slice(1_000_000, 1_000_010), "bytes=-7": slice(-7, None)}.items():
        got = ask(gateway, HTTP_RANGE=asked)
        assert (number(got), got.body) == (206, (BODY * 100)[part])
        assert films[-1].taken <= 1000
        assert films[-1].closed


def test_a_client_that_leaves_within_its_range_closes_the_body(tmp_path: Path) -> None:
    site = Site(tmp_path, ("Cache-Control", "max-age=60"), LENGTH, size=100)
    body = site.gateway(environ_for(HTTP_RANGE="bytes=50-5000"), lambda *head: print)
    assert next(iter(body)) == BODY[50:100]
    body.close()  # type: ignore[attr-defined]
    assert site.app.bodies[0].closed == 1
    assert site.gateway.drain(10)
    assert site.ask().word == "HIT", "the rest is read in the background"


def test_nobody_waits_for_the_reader_of_a_part(tmp_path: Path) -> None:
    """The answer to a range never becomes the whole page that others wait for, however long its reader takes."""
    site = Site(tmp_path, ("Cache-Control", "max-age=60"), LENGTH, size=100, lock_timeout=3600)
    body = site.gateway(environ_for(HTTP_RANGE="bytes=50-5000"), lambda *head: print)
    assert next(iter(body)) == BODY[50:100]
    assert site.ask().body == BODY
    assert site.ask().page == ("HIT", BODY)
    assert site.app.bodies[0].closed == 0
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("asked", [{"range": "bytes=0-99"}, {"if_none_match": '"a"'}])
def test_what_could_be_stored_is_stored_in_the_background(tmp_path: Path, asked: dict[str, str]) -> None:
    """A player that only ever asks for parts must not call the app each time."""
    site = Site(tmp_path, ("Cache-Control", "max-age=60"), TAG, LENGTH)
    assert site.ask(**asked).word == "MISS"
    assert site.gateway.drain(10)
    assert site.ask(**asked).word == "HIT"
    assert site.ask().page == ("HIT", BODY)
    assert site.app.calls == 2


def test_a_range_up_to_the_end_is_stored_itself(tmp_path: Path) -> None:
    """As curl -C - and players ask."""
    site = Site(tmp_path, ("Cache-Control", "max-age=60"), LENGTH)
    assert site.ask(range="bytes=5000-").body == BODY[5000:]
    assert site.ask().page == ("HIT", BODY)
    assert site.app.calls == 1


def test_ranges_are_offered_on_what_can_be_cut(tmp_path: Path) -> None:
    def offers(*fields: tuple[str, str], status: str = "200 OK", folder: str, **more: str) -> list[str | None]:
        site = Site(tmp_path / folder, *fields, status=status)
        return [field(ask(site.gateway, **more), "Accept-Ranges") for _ in range(2)]

    fresh = ("Cache-Control", "max-age=60")
    assert offers(PRIVATE, LENGTH, folder="private") == ["bytes"] * 2
    assert offers(PRIVATE, LENGTH, folder="head", method="HEAD") == ["bytes"] * 2
    assert offers(fresh, LENGTH, folder="stored") == ["bytes"] * 2
    assert offers(fresh, folder="unknown size until it is stored") == [None, "bytes"]
    assert offers(PRIVATE, folder="unknown size") == [None, None]
    assert offers(fresh, LENGTH, ("Accept-Ranges", "none"), folder="refused") == ["none"] * 2
    assert offers(fresh, LENGTH, status="404 Not Found", folder="missing") == [None, None]


def test_a_date_that_the_app_does_not_give_confirms_nothing(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path, PRIVATE, LENGTH)
    assert site.ask(if_modified_since=http_date(NOON)).body == BODY
    dated = Site(tmp_path / "dated", PRIVATE, LENGTH, ("Last-Modified", http_date(NOON - 1000)))
    assert number(dated.ask(if_modified_since=http_date(NOON - 1000))) == 304


def test_a_list_needs_no_content_length(tmp_path: Path) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [PRIVATE])
        return [b"0123", b"456789"]

    gateway = GatewayCache(answer, dir=tmp_path)
    got = ask(gateway, HTTP_RANGE="bytes=2-5")
    assert (number(got), got.body, field(got, "Content-Range")) == (206, b"2345", "bytes 2-5/10")


# -- an app that answers them ----------------------------------------------------------------------------------------


class Able:
    """A Flask app with a private page and a large file, which answer conditions and ranges. It notes its statuses."""

    def __init__(self, make_app: MakeApp, folder: Path, **settings: Any) -> None:
        self.path = folder / "film"
        self.path.write_bytes(BODY * 100)
        self.says = "private, max-age=0"
        self.served: list[int] = []
        self.settings = {"GATEWAY": True, "MAX_ENTRY_SIZE": 500_000, **settings}
        self.make_app = make_app
        self.app, self.cache = self.worker()

    def worker(self) -> tuple[Flask, StaleCache]:
        """Return the app as another worker has it, with the same store."""
        app, cache = self.make_app(**self.settings)
        app.add_url_rule("/page", "page", self.page)
        app.add_url_rule("/film", "film", lambda: send_file(self.path, mimetype="video/mp4", max_age=60))
        app.after_request(self.note)
        return app, cache

    def page(self) -> Response:
        response = Response(BODY, headers={"Cache-Control": self.says})
        response.set_etag("a")
        return response.make_conditional(request)  # type: ignore[return-value]

    def note(self, response: Response) -> Response:
        self.served.append(response.status_code)
        return response

    def visit(self, path: str, app: Flask | None = None, **fields: str) -> tuple[int, bytes]:
        with (app or self.app).test_client().get(path, headers={n.replace("_", "-"): v for n, v in fields.items()}) as got:
            return got.status_code, got.data


@pytest.fixture
def able(make_app: MakeApp, tmp_path: Path, clock: time_machine.Traveller) -> Able:
    return Able(make_app, tmp_path)


def test_a_private_page_is_rendered_once_however_long_it_is_polled(able: Able, clock: time_machine.Traveller) -> None:
    """By one browser each minute, through two workers."""
    apps = [able.app, able.worker()[0]]
    for turn in range(8):
        assert able.visit("/page", apps[turn % 2], If_None_Match='"a"') == (304, b"")
        clock.shift(60)
    assert able.served == [200, *[304] * 7]


def test_ranges_of_a_large_file_are_the_apps(able: Able, clock: time_machine.Traveller) -> None:
    apps = [able.app, able.worker()[0]]
    for turn in range(60):
        start = turn * 100
        part = able.visit("/film", apps[turn % 2], Range=f"bytes={start}-{start + 99}")
        assert part == (206, (BODY * 100)[start : start + 100])
        clock.shift(2)
    assert able.served == [200, *[206] * 59]


def test_a_confirmation_does_not_tell_that_a_large_file_is_small(able: Able, clock: time_machine.Traveller) -> None:
    with able.app.test_client().get("/film") as got:
        tag = got.headers["ETag"]
    for _ in range(4):
        clock.shift(60)
        assert able.visit("/film", If_None_Match=tag) == (304, b"")
        able.visit("/film", Range="bytes=0-0")
    assert able.served == [200, *[304, 206] * 4]


def test_a_page_that_has_become_storable_is_stored(able: Able, clock: time_machine.Traveller) -> None:
    """Browsers only revalidate the page that they have, but their 304s say that it may be stored now."""
    able.visit("/page", If_None_Match='"a"')
    able.says = "max-age=600"
    for _ in range(4):
        clock.shift(60)
        assert able.visit("/page", If_None_Match='"a"') == (304, b"")
    assert able.served == [200, 304, 200]


def test_a_file_that_has_become_small_is_stored(able: Able, clock: time_machine.Traveller) -> None:
    able.visit("/film", Range="bytes=0-9")
    able.path.write_bytes(BODY)
    for _ in range(4):
        clock.shift(20)
        assert able.visit("/film", Range="bytes=0-9") == (206, BODY[:10])
        settle(able.app, able.cache)
    assert able.visit("/film") == (200, BODY)
    assert able.served == [200, 206, 200, 200], "one for the visitor, one for the store"


def test_members_and_strangers_of_a_private_page(able: Able, clock: time_machine.Traveller) -> None:
    """A member's answer says nothing about the page of strangers."""
    for _ in range(3):
        for cookie in ("", "session=ann"):
            assert able.visit("/page", Cookie=cookie, If_None_Match='"a"') == (304, b"")
        clock.shift(60)
    assert able.served.count(200) == 1


@pytest.mark.parametrize("status", [206, 416])
def test_what_is_a_part_already_is_passed_on(tmp_path: Path, status: int) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(f"{status} Yes", [("Content-Range", "bytes 5-6/10"), PRIVATE, TAG])
        return [b"56"]

    gateway = GatewayCache(answer, dir=tmp_path)
    for asked in ({"HTTP_RANGE": "bytes=0-0"}, {"HTTP_IF_NONE_MATCH": '"a"'}):
        got = ask(gateway, **asked)
        assert (number(got), got.body, field(got, "Content-Range")) == (status, b"56", "bytes 5-6/10")


def test_views_that_are_not_the_gateways_are_left_alone(make_app: MakeApp) -> None:
    app, cache = make_app()
    plain: Callable[[], Response] = lambda: Response(BODY, headers=dict([TAG]))  # noqa: E731
    app.add_url_rule("/plain", "plain", plain)
    app.add_url_rule("/coded", "coded", cache.cached(60, gateway=True)(lambda: Response(BODY, headers=dict([TAG, PRIVATE]))))
    with app.test_client() as client:
        for asked, status in (({"Range": "bytes=0-1"}, 206), ({"If-None-Match": '"a"'}, 304)):
            got = client.get("/plain", headers=asked)
            assert (got.status_code, got.data, got.headers.get("Accept-Ranges")) == (200, BODY, None)
            assert client.get("/coded", headers=asked).status_code == status


def test_a_rule_stores_a_page_again_whose_visitors_all_have_it(tmp_path: Path, clock: time_machine.Traveller) -> None:
    """A CDN in front that confirms its copy: one redirect must not keep the page out of the store for ever."""
    calls = []

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ.get("HTTP_IF_NONE_MATCH"))
        if len(calls) == 1:
            start_response("302 Found", [("Location", "/soon")])
        elif calls[-1] == '"a"':
            start_response("304 Not Modified", [TAG])
        else:
            start_response("200 OK", [TAG])
        return []

    gateway = GatewayCache(answer, dir=tmp_path, rules={"/*": Policy(max_age=600, jitter=0)})
    seen = []
    for _ in range(6):
        seen.append(ask(gateway, HTTP_IF_NONE_MATCH='"a"').word)
        clock.shift(5)
    assert calls == [None, '"a"', '"a"', None]
    assert seen == ["MISS"] * 4 + ["HIT"] * 2


@pytest.mark.parametrize("bare", [[], [TAG]], ids=["without any field", "with its ETag alone"])
def test_a_304_that_tells_nothing_changes_nothing(tmp_path: Path, clock: time_machine.Traveller, bare: Any) -> None:
    calls = []

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ.get("HTTP_IF_NONE_MATCH"))
        if calls[-1]:
            start_response("304 Not Modified", bare)
            return []
        start_response("200 OK", [PRIVATE, TAG])
        return [BODY]

    gateway = GatewayCache(answer, dir=tmp_path, max_age=60)
    for _ in range(4):
        assert number(ask(gateway, HTTP_IF_NONE_MATCH='"a"')) == 304
        ask(gateway, method="HEAD", HTTP_IF_NONE_MATCH='"a"')
        clock.shift(60)
    assert calls == [None] + ['"a"'] * 7
