"""Other WSGI apps within ``app.wsgi_app`` answer: a gateway stores what says that it is for everybody, as in front of any app."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, request
from flask import Response as FlaskResponse
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Request, Response
from whitenoise import WhiteNoise

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import settle, visit
from support.flask_gateway import NOBODY, Fields, signed, site, who_by_session
from support.privacy import lines

ANN: Fields = {"Cookie": signed({"user": "ann"})}
BOB: Fields = {"Cookie": "who=bob"}
PUBLIC = "public, max-age=60"
SWR = f"{PUBLIC}, stale-while-revalidate=60"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
Wrap = Callable[[App], App]


class Layer:
    """A WSGI app that shows how often it was called, and answers with these fields.

    :ivar fields: the fields of its answers.
    :ivar etag: its validator, if it has one.
    """

    def __init__(self, fields: dict[str, str], status: int = 200, etag: str = "") -> None:
        self.fields, self.status, self.etag, self.calls = fields, status, etag, 0
        self.answers: list[int] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        asked = Request(environ)
        who = asked.cookies.get("who", "stranger") + environ.get("HTTP_COOKIE", "")[:0]
        response = Response(f"{who} {self.calls}", self.status, self.fields)
        if self.etag:
            response.set_etag(self.etag)
            response.make_conditional(asked)
        self.answers.append(response.status_code)
        return response(environ, start_response)


MakeSite = Callable[..., tuple[Flask, StaleCache]]


@pytest.fixture
def make_site(directory: Path) -> MakeSite:
    """Return a function that makes an app with a gateway. ``wrap`` is put within the gateway or, if ``late``, around it."""

    def make(wrap: Wrap, *, late: bool = False, gateway: Any = True, **config: Any) -> tuple[Flask, StaleCache]:
        app = Flask("shop")
        app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory, STALECACHE_GATEWAY=gateway, **config)
        site(lambda: FlaskResponse(who_by_session(), headers={"Cache-Control": PUBLIC}))(app)
        if not late:
            app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign, assignment]
        cache = StaleCache(app)
        if late:
            app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign, assignment]
        return app, cache

    return make


def at(layer: App, path: str = "/in") -> Wrap:
    return lambda app: DispatcherMiddleware(app, {path: layer})


def pages(app: Flask, path: str, *visitors: Fields) -> list[tuple[str, str]]:
    return [visit(app, path, each).page for each in visitors]


# -- WhiteNoise --------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    (root / "app.css").write_text("p {}")
    (root / "app.js").write_text("1" * 100)
    (root / "app.js.gz").write_bytes(b"zipped")
    return root


def noise(files: Path, **options: Any) -> Wrap:
    return lambda app: WhiteNoise(app, root=str(files), prefix="files/", **options)


def test_files_of_whitenoise_are_stored_for_everybody(make_site: MakeSite, files: Path) -> None:
    app, cache = make_site(noise(files))
    seen = [visit(app, "/files/app.css", each) for each in (ANN, NOBODY, ANN, BOB, {"If-None-Match": '"other"'})]
    assert [each.page for each in seen] == [("MISS", "p {}"), *[("HIT", "p {}")] * 4]
    assert {each.headers["Cache-Control"] for each in seen} == {"max-age=60, public"}
    same = visit(app, "/files/app.css", {**ANN, "If-None-Match": seen[1].headers["ETag"]})
    assert (same.status, same.word) == (304, "HIT")
    part = visit(app, "/files/app.css", {"Range": "bytes=0-0"})
    assert (part.status, part.text) == (206, "p")
    assert [word for word, _ in pages(app, "/", NOBODY, ANN, NOBODY)] == ["MISS", "BYPASS", "HIT"]
    with app.app_context():
        assert cache.purge("/files/app.css")
    assert [word for word, _ in pages(app, "/files/app.css", ANN, NOBODY)] == ["MISS", "HIT"]


def test_compressed_files_are_variants(make_site: MakeSite, files: Path) -> None:
    app, _ = make_site(noise(files))
    zipped = {"Accept-Encoding": "gzip"}
    seen = [visit(app, "/files/app.js", each) for each in (NOBODY, zipped, NOBODY, zipped)]
    assert [(each.word, each.body) for each in seen] == [
        ("MISS", b"1" * 100),
        ("MISS", b"zipped"),
        ("HIT", b"1" * 100),
        ("HIT", b"zipped"),
    ]


def test_a_file_without_freshness_is_not_stored(make_site: MakeSite, files: Path) -> None:
    app, _ = make_site(noise(files, max_age=None), gateway=[("/*", Policy(max_age=60))])
    assert [word for word, _ in pages(app, "/files/app.css", NOBODY, NOBODY, ANN)] == ["MISS"] * 3


def test_whitenoise_around_the_gateway_answers_itself(make_site: MakeSite, files: Path) -> None:
    app, _ = make_site(noise(files), late=True)
    assert pages(app, "/files/app.css", NOBODY, ANN) == [("", "p {}")] * 2
    assert [word for word, _ in pages(app, "/", NOBODY, NOBODY)] == ["MISS", "HIT"]


def test_a_file_is_confirmed_when_it_is_stale(make_site: MakeSite, files: Path, clock: time_machine.Traveller) -> None:
    app, cache = make_site(noise(files, autorefresh=True, max_age=60), STALECACHE_STALE_WHILE_REVALIDATE=60)
    first = visit(app, "/files/app.css")
    clock.shift(61)
    assert visit(app, "/files/app.css", ANN).page == ("STALE", "p {}")
    settle(app, cache)
    confirmed = visit(app, "/files/app.css", BOB)
    assert (confirmed.page, confirmed.headers["ETag"]) == (("HIT", "p {}"), first.headers["ETag"])
    (files / "app.css").write_text("a {b}")
    os.utime(files / "app.css", (1, 1))
    clock.shift(61)
    assert visit(app, "/files/app.css").page == ("STALE", "p {}")
    settle(app, cache)
    assert visit(app, "/files/app.css", ANN).page == ("HIT", "a {b}")


# -- a mounted app -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [PUBLIC, "s-maxage=60", "public, s-maxage=60, max-age=0"])
def test_a_mounted_app_that_says_public_is_stored(make_site: MakeSite, directory: Path, control: str) -> None:
    app, _ = make_site(at(Layer({"Cache-Control": control})))
    other = Flask("other")
    other.wsgi_app = GatewayCache(Layer({"Cache-Control": control}), dir=directory / "other")  # type: ignore[method-assign]
    for each in (app, other):
        path = "/in/a" if each is app else "/a"
        assert pages(each, path, ANN, NOBODY, BOB, ANN) == [("MISS", "stranger 1"), *[("HIT", "stranger 1")] * 3]


@pytest.mark.grid
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Cache-Control": "max-age=60"},
        {"Cache-Control": "private, max-age=60"},
        {"Cache-Control": "public"},
        {"Cache-Control": "public, no-store, max-age=60"},
        {"Cache-Control": PUBLIC, "Vary": "*"},
        {"Cache-Control": PUBLIC, "Set-Cookie": "basket=1"},
        {"Cache-Control": PUBLIC, "Age": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("gateway", [True, [("/*", Policy(max_age=60))]], ids=["fields", "a rule"])
def test_what_does_not_say_so_is_not_stored(make_site: MakeSite, fields: dict[str, str], gateway: Any) -> None:
    app, _ = make_site(at(Layer(fields)), gateway=gateway)
    seen = [visit(app, "/in/a", each) for each in (NOBODY, BOB, ANN, NOBODY)]
    assert [each.text for each in seen] == ["stranger 1", "bob 2", "stranger 3", "stranger 4"]
    assert "HIT" not in [each.word for each in seen]


@pytest.mark.parametrize("status", [401, 403, 407, 429])
def test_a_layer_that_refuses_one_visitor_refuses_no_other(make_site: MakeSite, status: int) -> None:
    def gate(app: App) -> App:
        closed = Layer({"Cache-Control": PUBLIC}, status)
        return lambda environ, start: (app if "HTTP_COOKIE" in environ else closed)(environ, start)

    app, _ = make_site(gate)
    assert [visit(app, "/", each).status for each in (NOBODY, BOB, NOBODY, BOB)] == [status, 200, status, 200]


def test_a_layer_around_the_gateway_is_not_its_business(make_site: MakeSite) -> None:
    app, _ = make_site(at(Layer({"Cache-Control": PUBLIC})), late=True)
    assert pages(app, "/in/a", NOBODY, BOB, NOBODY) == [("", "stranger 1"), ("", "bob 2"), ("", "stranger 3")]


def test_vary_of_a_mounted_app_makes_variants(make_site: MakeSite) -> None:
    app, _ = make_site(at(Layer({"Cache-Control": PUBLIC, "Vary": "Cookie"})))
    bob, nobody = ("HIT", "bob 1"), ("HIT", "stranger 2")
    assert pages(app, "/in/a", BOB, NOBODY, BOB, NOBODY)[2:] == [bob, nobody]


def test_a_mounted_app_confirms_and_changes_its_page(make_site: MakeSite, clock: time_machine.Traveller) -> None:
    layer = Layer({"Cache-Control": SWR}, etag="one")
    app, cache = make_site(at(layer))
    assert visit(app, "/in/a").page == ("MISS", "stranger 1")
    clock.shift(61)
    assert visit(app, "/in/a", BOB).page == ("STALE", "stranger 1")
    settle(app, cache)
    assert layer.answers == [200, 304]
    assert visit(app, "/in/a", ANN).page == ("HIT", "stranger 1")
    layer.etag = "two"
    clock.shift(61)
    visit(app, "/in/a", BOB)
    settle(app, cache)
    assert layer.answers == [200, 304, 200]
    assert visit(app, "/in/a", BOB).page == ("HIT", "stranger 3")


def test_a_confirmation_without_fields_is_one(make_site: MakeSite, clock: time_machine.Traveller) -> None:
    """A 304 may leave Cache-Control out: the stored one holds."""
    layer = Layer({"Cache-Control": SWR}, etag="one")
    app, cache = make_site(at(layer))
    visit(app, "/in/a")
    layer.fields = {}
    clock.shift(61)
    visit(app, "/in/a", BOB)
    settle(app, cache)
    assert layer.answers == [200, 304]
    assert visit(app, "/in/a", ANN).page == ("HIT", "stranger 1")


@pytest.mark.parametrize("control", ["private", "max-age=60", "no-store"])
def test_a_page_that_is_public_no_more_is_dropped(make_site: MakeSite, clock: time_machine.Traveller, control: str) -> None:
    layer = Layer({"Cache-Control": SWR})
    app, cache = make_site(at(layer))
    visit(app, "/in/a")
    layer.fields = {"Cache-Control": control}
    clock.shift(61)
    assert visit(app, "/in/a", BOB).word == "STALE"
    settle(app, cache)
    assert pages(app, "/in/a", BOB, NOBODY) == [("MISS", "bob 3"), ("MISS", "stranger 4")]


def test_a_gate_that_refuses_a_refresh_leaves_the_page(make_site: MakeSite, clock: time_machine.Traveller) -> None:
    """A layer in front of the app says nothing about a page that the app itself has made."""
    is_closed: list[int] = []

    def gate(app: App) -> App:
        closed = Layer({"Cache-Control": "private"}, 403)
        return lambda environ, start: (closed if is_closed else app)(environ, start)

    app, cache = make_site(gate, STALECACHE_STALE_WHILE_REVALIDATE=300)
    visit(app)
    is_closed.append(1)
    clock.shift(61)
    visit(app)
    settle(app, cache)
    seen = visit(app)
    assert (seen.status, seen.text) == (200, "hello stranger")


def test_a_layer_whose_answer_is_none_leaves_what_is_stored(make_site: MakeSite, clock: time_machine.Traveller) -> None:
    layer = Layer({"Cache-Control": f"{PUBLIC}, stale-if-error=60"})

    def failing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if layer.calls:
            start_response(200, [])
            return []
        return layer(environ, start_response)

    app, _ = make_site(at(failing))
    visit(app, "/in/a")
    clock.shift(61)
    assert visit(app, "/in/a", BOB).page == ("STALE", "stranger 1")


# -- a mounted Flask app -----------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["plain", "a cache without cached views", "cached", "gateway", "gateway=True"])
@pytest.mark.parametrize("copies", [False, True], ids=["mounted", "mounted with a copy"])
def test_a_mounted_flask_app_stores_its_own_pages(make_site: MakeSite, directory: Path, kind: str, copies: bool) -> None:
    inner, calls = Flask("inner"), []
    inner.config.update(STALECACHE_DIR=directory / "inner", STALECACHE_GATEWAY=kind == "gateway")
    own = StaleCache(None if kind == "plain" else inner)

    def page() -> FlaskResponse:
        calls.append(request.path)
        return FlaskResponse(f"page {len(calls)}", headers={"Cache-Control": PUBLIC})

    inner.add_url_rule("/a", "a", own.cached(60, gateway=kind == "gateway=True")(page) if kind == "cached" or "=" in kind else page)

    def copying(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return inner(dict(environ) if copies else environ, start_response)

    app, _ = make_site(at(copying))
    assert [text for _, text in pages(app, "/in/a", NOBODY, ANN, NOBODY)] == ["page 1"] * 3
    if kind not in ("plain", "a cache without cached views"):
        with inner.app_context():
            own.purge(all=True)
        assert [text for _, text in pages(app, "/in/a", NOBODY, ANN, NOBODY)] == ["page 2"] * 3


def test_a_view_of_the_app_is_judged_by_what_it_reads(make_site: MakeSite) -> None:
    """Also if the app fails: a hook raises for members, and the error handler answers with a page that says it is public."""
    app, _ = make_site(at(Layer({})))

    @app.after_request
    def broken(response: Any) -> Any:
        if "HTTP_COOKIE" in request.environ:
            raise LookupError("not for members")
        return response

    app.register_error_handler(500, lambda error: FlaskResponse("sorry", 200, {"Cache-Control": PUBLIC}))
    assert pages(app, "/", ANN, NOBODY)[0][1] == "sorry"
    assert pages(app, "/", NOBODY, ANN)[0][1] == "hello stranger"


def test_the_log_says_what_a_layer_may_write(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_site(at(Response("mounted", headers={"Cache-Control": "max-age=60"})))
    visit(app, "/in/a")
    (said,) = [line for line in lines(caplog) if "answered instead of the app" in line]
    assert "or let its answers say Cache-Control: public, max-age=" in said
