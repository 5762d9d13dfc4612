"""Privacy: reading all fields, the query, and inputs that are exempt."""

from __future__ import annotations

import json
import operator
import pickle
import types
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Flask,
    g,
    jsonify,
    render_template_string,
    request,
    session,
    url_for,
)
from werkzeug.datastructures import MultiDict

from flask_stalecache import StaleCache
from support.client import MakeApp, visit, words
from support.privacy import ANN, BOB, NOBODY, Fields, View, as_member, cookie_of, lines, play, shown, with_session

# -- rule 4: as a whole ------------------------------------------------------------------------------------------------


def matched() -> str:
    match request.cookies:
        case {"user": str(name)}:
            return name
        case _:
            return "-"


WHOLE: dict[str, Callable[[], object]] = {
    "iter-cookies": lambda: sorted(request.cookies),
    "for-cookies": lambda: [request.cookies[name] for name in request.cookies],
    "dict(cookies)": lambda: dict(request.cookies),
    "{**cookies}": lambda: {**request.cookies},
    "f(**cookies)": lambda: (lambda **kw: kw)(**request.cookies),
    "len(cookies)": lambda: len(request.cookies),
    "bool(cookies)": lambda: bool(request.cookies),
    "cookies==": lambda: request.cookies == {},
    "==cookies": lambda: operator.eq({"user": "ann"}, request.cookies),
    "cookies!=": lambda: request.cookies != {},
    "cookies|": lambda: dict(request.cookies | {"a": "b"}),
    "|cookies": lambda: {"a": "b"} | request.cookies,
    "update(cookies)": lambda: (lambda d: (d.update(request.cookies), d))({"a": "b"}),
    "cookies.keys": lambda: list(request.cookies.keys()),
    "cookies.values": lambda: list(request.cookies.values()),
    "cookies.items": lambda: list(request.cookies.items()),
    "cookies.lists": lambda: list(request.cookies.lists()),
    "cookies.listvalues": lambda: list(request.cookies.listvalues()),
    "cookies.to_dict": lambda: request.cookies.to_dict(),
    "cookies.copy": lambda: dict(request.cookies.copy()),
    "copy(cookies)": lambda: dict(copy(request.cookies)),
    "deepcopy(cookies)": lambda: dict(deepcopy(request.cookies)),
    "reversed(cookies)": lambda: list(reversed(request.cookies)),
    "repr(cookies)": lambda: repr(request.cookies).partition("(")[2],
    "json.dumps(cookies)": lambda: json.dumps(request.cookies),
    "jsonify(cookies)": lambda: jsonify(request.cookies).get_data(as_text=True),
    "tojson": lambda: render_template_string("{{ request.cookies|tojson }}"),
    "json-indented": lambda: json.dumps(request.cookies, indent=1),
    "set(cookies)": lambda: sorted(set(request.cookies)),
    "|=cookies": lambda: sorted({"a"} | set(request.cookies)),
    "fromkeys(cookies)": lambda: dict.fromkeys(request.cookies, 1),
    "match-cookies": matched,
    "template-loop": lambda: render_template_string("{% for name in request.cookies %}{{ name }},{% endfor %}"),
    "template-if": lambda: render_template_string("{% if request.cookies %}member{% endif %}"),
    "template-length": lambda: render_template_string("{{ request.cookies|length }}"),
    "iter-headers": lambda: sorted(request.headers),
    "dict(headers)": lambda: sorted(dict(request.headers)),
    "len(headers)": lambda: len(request.headers),
    "headers.keys": lambda: sorted(request.headers.keys()),
    "headers.values": lambda: sorted(request.headers.values()),
    "headers.items": lambda: sorted(request.headers.items()),
    "headers.items-lower": lambda: sorted(request.headers.items(lower=True)),
    "str(headers)": lambda: str(request.headers),
    "repr(headers)": lambda: repr(request.headers).partition("(")[2],
    "to_wsgi_list": lambda: sorted(request.headers.to_wsgi_list()),
    "json-headers": lambda: json.dumps(dict(request.headers)),
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("strangers_first", [True, False])
@pytest.mark.parametrize("where", ["view", "hook"])
def test_a_page_that_goes_through_all_fields_or_cookies_is_for_those_without_any(
    make_app: MakeApp, where: str, strangers_first: bool, name: str
) -> None:
    """It is not stored if it goes through all fields: every request has some."""
    if where == "view":
        build = shown(lambda: f"{WHOLE[name]()!s}")
    else:

        def build(app: Flask, cache: StaleCache) -> None:
            @app.before_request
            def load() -> None:
                g.read = f"{WHOLE[name]()!s}"

            shown(lambda: g.read)(app, cache)

    expected = ["MISS", "BYPASS", "BYPASS", "HIT"] if strangers_first else ["MISS", "MISS", "BYPASS", "HIT"]
    if "headers" in name or name == "to_wsgi_list":
        expected = ["MISS"] * 4
    visitors = (NOBODY, ANN, BOB, NOBODY) if strangers_first else (ANN, NOBODY, BOB, NOBODY)
    assert play(make_app, build, *visitors) == expected


@pytest.mark.parametrize(
    "use",
    [
        lambda: hash(request.args) == hash(request.args),
        lambda: pickle.loads(pickle.dumps(request.args)) == MultiDict(request.args),
        lambda: pickle.loads(pickle.dumps(request.cookies)) == MultiDict(request.cookies),
        lambda: deepcopy(request.args) == MultiDict(request.args),
        lambda: isinstance(request.args, MultiDict),
        lambda: request.args == request.args and operator.ne(request.args, request.args) is False,
        lambda: request.args == MultiDict(request.args) and MultiDict(request.args) == request.args,
        lambda: request.args != request.cookies and request.cookies != request.args,
        lambda: sorted(request.args.items(multi=True)) == [("a", "1"), ("a", "2"), ("b", "3")],
        lambda: type(request.args)([("c", "4")])["c"] == "4",
        lambda: request.headers == request.headers,
    ],
    ids=[
        "hash",
        "pickle",
        "pickle-cookies",
        "deepcopy",
        "isinstance",
        "equal",
        "equal-plain",
        "unequal",
        "multi",
        "same-type",
        "headers",
    ],
)
def test_what_worked_with_a_request_still_works(make_app: MakeApp, use: Callable[[], object]) -> None:
    """In a view of the app that has nothing to do with the cache."""
    app, _ = make_app()
    app.add_url_rule("/", "page", lambda: f"{use()}")
    assert visit(app, "/?a=1&a=2&b=3", ANN).text == "True"


# -- rule 4: the query -------------------------------------------------------------------------------------------------


def parameter_by_subscript() -> str:
    try:
        return request.args["utm_source"]
    except KeyError:
        return "-"


QUERY: dict[str, Callable[[], object]] = {
    "args.get": lambda: request.args.get("utm_source"),
    "args[]": parameter_by_subscript,
    "in-args": lambda: "utm_source" in request.args,
    "args.getlist": lambda: request.args.getlist("utm_source"),
    "args.to_dict": lambda: request.args.to_dict(),
    "dict(args)": lambda: dict(request.args),
    "args.items": lambda: list(request.args.items()),
    "len(args)": lambda: len(request.args),
    "bool(args)": lambda: bool(request.args),
    "args==": lambda: request.args == {},
    "json.dumps(args)": lambda: json.dumps(request.args),
    "values.get": lambda: request.values.get("utm_source"),
    "in-values": lambda: "utm_source" in request.values,
    "dict(values)": lambda: request.values.to_dict(),
    "len(values)": lambda: len(request.values),
    "url": lambda: request.url,
    "full_path": lambda: request.full_path,
    "query_string": lambda: request.query_string,
    "template": lambda: render_template_string("{{ request.args.utm_source }}"),
    "url_for": lambda: url_for("page", **request.args),
}

TAGGED, OTHER, BARE = "/?utm_source=ann", "/?utm_source=bob", "/"


@pytest.mark.grid
@pytest.mark.parametrize("name", QUERY)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_a_page_that_reads_an_ignored_parameter_is_not_stored(make_app: MakeApp, name: str, where: str) -> None:
    """A page made for a query with such a parameter is shown to nobody else. Without one, pages are cached as usual."""
    app, cache = make_app(IGNORED_PARAMETERS=["utm_*"])
    if where == "hook":
        app.before_request(lambda: setattr(g, "read", f"{QUERY[name]()!s}"))
    shown(lambda: f"{QUERY[name]()!s}" if where == "view" else g.read)(app, cache)
    plain, off = make_app(ENABLED=False)
    shown(lambda: f"{QUERY[name]()!s}")(plain, off)
    said = []
    for path in (TAGGED, OTHER, BARE, BARE):
        seen = visit(app, path)
        assert seen.text == visit(plain, path).text
        said.append(seen.word)
    assert said == ["MISS", "MISS", "MISS", "HIT"]


@pytest.mark.parametrize("name", QUERY)
def test_a_page_that_reads_the_query_without_an_ignored_parameter_is_stored(make_app: MakeApp, name: str) -> None:
    app, cache = make_app()
    shown(lambda: f"{QUERY[name]()!s}", ignored_parameters=["ref"])(app, cache)
    paths = ("/?utm_source=ann", "/?utm_source=bob", "/?utm_source=ann", "/?utm_source=bob")
    assert [visit(app, path).word for path in paths] == ["MISS", "MISS", "HIT", "HIT"]


def test_reading_another_parameter_than_the_ignored_one_is_stored(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"page {request.args.get('n')} {request.args.get('utm_campaign')}", ignored_parameters=["utm_*"])(app, cache)
    said = [visit(app, path).page for path in ("/?n=1&utm_source=ann", "/?utm_source=bob&n=1", "/?n=2")]
    assert said == [("MISS", "page 1 None"), ("HIT", "page 1 None"), ("MISS", "page 2 None")]


def test_the_path_and_the_endpoint_say_nothing_of_the_query(make_app: MakeApp) -> None:
    def view() -> str:
        return " ".join([request.path, request.base_url, request.host_url, str(request.endpoint), url_for("page")])

    app, cache = make_app()
    shown(view, ignored_parameters=["utm_*"])(app, cache)
    assert [visit(app, path).word for path in (TAGGED, OTHER, BARE)] == ["MISS", "HIT", "HIT"]


def come_with_invented_names(make_app: MakeApp) -> None:
    """Let 100 visitors come to a page that reads ``request.url``, each with another parameter that matches an ignored pattern."""
    app, cache = make_app()
    shown(lambda: f"at {request.url}", ignored_parameters=["utm_*"])(app, cache)
    for count in range(100):
        visit(app, f"/?utm_{count:050}=x")


def test_names_that_visitors_invent_are_told_once(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    come_with_invented_names(make_app)
    assert len(lines(caplog)) == 1


def test_names_that_visitors_invent_do_not_pile_up(make_app: MakeApp, directory: Path) -> None:
    come_with_invented_names(make_app)
    (note,) = directory.rglob("*.note")
    assert note.stat().st_size < 2000


#: What the tests let a third party read.
TRACKER = {
    "tracker": [
        "X-User", "User-Agent", "Accept-Language", "Accept-Charset", "Accept-Encoding", "Accept", "X-Forwarded-For", "REMOTE_ADDR",
        "Cache-Control", "Content-Type", "Date", "Origin", "Pragma", "Referer",
    ]
}  # fmt: skip

# -- rule 4: what is exempt --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Request-Id", "Traceparent", "Tracestate", "x-request-id"])
def test_fields_that_trace_a_request_do_not_count_in_hooks(make_app: MakeApp, name: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: setattr(g, "trace", request.headers.get(name)))
        shown(lambda: "page")(app, cache)

    assert play(make_app, build, {name: "1"}, {name: "2"}, NOBODY) == ["MISS", "HIT", "HIT"]


def test_ignored_headers_are_what_the_developer_says(make_app: MakeApp) -> None:
    def view() -> str:
        request.headers.get("X-Trace")
        return f"for {request.headers.get('X-User')}"

    said = play(make_app, shown(view), {"X-Trace": "1"}, {"X-Trace": "2"}, ANN, NOBODY, IGNORED_HEADERS=["x-tRACE"])
    assert said == ["MISS", "HIT", "BYPASS", "HIT"]


def test_fields_that_an_ignored_reader_reads_do_not_count(make_app: MakeApp, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), exempt.agent(), exempt.languages(), None)[-1])
        shown(lambda: "page")(app, cache)

    fields = {"X-User": "ann", "User-Agent": "a", "Accept-Language": "de"}
    assert play(make_app, build, fields, NOBODY, IGNORED_READERS=TRACKER) == ["MISS", "HIT"]
    # Each of them counts for a reader that is not ignored.
    for name in fields:
        visitors = [{name: value, "Host": name} for value in ("de", "fr")]
        assert play(make_app, build, *visitors, IGNORED_READERS={"track": TRACKER["tracker"]}) == ["MISS", "MISS"], name


def test_a_reader_is_exempt_for_the_fields_that_are_named_beside_it(make_app: MakeApp, exempt: types.ModuleType) -> None:
    """Pairs of reader and field are exempt: a read of another field counts, and so does one of all fields."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), None)[-1])
        shown(lambda: "page")(app, cache)

    def build_all(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.everything(), None)[-1])
        shown(lambda: "page")(app, cache)

    readers = {"tracker": ["User-Agent"]}
    assert play(make_app, build, ANN, BOB, NOBODY, ANN, IGNORED_READERS=readers) == ["MISS", "MISS", "MISS", "BYPASS"]
    other = {**ANN, "Host": "other"}
    assert play(make_app, build_all, other, other, IGNORED_READERS=TRACKER) == ["MISS", "MISS"]


def test_a_reader_counts_if_it_is_not_exempt(make_app: MakeApp, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), None)[-1])
        shown(lambda: "page")(app, cache)

    # "track" is no parent package of "tracker.inside".
    assert play(make_app, build, ANN, BOB, NOBODY, NOBODY, IGNORED_READERS={"track": ["X-User"]}) == ["MISS", "MISS", "MISS", "HIT"]


@pytest.mark.parametrize(
    ("exempt_read", "read", "one", "other"),
    [
        (lambda m: m.agent(), lambda: request.user_agent.string, {"User-Agent": "a"}, {"User-Agent": "b"}),
        (lambda m: m.agent(), lambda: request.headers.get("User-Agent"), {"User-Agent": "a"}, {"User-Agent": "b"}),
        (lambda m: m.field("X-User"), lambda: request.headers.get("X-User"), ANN, BOB),
        (lambda m: m.everything(), lambda: str(dict(request.headers)), ANN, BOB),
    ],
    ids=["agent", "agent-field", "field", "everything"],
)
def test_what_the_view_reads_after_an_ignored_reader_counts(
    make_app: MakeApp, exempt: types.ModuleType, exempt_read: Callable[[Any], object], read: View, one: Fields, other: Fields
) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt_read(exempt), None)[-1])
        shown(lambda: f"for {read()}")(app, cache)

    assert "HIT" not in play(make_app, build, one, other, one, IGNORED_READERS=TRACKER)


@pytest.mark.parametrize(
    ("name", "field", "one", "other"),
    [
        ("cache_control", "Cache-Control", "no-cache", "max-age=0"),
        ("content_type", "Content-Type", "text/a", "text/b"),
        ("date", "Date", "Tue, 15 Nov 1994 08:12:31 GMT", "Tue, 15 Nov 1994 08:12:32 GMT"),
        ("is_json", "Content-Type", "application/json", "text/b"),
        ("mimetype", "Content-Type", "text/a", "text/b"),
        ("mimetype_params", "Content-Type", "text/a; a=1", "text/a; a=2"),
        ("origin", "Origin", "http://a.test", "http://b.test"),
        ("pragma", "Pragma", "a", "b"),
        ("referrer", "Referer", "http://a.test", "http://b.test"),
        ("user_agent", "User-Agent", "a", "b"),
    ],
)
def test_what_werkzeug_has_parsed_for_an_ignored_reader_counts_for_the_view(
    make_app: MakeApp, exempt: types.ModuleType, name: str, field: str, one: str, other: str
) -> None:
    """Werkzeug keeps the parsed value, so the view's read no longer reads a field."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.attribute(name), None)[-1])
        shown(lambda: f"for {getattr(request, name)}")(app, cache)

    said = play(make_app, build, {field: one}, {field: other}, NOBODY, {field: one}, NOBODY, IGNORED_READERS=TRACKER)
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("name", ["cookie", "field"])
def test_cookies_that_an_ignored_reader_reads_count(make_app: MakeApp, exempt: types.ModuleType, name: str) -> None:
    """By name, or by asking for the whole Cookie field."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.user = exempt.cookie("user") if name == "cookie" else exempt.field("Cookie")

        shown(lambda: f"for {g.user}")(app, cache)

    said = play(make_app, build, ANN, BOB, NOBODY, ANN, NOBODY, IGNORED_READERS=TRACKER)
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("read", [lambda: session.get("user"), lambda: render_template_string("{{ session.user }}")])
def test_ignore_session_takes_no_notice_of_the_session(make_app: MakeApp, read: View) -> None:
    app, cache = make_app()

    def view() -> str:
        read()
        return f"theme {request.cookies.get('theme')}"

    shown(view, ignore_session=True)(app, cache)
    dark = {"Cookie": f"{cookie_of('ann')}; theme=dark"}
    assert words(app, as_member("ann"), as_member("bob"), NOBODY, dark) == ["MISS", "HIT", "HIT", "BYPASS"]


def test_ignore_session_does_not_cover_its_cookie_read_by_name(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.cookies.get('session')}", ignore_session=True)
    assert "HIT" not in play(make_app, build, as_member("ann"), as_member("bob"))


def test_ignore_session_does_not_cover_a_change_of_it(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(with_session, ignore_session=True)(app, cache)
    assert words(app, as_member("ann"), as_member("bob"), NOBODY) == ["MISS"] * 3


def test_a_session_cookie_of_another_name_is_the_name(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.config["SESSION_COOKIE_NAME"] = "sid"
        shown(lambda: f"for {session.get('user')}")(app, cache)

    ann = {"Cookie": cookie_of("ann", "sid")}
    assert play(make_app, build, NOBODY, ann, as_member("bob"), NOBODY) == ["MISS", "BYPASS", "HIT", "HIT"]


def test_an_app_without_a_secret_key_is_cached(directory: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    shown(lambda: f"for {session.get('user')}")(app, StaleCache(app))
    assert words(app, NOBODY, NOBODY, {"Cookie": "session=x"}) == ["MISS", "HIT", "HIT"]
