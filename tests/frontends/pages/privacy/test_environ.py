"""Privacy: reads of a request past its fields and cookies: the environ, the address, attributes, C code.

Covers ``frontends.observation.observed_values``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, current_app, g, render_template_string, request
from werkzeug.utils import environ_property
from werkzeug.wrappers import Request as PlainRequest
from werkzeug.wsgi import get_current_url, get_host

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.privacy import ANN, BOB, NOBODY, Fields, lines, play, shown

CAROL = {"REMOTE_ADDR": "198.51.100.4"}
DAVE = {"REMOTE_ADDR": "203.0.113.9"}


def made_of(environ: Any) -> PlainRequest:
    return PlainRequest(environ)


#: Ways to read one field past the recorder of fields.
FIELD: dict[str, Callable[[], object]] = {
    "environ.get": lambda: request.environ.get("HTTP_X_USER"),
    "environ[]": lambda: request.environ["HTTP_X_USER"] if "HTTP_X_USER" in request.environ else "-",  # noqa: SIM401
    "environ.pop": lambda: request.environ.pop("HTTP_X_USER", "-"),
    "headers.environ": lambda: request.headers.environ.get("HTTP_X_USER"),
    "environ.copy": lambda: request.environ.copy().get("HTTP_X_USER"),
    "werkzeug.request": lambda: request.environ["werkzeug.request"].headers.get("X-User"),
    "vars": lambda: vars(request)["environ"].get("HTTP_X_USER"),
    "__dict__": lambda: request.__dict__["environ"].get("HTTP_X_USER"),
    "object": lambda: vars(request._get_current_object())["environ"].get("HTTP_X_USER"),  # type: ignore[attr-defined]
    "vars-headers": lambda: vars(request.headers)["environ"].get("HTTP_X_USER"),
    "template": lambda: render_template_string("{{ request.environ.HTTP_X_USER }}"),
    "headers-in": lambda: "X-User" in request.headers,
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("name", FIELD)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_a_field_in_the_environ_is_an_absent_name(make_app: MakeApp, name: str, where: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        if where == "hook":
            app.before_request(lambda: setattr(g, "read", f"{FIELD[name]()!s}"))
        shown(lambda: f"for {FIELD[name]()!s}" if where == "view" else f"for {g.read}")(app, cache)

    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]
    # Another site, so that nothing is stored yet.
    ann, bob, nobody = ({**who, "Host": "other"} for who in (ANN, BOB, NOBODY))
    assert play(make_app, build, ann, bob, nobody, ann) == ["MISS", "MISS", "MISS", "BYPASS"]


def from_environ_property() -> object:
    class Mine(PlainRequest):
        address = environ_property[str]("REMOTE_ADDR")

    return Mine(request.environ).address


#: Ways to read the visitor's address, or what else only the server knows of a visitor.
ADDRESS: dict[str, Callable[[], object]] = {
    "remote_addr": lambda: request.remote_addr,
    "access_route": lambda: request.access_route,
    "environ": lambda: request.environ.get("REMOTE_ADDR"),
    "headers.environ": lambda: request.headers.environ["REMOTE_ADDR"],
    "vars": lambda: vars(request)["environ"]["REMOTE_ADDR"],
    "dict.get": lambda: dict.get(request.environ, "REMOTE_ADDR"),
    "another-request": lambda: made_of(request.environ).remote_addr,
    "property": from_environ_property,
    "template": lambda: render_template_string("{{ request.remote_addr }}"),
    "all": lambda: dict(request.environ)["REMOTE_ADDR"],
    "unpacked": lambda: {**request.environ}["REMOTE_ADDR"],
    "items": lambda: dict(request.environ.items())["REMOTE_ADDR"],
    "dict.items": lambda: dict(dict.items(request.environ))["REMOTE_ADDR"],
    "dict.copy": lambda: dict.copy(request.environ)["REMOTE_ADDR"],
    "port": lambda: request.environ.get("REMOTE_PORT"),
    "certificate": lambda: request.environ.get("SSL_CLIENT_S_DN"),
    "server": lambda: request.environ["SERVER_PORT"],
    "request.server": lambda: request.server,
    "middleware": lambda: request.environ.get("shop.user"),
}


@pytest.mark.grid
@pytest.mark.parametrize("name", ADDRESS)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_what_the_server_knows_of_a_visitor_is_not_shared(make_app: MakeApp, name: str, where: str) -> None:
    app, cache = make_app()
    if where == "hook":
        app.before_request(lambda: setattr(g, "read", f"{ADDRESS[name]()!s}"))
    shown(lambda: f"for {ADDRESS[name]()!s}" if where == "view" else f"for {g.read}")(app, cache)
    own = {"REMOTE_PORT": "4711", "SSL_CLIENT_S_DN": "CN=carol", "shop.user": "carol", "SERVER_PORT": "81"}
    carol = visit(app, environ={**CAROL, **own})
    dave = visit(app, environ={**DAVE, **dict.fromkeys(own, "5")})
    assert (carol.word, dave.word) == ("MISS", "MISS")
    assert carol.text != dave.text


def test_a_variable_that_is_absent_is_an_absent_name(make_app: MakeApp) -> None:
    """For example, one that middleware sets for members only."""
    app, cache = make_app()
    shown(lambda: f"hello {request.environ.get('shop.user', 'stranger')}")(app, cache)
    said = [visit(app, environ=environ).page for environ in ({}, {"shop.user": "ann"}, {}, {"shop.user": "bob"})]
    assert said == [("MISS", "hello stranger"), ("BYPASS", "hello ann"), ("HIT", "hello stranger"), ("BYPASS", "hello bob")]


def test_a_key_may_cover_the_address(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"net {(request.remote_addr or '')[:3]}", key=lambda: (request.remote_addr or "")[:3])(app, cache)
    said = [visit(app, environ=who).page for who in (CAROL, {"REMOTE_ADDR": "198.51.100.200"}, DAVE, DAVE)]
    assert said == [("MISS", "net 198"), ("HIT", "net 198"), ("MISS", "net 203"), ("HIT", "net 203")]


def test_a_read_of_the_address_is_named_with_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    shown(lambda: f"for {request.remote_addr}")(app, cache)
    assert [visit(app, environ=who).word for who in (CAROL, DAVE, CAROL)] == ["MISS"] * 3
    (line,) = lines(caplog)
    for part in ("REMOTE_ADDR", f"read by {__name__}", "key=", f"{__name__!r}: ['REMOTE_ADDR']", "STALECACHE_IGNORED_READERS"):
        assert part in line


def test_a_reader_that_is_exempt_for_the_address_is_exempt_for_nothing_else(make_app: MakeApp) -> None:
    app, cache = make_app(IGNORED_READERS={__name__: ["REMOTE_ADDR"]})
    shown(lambda: f"page {bool(request.remote_addr)} {request.environ.get('HTTP_X_USER')}")(app, cache)
    said = [visit(app, "/", fields, environ=who).word for fields, who in ((NOBODY, CAROL), (NOBODY, DAVE), (ANN, CAROL))]
    assert said == ["MISS", "HIT", "BYPASS"]


def test_the_attributes_of_headers_show_nothing_unrecorded(make_app: MakeApp) -> None:
    assert "HIT" not in play(make_app, shown(lambda: f"{'ann' in repr(vars(request.headers))}"), ANN, BOB, NOBODY, ANN)


@pytest.mark.parametrize("read", [lambda: get_host(request.environ), lambda: get_current_url(request.environ)])
def test_werkzeugs_functions_for_hosts_and_urls_read_what_is_in_the_key(make_app: MakeApp, read: Callable[[], str]) -> None:
    app, cache = make_app()
    shown(lambda: f"at {read()}")(app, cache)
    said = [visit(app, "/", {"Host": host}, environ=who).page[0] for host, who in (("a", CAROL), ("a", DAVE), ("b", DAVE))]
    assert said == ["MISS", "HIT", "MISS"]


# -- C code --------------------------------------------------------------------------------------------------------------


#: Reads of a cookie that call no method of the request's.
BY_C: dict[str, Callable[[], object]] = {
    "dict.get": lambda: dict.get(request.cookies, "user"),
    "dict.[]": lambda: dict.__getitem__(request.cookies, "user") if dict.__contains__(request.cookies, "user") else None,
    "dict.in": lambda: dict.__contains__(request.cookies, "user"),
    "dict.items": lambda: sorted(dict.items(request.cookies)),
    "dict.values": lambda: list(dict.values(request.cookies)),
    "dict.keys": lambda: sorted(dict.keys(request.cookies)),
    "dict.copy": lambda: sorted(dict.copy(request.cookies).items()),
    "dict.iter": lambda: list(dict.__iter__(request.cookies)),
    "dict.eq": lambda: dict.__eq__(request.cookies, {"user": ["ann"]}),
    "vars": lambda: sorted(vars(request.cookies)),
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("name", BY_C)
@pytest.mark.parametrize("order", [(NOBODY, ANN, BOB, NOBODY), (ANN, BOB, NOBODY, ANN)], ids=["stranger", "member"])
def test_c_code_that_reads_cookies_is_seen(make_app: MakeApp, name: str, order: tuple[Fields, ...]) -> None:
    """A visitor without any cookie may get the page of another visitor without any."""
    said = play(make_app, shown(lambda: f"{BY_C[name]()!s}"), *order)
    assert "HIT" not in said[:3]
    assert (said[3] == "HIT") is (order[0] is order[3] is NOBODY)


def test_what_c_code_finds_by_name_is_seen_beside_other_reads(make_app: MakeApp) -> None:
    def view() -> str:
        cookies = request.cookies
        cookies.get("theme")
        return f"{dict.get(cookies, 'user')}"

    assert "HIT" not in play(make_app, shown(view), ANN, BOB, {**ANN, "X-More": "1"})


@pytest.mark.parametrize("read", [lambda: dict.get(request.args, "ref"), lambda: list(dict.items(request.args))])
def test_c_code_that_reads_ignored_parameters_is_seen(make_app: MakeApp, read: Callable[[], object]) -> None:
    app, cache = make_app(IGNORED_PARAMETERS=["ref"])
    shown(lambda: f"{read()}")(app, cache)
    assert [visit(app, path).word for path in ("/?ref=a", "/?ref=b", "/?ref=a")] == ["MISS"] * 3


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.cookies.get("lang", request.cookies.get("language")),
        lambda: [request.cookies.get(name) for name in ("a", "b")],
        lambda: (lambda cookies: (cookies.get("a"), cookies.get("b")))(request.cookies),
        lambda: request.cookies["lang"] if "lang" in request.cookies else None,  # noqa: SIM401
        lambda: request.environ.get("HTTP_A", request.environ.get("HTTP_B")),
    ],
    ids=["nested", "several", "kept", "subscript", "environ"],
)
def test_what_is_read_by_name_is_not_taken_for_c_code(make_app: MakeApp, read: Callable[[], object]) -> None:
    assert play(make_app, shown(lambda: f"{read()}"), NOBODY, NOBODY) == ["MISS", "HIT"]


# -- attributes ----------------------------------------------------------------------------------------------------------


FORM: dict[str, Callable[[], object]] = {
    "want_form_data_parsed": lambda: request.want_form_data_parsed,
    "form": lambda: (request.form.get("a"), request.want_form_data_parsed),
    "files": lambda: request.files.get("a"),
    "json": lambda: request.get_json(silent=True),
}


@pytest.mark.parametrize("name", FORM)
def test_the_parsing_of_a_body_depends_on_its_content_type(make_app: MakeApp, name: str) -> None:
    fields = {"Content-Type": "application/x-www-form-urlencoded"}
    assert play(make_app, shown(lambda: f"{FORM[name]()}"), NOBODY, fields, NOBODY) == ["MISS", "BYPASS", "HIT"]


#: Attributes that the key has, or that say nothing of a visitor.
HARMLESS = (
    "base_url", "blueprint", "endpoint", "host", "host_url", "is_multiprocess", "is_multithread", "is_run_once", "is_secure",
    "method", "path", "root_path", "root_url", "routing_exception", "scheme", "script_root", "url", "url_root", "view_args",
    "full_path", "query_string", "max_content_length", "input_stream", "stream", "data",
)  # fmt: skip


def test_what_is_in_the_key_or_the_same_for_all_counts_not(make_app: MakeApp) -> None:
    def view() -> str:
        return f"{[bool(getattr(request, name)) for name in HARMLESS]} {request.get_data()!r} {request.environ['wsgi.version']}"

    app, cache = make_app()
    shown(view)(app, cache)
    assert [visit(app, environ=who).word for who in (CAROL, DAVE)] == ["MISS", "HIT"]


def test_every_attribute_of_a_request_is_recorded_or_says_nothing_of_its_visitor(make_app: MakeApp) -> None:
    """An attribute that a later Werkzeug adds fails here until it is looked at."""
    app, cache = make_app()
    names = [name for name in dir(Request) if not name.startswith("_") and not callable(getattr(Request, name))]

    def view(name: str) -> str:
        return f"{getattr(request, name)!r} {current_app.name}"

    app.add_url_rule("/<name>", "page", cache.cached(60)(view))
    one = {
        "Accept": "a/b", "Accept-Charset": "a", "Accept-Encoding": "a", "Accept-Language": "a", "Authorization": "Basic YTpi",
        "Cache-Control": "no-cache", "Content-Encoding": "a", "Content-MD5": "a", "Content-Type": "a/b", "Cookie": "a=b",
        "Date": "Tue, 15 Nov 1994 08:12:31 GMT", "Max-Forwards": "3", "Origin": "http://a.test", "Pragma": "a",
        "Referer": "http://a.test", "User-Agent": "a", "X-Forwarded-For": "198.51.100.1", "X-User": "a",
        "Access-Control-Request-Headers": "X-A", "Access-Control-Request-Method": "PUT", "If-None-Match": '"a"',
    }  # fmt: skip
    other = {**CAROL, "REMOTE_PORT": "5", "SERVER_PORT": "80", "AUTH_TYPE": "Basic"}
    for name in names:
        # First, a visitor without anything fills the page, as a refresh would. Then one who carries everything comes; and once more
        # with another port in the key, so that the page is made for them.
        visit(app, f"/{name}")
        with_all = visit(app, f"/{name}", one, environ=other)
        plain = visit(app, f"/{name}", {**one, "X-Forwarded-Port": "1"}, environ=other)
        if with_all.word == "HIT":
            assert with_all.text.partition(" object at ")[0] == plain.text.partition(" object at ")[0], name


def test_a_request_class_of_the_apps_own_reads_the_environ_through_ours(directory: Path) -> None:
    class Mine(Request):
        user = environ_property[str]("HTTP_X_USER", "-")

        @property
        def address(self) -> str:
            return str(self.environ.get("REMOTE_ADDR"))

    app = Flask("shop")
    app.request_class = Mine
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)
    app.add_url_rule("/user", "user", cache.cached(60)(lambda: f"for {request.user}"))  # type: ignore[attr-defined]
    app.add_url_rule("/address", "address", cache.cached(60)(lambda: f"for {request.address}"))  # type: ignore[attr-defined]
    assert [visit(app, "/user", who).page for who in (NOBODY, ANN, NOBODY)] == [
        ("MISS", "for -"),
        ("BYPASS", "for ann"),
        ("HIT", "for -"),
    ]
    assert [visit(app, "/address", environ=who).word for who in (CAROL, DAVE)] == ["MISS", "MISS"]


def test_a_request_class_that_reads_its_constructors_argument_is_seen(directory: Path) -> None:
    class Mine(Request):
        def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            super().__init__(environ, *args, **kwargs)
            self.user = environ.get("HTTP_X_USER", "-")

    class Quiet(Request):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.user = "-"

    words = {}
    for kind in (Mine, Quiet):
        app = Flask("shop")
        app.request_class = kind
        app.config["STALECACHE_DIR"] = directory / kind.__name__
        cache = StaleCache(app)
        app.add_url_rule("/", "user", cache.cached(60)(lambda: f"for {request.user}"))  # type: ignore[attr-defined]
        words[kind] = [visit(app, "/", who).page for who in (NOBODY, ANN, NOBODY)]
    assert words[Mine] == [("MISS", "for -"), ("BYPASS", "for ann"), ("HIT", "for -")]
    assert words[Quiet] == [("MISS", "for -"), ("HIT", "for -"), ("HIT", "for -")]


def test_an_address_that_the_app_sets_is_what_it_reads(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.before_request(lambda: setattr(request, "remote_addr", "192.0.2.99"))
    shown(lambda: f"for {request.remote_addr}")(app, cache)
    assert visit(app, environ=CAROL).text == "for 192.0.2.99"


def test_writes_to_the_environ_reach_the_request(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.before_request(lambda: request.environ.update(HTTP_X_ADDED="1"))
    shown(lambda: f"{request.headers.get('X-Added')} {request.environ['HTTP_X_ADDED']}")(app, cache)
    assert visit(app).text == "1 1"
