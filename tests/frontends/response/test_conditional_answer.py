"""Conditions and ranges of cached views are answered from what is sent, whatever hooks and middleware do to it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import flask_compress
import pytest
import time_machine
from flask import Blueprint, Flask, Response, after_this_request, make_response, request, send_file
from flask.views import MethodView
from werkzeug.http import http_date

from flask_stalecache import StaleCache
from support.client import MakeApp, Seen, visit
from support.clock import NOON

#: 10 kB that compress well, each part unlike the others.
PAGE = "".join(f"{number:04} " for number in range(2000))
SIZE = len(PAGE)
TAG = '"page"'
MODIFIED = http_date(NOON - 1000)
CODINGS = ["gzip", "br", "zstd", "deflate"]


def whole(app: Flask, headers: dict[str, str], path: str = "/") -> Seen:
    """Return the whole page, as a visitor with these fields gets it without range and conditions."""
    without = {name: value for name, value in headers.items() if not name.startswith(("Range", "If-"))}
    return visit(app, path, without)


def assert_is_part(seen: Seen, page: Seen, asked: str) -> None:
    """Assert that an answer is the requested part of exactly the page that others get as a whole."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    size = len(page.body)
    part = slice(int(first), int(last) + 1) if last and first else slice(int(first), size) if first else slice(-int(last), size)
    start, stop, _ = part.indices(size)
    assert (seen.status, seen.headers["Content-Range"]) == (206, f"bytes {start}-{stop - 1}/{size}")
    assert (seen.headers["Content-Length"], seen.body) == (str(stop - start), page.body[part])
    assert [seen.headers.get(name) for name in ("ETag", "Content-Encoding")] == [
        page.headers.get(name) for name in ("ETag", "Content-Encoding")
    ]


# -- with Flask-Compress -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["view", "behind the gateway", "of the gateway"])
def compressed(request: pytest.FixtureRequest, make_app: MakeApp, clock: time_machine.Traveller) -> Flask:
    """A cached page, with Flask-Compress."""
    app, cache = make_app(GATEWAY=request.param == "behind the gateway")
    flask_compress.Compress(app)

    @app.get("/")
    @cache.cached(60, gateway=request.param == "of the gateway")
    def page() -> Response:
        response = make_response(PAGE)
        response.set_etag("page")
        response.headers["Last-Modified"] = MODIFIED
        return response

    return app


@pytest.mark.grid
@pytest.mark.parametrize("coding", [*CODINGS, "identity"])
def test_a_range_is_one_of_what_is_sent(compressed: Flask, coding: str) -> None:
    accepts = {"Accept-Encoding": coding}
    for asked in ("bytes=0-999", "bytes=7-", "bytes=-9"):
        seen, page = visit(compressed, "/", {**accepts, "Range": asked}), whole(compressed, accepts)
        assert page.headers.get("Content-Encoding") == (None if coding == "identity" else coding)
        size = len(page.body)
        assert_is_part(seen, page, asked.replace("999", str(min(999, size - 1))))


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_range_depends_on_the_etag_that_was_sent(compressed: Flask, coding: str) -> None:
    accepts = {"Accept-Encoding": coding}
    page = whole(compressed, accepts)
    tag = page.headers["ETag"]
    for if_range in (tag, MODIFIED):
        assert_is_part(visit(compressed, "/", {**accepts, "Range": "bytes=1-9", "If-Range": if_range}), page, "bytes=1-9")
    other = TAG if coding == "gzip" else '"page:gzip"'
    for if_range in (other, f"W/{tag}", http_date(NOON)):
        seen = visit(compressed, "/", {**accepts, "Range": "bytes=1-9", "If-Range": if_range})
        assert (seen.status, seen.body) == (200, page.body)


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_whoever_has_the_page_is_told_so(compressed: Flask, coding: str) -> None:
    accepts = {"Accept-Encoding": coding}
    tag = whole(compressed, accepts).headers["ETag"]
    for fields in ({"If-None-Match": tag}, {"If-None-Match": tag, "Range": "bytes=0-9"}, {"If-Modified-Since": MODIFIED}):
        for method in ("GET", "HEAD"):
            seen = visit(compressed, "/", {**accepts, **fields}, method=method)
            assert (seen.status, seen.body) == (304, b"")
            assert not {"Content-Encoding", "Content-Length", "Content-Range"} & set(seen.headers.keys())
    assert visit(compressed, "/", {**accepts, "If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_what_is_no_single_range_of_the_page(compressed: Flask, coding: str) -> None:
    accepts = {"Accept-Encoding": coding}
    page = whole(compressed, accepts)
    size = len(page.body)
    for asked in ("bytes=0-1,4-5", "bytes=4-2", "lines=0-1"):
        assert visit(compressed, "/", {**accepts, "Range": asked}).body == page.body
    seen = visit(compressed, "/", {**accepts, "Range": f"bytes={size}-"})
    assert (seen.status, seen.headers["Content-Range"], seen.body) == (416, f"bytes */{size}", b"")
    assert not {"ETag", "Content-Encoding"} & set(seen.headers.keys())
    head = visit(compressed, "/", {**accepts, "Range": "bytes=0-1"}, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Accept-Ranges"] == page.headers["Accept-Ranges"] == "bytes"


# -- with other hooks and middleware -----------------------------------------------------------------------------------


def signed(response: Response) -> Response:
    """Change the body, but not the entity tag."""
    response.set_data(response.get_data() + b" signed")
    return response


def replaced(response: Response) -> Response:
    return Response(gzip.compress(response.get_data(), mtime=0), headers={"Content-Encoding": "gzip"})


def streamed(response: Response) -> Response:
    chunks = [response.get_data(), b" signed"]
    response.headers.pop("Content-Length", None)
    response.response = (chunk for chunk in chunks)
    return response


def weakened(response: Response) -> Response:
    response.set_etag(response.get_etag()[0] or "", weak=True)
    return replaced(response)


@pytest.mark.grid
@pytest.mark.parametrize("where", ["app", "blueprint", "after_this_request"])
@pytest.mark.parametrize("change", [signed, replaced, streamed, weakened])
def test_what_was_changed_without_another_etag_is_sent_whole(
    make_app: MakeApp, where: str, change: Callable[[Response], Response]
) -> None:
    app, cache = make_app()
    pages = Blueprint("pages", "pages")
    pages.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE))
    if where == "app":
        app.after_request(change)
    elif where == "blueprint":
        pages.after_request(change)
    else:
        app.before_request(lambda: after_this_request(change) and None)
    app.register_blueprint(pages)
    for _ in range(2):
        seen = visit(app, "/", {"Range": "bytes=0-9"})
        assert (seen.status, "Content-Range" in seen.headers) == (200, False)
        assert seen.body == whole(app, {}).body


class Gzip:
    """Middleware that compresses all answers, as a generator that calls the app when its first chunk is asked for."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        sent: list[Any] = []
        body: Iterable[bytes] = self.app(environ, lambda status, headers, exc_info=None: sent.extend((status, headers)))
        text = gzip.compress(b"".join(body), mtime=0)
        fields = [(name, value) for name, value in sent[1] if name.lower() not in ("content-length", "etag")]
        start_response(sent[0], [*fields, ("Content-Encoding", "gzip"), ("ETag", '"page:gz"'), ("Content-Length", str(len(text)))])
        yield text[:5]
        yield text[5:]
        getattr(body, "close", lambda: None)()


def test_middleware_within_the_cache_is_given_the_whole(tmp_path: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    app.wsgi_app = Gzip(app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/", "page", StaleCache(app).cached(60)(lambda: PAGE))
    page = whole(app, {})
    assert gzip.decompress(page.body).decode() == PAGE
    for asked in ("bytes=0-3", "bytes=3-9", "bytes=-9"):
        assert_is_part(visit(app, "/", {"Range": asked}), page, asked)
    assert visit(app, "/", {"Range": "bytes=9999-"}).status == 416
    seen = visit(app, "/", {"If-None-Match": '"page:gz"'})
    assert (seen.status, seen.body) == (304, b"")


def test_a_view_that_calls_a_cached_one_gets_the_whole_of_it(make_app: MakeApp) -> None:
    app, cache = make_app()
    inner = cache.cached(60)(lambda: make_response(PAGE))

    @app.get("/")
    def outer() -> str:
        return "outer " + inner().get_data(as_text=True)

    tag = f'"{inner_tag(app, inner)}"'
    for fields in ({"Range": "bytes=0-9"}, {"If-None-Match": tag}, {"If-None-Match": "*"}, {"If-Modified-Since": http_date(2e9)}):
        for _ in range(2):
            assert visit(app, "/", fields).text == f"outer {PAGE}"


def test_a_view_that_returns_the_page_of_a_cached_one_answers_as_that(make_app: MakeApp) -> None:
    app, cache = make_app()
    inner = cache.cached(60)(lambda: make_response(PAGE))
    app.add_url_rule("/", "page", lambda: inner())
    assert visit(app, "/", {"If-None-Match": visit(app).headers["ETag"]}).status == 304
    assert visit(app, "/", {"Range": "bytes=0-3"}).text == PAGE[:4]


def inner_tag(app: Flask, inner: Callable[[], Response]) -> str:
    with app.test_request_context("/"):
        return inner().get_etag()[0] or ""


def test_the_methods_of_a_class_answer_alike(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()

    class Page(MethodView):
        @cache.cached(60)
        def get(self) -> str:
            return PAGE

    app.add_url_rule("/", view_func=Page.as_view("page"))
    tag = visit(app).headers["ETag"]
    seen = [visit(app, "/", fields).status for fields in ({"If-None-Match": tag}, {"If-Modified-Since": http_date(NOON)})]
    assert seen == [304, 304]
    assert visit(app, "/", {"Range": "bytes=0-3"}).text == PAGE[:4]


# -- what is not stored ------------------------------------------------------------------------------------------------


def private(**fields: str) -> Callable[[], Response]:
    def view() -> Response:
        response = make_response(f"for {request.cookies.get('name', 'strangers')}: {PAGE}")
        response.headers.update({"Cache-Control": "private", **{name.replace("_", "-"): value for name, value in fields.items()}})
        response.set_cookie("seen", "1")
        return response

    return view


MEMBER = {"Cookie": "name=ada"}


@pytest.mark.parametrize("headers", [{}, MEMBER, {"Authorization": "Bearer ada"}], ids=["stranger", "member", "authorized"])
@pytest.mark.parametrize("policy", [{}, {"unless": lambda: True}], ids=["stored", "bypassed"])
def test_whoever_has_a_page_that_is_not_stored_is_told_so(
    make_app: MakeApp, clock: time_machine.Traveller, headers: dict[str, str], policy: dict[str, Any]
) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, **policy)(private(ETag=TAG, Last_Modified=MODIFIED)))
    for fields in ({"If-None-Match": TAG}, {"If-None-Match": f'"other", W/{TAG}'}, {"If-Modified-Since": MODIFIED}):
        seen = visit(app, "/", {**headers, **fields})
        assert (seen.status, seen.body, seen.headers["ETag"]) == (304, b"", TAG)
        assert (seen.headers["Cache-Control"], seen.headers["Set-Cookie"]) == ("private", "seen=1; Path=/")
        assert not {"Content-Length", "Content-Type"} & set(seen.headers.keys())
        assert visit(app, "/", {**headers, **fields}, method="HEAD").status == 304
    for fields in ({"If-None-Match": '"other"'}, {"If-Modified-Since": http_date(NOON - 2000)}, {"Range": "bytes=0-9"}):
        seen = visit(app, "/", {**headers, **fields})
        assert (seen.status, seen.text.endswith(PAGE)) == (200, True)


def test_without_validators_there_is_nothing_to_confirm(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(private()))
    for fields in ({"If-None-Match": TAG}, {"If-Modified-Since": http_date(NOON + 9)}):
        assert visit(app, "/", fields).status == 200


def test_a_nonce_of_the_policy_is_sent_with_its_body(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(private(ETag=TAG)))

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = f"script-src 'nonce-{id(response)}'"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    seen = visit(app, "/", {"If-None-Match": TAG})
    assert (seen.status, seen.headers["X-Frame-Options"], "Content-Security-Policy" in seen.headers) == (304, "DENY", False)


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        Counting.read_bytes += len(data)
        return data


@pytest.mark.parametrize("compresses", [False, True])
def test_a_file_that_is_not_stored(make_app: MakeApp, clock: time_machine.Traveller, compresses: bool) -> None:
    app, cache = make_app()
    if compresses:
        flask_compress.Compress(app)
    film = bytes(range(256)) * 4096

    def view() -> Response:
        response = send_file(Counting(film), mimetype="text/plain", etag="film", last_modified=NOON - 1000)
        response.content_length = len(film)
        response.headers["Cache-Control"] = "private"
        return response

    app.add_url_rule("/", "film", cache.cached(60)(view))
    for asked in ("bytes=0-999", f"bytes={len(film) - 9}-", "bytes=-9"):
        Counting.read_bytes = 0
        seen, page = visit(app, "/", {"Range": asked}), visit(app)
        assert_is_part(seen, page, asked)
        assert page.body == film
        assert Counting.read_bytes < len(film) + 70_000
    assert visit(app).headers["Accept-Ranges"] == "bytes"
    assert visit(app, "/", {"If-None-Match": visit(app).headers["ETag"]}).status == 304
    assert visit(app, "/", {"Range": f"bytes={len(film)}-"}).status == 416
    if compresses:
        seen = visit(app, "/", {"Range": "bytes=0-999", "Accept-Encoding": "br"})
        assert (seen.status, "Content-Range" in seen.headers) == (200, False)


def test_a_view_that_accepts_no_ranges(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: (PAGE, {"Accept-Ranges": "none"})))
    for _ in range(2):
        seen = visit(app, "/", {"Range": "bytes=0-9"})
        assert (seen.status, seen.headers["Accept-Ranges"], seen.text) == (200, "none", PAGE)
