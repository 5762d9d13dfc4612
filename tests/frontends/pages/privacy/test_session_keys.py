"""Privacy: a session is observed by key. Covers ``frontends.observation.session_log`` and
``frontends.observation.watched_session``."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

import pytest
from flask import (
    Flask,
    Response,
    copy_current_request_context,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    render_template_string,
    request,
    request_started,
    session,
)
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession
from flask_login import LoginManager, UserMixin, current_user, login_fresh
from werkzeug.routing import BaseConverter

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.flask_gateway import signed
from support.privacy import NOBODY, Build, Fields, lines, play, shown


def holding(**values: Any) -> Fields:
    """Return a visitor with these values in their session."""
    return {"Cookie": signed(values)}


ANN, BOB = holding(user="ann", csrf_token="of ann"), holding(user="bob")
FORM, MESSAGE, EMPTY = holding(csrf_token="random"), holding(_flashes=[["message", "welcome"]]), holding()
FORGED: Fields = {"Cookie": "session=forged"}
STRANGERS = (FORM, MESSAGE, EMPTY, FORGED, NOBODY)


def raw() -> Any:
    return session._get_current_object()  # type: ignore[attr-defined]


def by_subscript() -> str:
    try:
        return str(session["user"])
    except KeyError:
        return "-"


#: Ways to read one key.
BY_KEY: dict[str, Callable[[], object]] = {
    "get": lambda: session.get("user"),
    "[]": by_subscript,
    "in": lambda: "user" in session,
    "not in": lambda: "user" not in session,
    "pop": lambda: session.pop("user", None),
    "template": lambda: render_template_string("{{ session.user }}"),
    "template-subscript": lambda: render_template_string("{{ session['user'] }}"),
    "template-get": lambda: render_template_string("{{ session.get('user') }}"),
    "twice": lambda: (session.get("lang"), session.get("user")),
    "one by another": lambda: session.get("lang") or session.get("user"),
    "in and []": lambda: "user" in session and session["user"],
}
#: Reads that can't be attributed to a key: the whole session counts.
AS_A_WHOLE: dict[str, Callable[[], object]] = {
    "dict": lambda: dict(session),
    "iter": lambda: sorted(session),
    "len": lambda: len(session),
    "bool": lambda: bool(session),
    "not": lambda: not session,
    "copy": lambda: session.copy(),  # type: ignore[attr-defined]
    "copy.copy": lambda: dict(copy(raw())),
    "items": lambda: list(session.items()),
    "==": lambda: session == {},
    "json.dumps": lambda: json.dumps(raw()),
    "json.dumps, after a key": lambda: (session.get("lang"), json.dumps(raw())),
    "json.dumps of one taken before": lambda: (lambda mine: (mine.get("lang"), json.dumps(mine)))(raw()),
    "jsonify": lambda: jsonify(raw()).get_data(as_text=True),
    "dict.get": lambda: dict.get(raw(), "user"),
    "dict.get, after a key": lambda: (lambda mine: (mine.get("lang"), dict.get(mine, "user")))(raw()),
    "dict.__len__": lambda: dict.__len__(raw()),
    "request_ctx": lambda: dict.get(request_ctx.session, "user"),
    "length": lambda: render_template_string("{{ session|length }}"),
    "if": lambda: render_template_string("{% if session %}somebody{% endif %}"),
    "for": lambda: render_template_string("{% for key in session %}{{ key }}{% endfor %}"),
    "a key that is no text": lambda: session.get(7),  # type: ignore[call-overload]
}


Reads: TypeAlias = "dict[str, Callable[[], object]]"


def in_view(app: Flask, cache: StaleCache, reads: Reads) -> None:
    app.add_url_rule("/<name>", "page", cache.cached(60)(lambda name: f"for {reads[name]()}"))


def in_hook(app: Flask, cache: StaleCache, reads: Reads) -> None:
    @app.before_request
    def load() -> None:
        assert request.view_args is not None
        g.read = f"{reads[request.view_args['name']]()}"

    app.add_url_rule("/<name>", "page", cache.cached(60)(lambda name: f"for {g.read}"))


def in_signal(app: Flask, cache: StaleCache, reads: Reads) -> None:
    def load(sender: Flask) -> None:
        assert request.view_args is not None
        g.read = f"{reads[request.view_args['name']]()}"

    request_started.connect(load, app, weak=False)
    # Another key in the view: the session is watched before that.
    app.add_url_rule("/<name>", "page", cache.cached(60)(lambda name: f"for {g.read} {session.get('theme')}"))


def in_converter(app: Flask, cache: StaleCache, reads: Reads) -> None:
    class Mine(BaseConverter):
        def to_python(self, value: str) -> str:
            return f"{value} {reads[unquote(value)]()}"

    app.url_map.converters["mine"] = Mine
    app.add_url_rule("/<mine:page>", "page", cache.cached(60)(lambda page: f"for {page} {session.get('theme')}"))


def in_context_processor(app: Flask, cache: StaleCache, reads: Reads) -> None:
    app.context_processor(lambda: {"read": lambda name: f"{reads[name]()}"})
    app.add_url_rule("/<name>", "page", cache.cached(60)(lambda name: render_template_string("for {{ read(name) }}", name=name)))


PLACES = [in_view, in_hook, in_signal, in_converter, in_context_processor]


def walk(make_app: MakeApp, place: Callable[..., None], reads: Reads, *visitors: Fields) -> dict[str, list[str]]:
    """Let visitors come to a page for each way to read, compare each answer with the app without a cache, and return the words."""
    if place not in (in_view, in_hook):
        # The others differ in when they read, not in how.
        reads = {name: reads[name] for name in list(reads)[:: len(reads) // 3]}
    sites = [make_app(), make_app(ENABLED=False)]
    said: dict[str, list[str]] = {}
    for app, cache in sites:
        place(app, cache, reads)
    for name in reads:
        for fields in visitors:
            seen, expected = (visit(app, f"/{quote(name)}", fields) for app, _ in sites)
            assert (seen.status, seen.text) == (200, expected.text), (name, said.get(name), fields)
            said.setdefault(name, []).append(seen.word)
    return said


@pytest.mark.grid
@pytest.mark.parametrize(
    ("visitors", "words"),
    [
        (
            (NOBODY, FORM, ANN, MESSAGE, BOB, EMPTY, FORGED, NOBODY, ANN),
            ["MISS", "HIT", "BYPASS", "HIT", "BYPASS", "HIT", "HIT", "HIT", "BYPASS"],
        ),
        # A member who comes first leaves a note, and the next visitor who lacks the key fills the page.
        ((ANN, BOB, FORM, NOBODY, MESSAGE, ANN, BOB), ["MISS", "MISS", "MISS", "HIT", "HIT", "BYPASS", "BYPASS"]),
    ],
    ids=["a stranger first", "members first"],
)
@pytest.mark.parametrize("place", PLACES)
def test_who_lacks_a_key_gets_the_page_of_one_who_lacks_it(
    make_app: MakeApp, place: Callable[..., None], visitors: tuple[Fields, ...], words: list[str]
) -> None:
    said = walk(make_app, place, BY_KEY, *visitors)
    assert said == dict.fromkeys(said, words)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("visitors", "words"),
    [
        ((NOBODY, FORM, ANN, MESSAGE, BOB, FORGED, NOBODY), ["MISS", "BYPASS", "BYPASS", "BYPASS", "BYPASS", "BYPASS", "HIT"]),
        ((ANN, FORM, BOB, NOBODY, FORM, NOBODY), ["MISS", "MISS", "MISS", "MISS", "BYPASS", "HIT"]),
    ],
    ids=["a stranger first", "members first"],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_no_key_tells_is_told_by_the_cookie(
    make_app: MakeApp, place: Callable[..., None], visitors: tuple[Fields, ...], words: list[str]
) -> None:
    said = walk(make_app, place, AS_A_WHOLE, *visitors)
    assert said == dict.fromkeys(said, words)


def test_a_page_that_reads_nothing_is_for_all(make_app: MakeApp) -> None:
    build = shown(lambda: render_template_string("for all"))
    assert play(make_app, build, ANN, BOB, *STRANGERS) == ["MISS", *["HIT"] * 6]


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_message_that_a_hook_has_taken_out_is_its_visitors(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def take() -> None:
            g.message = session.pop("note", None)

        shown(lambda: f"message: {g.message} {session.get('note')}")(app, cache)

    note = holding(note="hello")
    assert play(make_app, build, NOBODY, note, FORM, note, NOBODY) == ["MISS", "BYPASS", "HIT", "BYPASS", "HIT"]


def test_one_with_a_message_that_a_hook_takes_out_may_come_first(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: setattr(g, "message", session.pop("note", None)))
        shown(lambda: f"message: {g.message}")(app, cache)

    note = holding(note="hello")
    assert play(make_app, build, note, FORM, note, NOBODY) == ["MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize(
    "remove", [lambda: session.pop("user", None), lambda: session.clear(), lambda: session.popitem() if "user" in session else 0]
)
def test_a_key_that_a_hook_has_removed_keeps_its_visitor_apart(make_app: MakeApp, remove: Callable[[], object]) -> None:
    """The view finds nothing any more; but what the hook has done for them may show."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def forget() -> None:
            g.was = session.get("user")
            remove()

        shown(lambda: f"was {g.was}, is {session.get('user')}")(app, cache)

    assert "HIT" not in play(make_app, build, NOBODY, ANN, BOB, ANN)[1:]


def test_a_key_that_comes_from_a_hook_keeps_its_visitor_apart(make_app: MakeApp) -> None:
    """Nothing that they have sent tells them apart: every second visitor is lucky."""

    def build(app: Flask, cache: StaleCache) -> None:
        counted = iter(range(100))

        @app.before_request
        def toss() -> None:
            if next(counted) % 2:
                session["lucky"] = "yes"

        shown(lambda: f"lucky: {session.get('lucky')}")(app, cache)

    assert play(make_app, build, NOBODY, NOBODY, FORM, NOBODY, NOBODY) == ["MISS", "BYPASS", "HIT", "BYPASS", "HIT"]


@pytest.mark.parametrize(
    "change",
    [
        lambda: session.__setitem__("last", "now"),
        lambda: session.update(last="now"),
        lambda: setattr(session, "permanent", True),
        lambda: session.setdefault("token", "random"),
        lambda: session.__setitem__("visits", session.get("visits", 0) + 1),
        lambda: session.pop("nothing", None),
    ],
)
def test_what_a_hook_writes_into_every_session_keeps_no_page_out(make_app: MakeApp, change: Callable[[], object]) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: change() and None)
        shown(lambda: f"for {session.get('user')}")(app, cache)

    assert play(make_app, build, NOBODY, NOBODY, ANN, NOBODY, BOB) == ["MISS", "HIT", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.parametrize(
    "show", [lambda: session["token"], lambda: session.get("token"), lambda: dict(session), lambda: json.dumps(raw())]
)
def test_what_a_hook_has_just_written_is_its_visitors(make_app: MakeApp, show: Callable[[], object]) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        numbers = iter(range(100))
        app.before_request(lambda: session.setdefault("token", f"number {next(numbers)}") and None)
        shown(lambda: f"{show()}")(app, cache)

    assert "HIT" not in play(make_app, build, NOBODY, NOBODY, FORM, NOBODY, FORM)


@pytest.mark.parametrize(
    "keep",
    [
        lambda: dict(session),
        lambda: session.copy(),  # type: ignore[attr-defined]
        raw,
        lambda: session,
        lambda: request_ctx.session,
        lambda: SecureCookieSession(session),
    ],
)
def test_a_session_that_is_kept_in_g_is_still_its_visitors(make_app: MakeApp, keep: Callable[[], Any]) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.kept = keep()

        shown(lambda: f"for {g.kept.get('user')}")(app, cache)

    ann, bob = ({**fields, "Host": "other"} for fields in (ANN, BOB))
    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY, ANN, ann, bob, {"Host": "other"}, ann) == [
        "MISS", "BYPASS", "BYPASS", "HIT", "BYPASS", "MISS", "MISS", "MISS", "BYPASS",
    ]  # fmt: skip


def test_a_session_that_another_context_has_handed_out_is_one_name(make_app: MakeApp) -> None:
    """A copy of the context has the same session, but the log of this context does not record what the copy does to it."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            other = copy_current_request_context(raw)
            g.kept = other()

        shown(lambda: f"for {dict.get(g.kept, 'user')}")(app, cache)

    assert "HIT" not in play(make_app, build, NOBODY, ANN, BOB, ANN, BOB)


@pytest.mark.parametrize("read", [lambda: request_ctx._session.get("user"), lambda: session.get("user")])  # type: ignore[attr-defined]
def test_a_session_that_only_a_hook_reads_tells_its_visitors_apart(make_app: MakeApp, read: Callable[[], object]) -> None:
    """Also if the hook bypasses the public accessors, before anything else has opened the session."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: setattr(g, "user", read()))
        shown(lambda: f"for {g.user}")(app, cache)

    assert play(make_app, build, NOBODY, FORM, ANN, BOB, NOBODY, ANN) == ["MISS", "HIT", "BYPASS", "BYPASS", "HIT", "BYPASS"]


def test_a_session_that_was_put_in_its_place_is_one_name(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            request_ctx._session = SecureCookieSession({"user": request_ctx._session.get("user", "stranger")})  # type: ignore[attr-defined]

        shown(lambda: f"for {session['user']}")(app, cache)

    assert play(make_app, build, ANN, NOBODY, ANN, BOB, NOBODY, ANN) == ["MISS", "MISS", "BYPASS", "BYPASS", "HIT", "BYPASS"]


# -- what the view does to the session -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda: session.__setitem__("seen", 1),
        lambda: session.setdefault("seen", 1),
        lambda: session.update(seen=1),
        lambda: session.update(),
        lambda: session.clear(),
        lambda: session.__ior__({"seen": 1}),
        lambda: setattr(session, "modified", True),
        lambda: setattr(session, "permanent", True),
        lambda: flash("hello"),
        lambda: (session.__setitem__("_fresh", False), session.__setitem__("seen", 1)),
        lambda: (session.__setitem__("_fresh", False), setattr(session, "modified", True)),
    ],
)
def test_a_view_that_changes_the_session_is_not_stored(make_app: MakeApp, change: Callable[[], object]) -> None:
    build = shown(lambda: f"changed {change() and ''}")
    assert "HIT" not in play(make_app, build, NOBODY, FORM, NOBODY, ANN)


def test_a_message_is_shown_once_and_to_its_visitor(make_app: MakeApp) -> None:
    build = shown(lambda: f"messages: {get_flashed_messages()}")
    assert play(make_app, build, MESSAGE, MESSAGE, NOBODY, MESSAGE, FORM, ANN, MESSAGE, NOBODY) == [
        "MISS", "MISS", "MISS", "BYPASS", "HIT", "HIT", "BYPASS", "HIT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        lambda: session.get("lang", "en"),
        lambda: f"{sorted(set(session) - {'_flashes'})}",
        lambda: json.dumps({**raw(), "_flashes": 0}),
    ],
)
def test_a_message_makes_a_page_live_whatever_its_key_has_read(make_app: MakeApp, key: Callable[[], str]) -> None:
    build = shown(lambda: f"messages: {get_flashed_messages()}", key=key)
    said = play(make_app, build, NOBODY, MESSAGE, NOBODY, MESSAGE)
    assert "HIT" not in (said[1], said[3])


def test_a_key_covers_what_it_reads_and_no_more(make_app: MakeApp) -> None:
    build = shown(lambda: f"{session.get('lang')} {session.get('user')}", key=lambda: session.get("lang", "en"))
    german, french, ann = holding(lang="de", csrf_token="a"), holding(lang="fr"), holding(lang="de", user="ann")
    assert play(make_app, build, german, french, ann, holding(lang="de"), NOBODY, FORM, ann) == [
        "MISS", "MISS", "BYPASS", "HIT", "MISS", "HIT", "BYPASS",
    ]  # fmt: skip


def test_a_key_does_not_cover_what_a_hook_has_changed_before(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.user = session.get("user")
            session["user"] = "masked"

        shown(lambda: f"for {g.user}", key=lambda: session["user"])(app, cache)

    assert "HIT" not in play(make_app, build, ANN, BOB, ANN, BOB)


def test_a_page_within_a_page_hands_its_keys_on(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        inner = cache.cached(60)(lambda: Response(f"for {session.get('user')}"))
        app.add_url_rule("/inner", "inner", inner)
        shown(lambda: f"[{inner().get_data(as_text=True)}]")(app, cache)

    assert play(make_app, build, NOBODY, FORM, ANN, BOB, NOBODY) == ["MISS", "HIT", "BYPASS", "BYPASS", "HIT"]


def test_an_error_page_is_of_its_visitor(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.register_error_handler(LookupError, lambda error: (f"not for {session.get('user')}", 404))
        shown(lambda: {}["nothing"], statuses={404: 60})(app, cache)

    # The answer to an exception has no status word, unless it comes from the cache.
    assert play(make_app, build, NOBODY, FORM, ANN, BOB, NOBODY) == ["MISS", "HIT", "", "", "HIT"]


# -- what is saved and seen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [NOBODY, FORM, ANN])
def test_a_watched_session_behaves_and_is_saved_as_any(make_app: MakeApp, fields: Fields) -> None:
    def use() -> str:
        mine = session
        said: list[Any] = [repr(mine), len(mine), list(mine), mine == {"a": 1}, sorted(mine.items()), "b" in mine, dict(mine)]
        mine["b"] = {"c": 1}
        mine.update(d=2)
        mine.setdefault("f", 4)
        said += [mine.pop("b"), mine.popitem(), mine.permanent, mine.modified, mine.accessed, mine.new]
        return f"{said} {[method(mine) for method in USES]}"

    apps = [make_app()[0], make_app(ENABLED=False)[0]]
    for app in apps:
        app.add_url_rule("/", "page", use)
        app.add_url_rule("/clear", "clear", lambda: f"{session.clear()} {session} {json.dumps(raw())}")
        app.add_url_rule("/empty", "empty", lambda: f"{bool(session)} {session} {json.dumps(raw())}")
    for path in ("/", "/clear", "/empty"):
        seen = [visit(app, path, fields) for app in apps]
        assert seen[0].text == seen[1].text
        assert seen[0].headers.getlist("Set-Cookie") == seen[1].headers.getlist("Set-Cookie")
        assert seen[0].headers.get("Vary") == seen[1].headers.get("Vary")


USES: list[Callable[[Any], object]] = [
    lambda mine: list(reversed(mine)), lambda mine: mine | {"g": 5}, lambda mine: {"g": 5} | mine, lambda mine: mine.copy(),
    lambda mine: isinstance(mine, SecureCookieSession), lambda mine: copy(raw()), lambda mine: json.dumps(raw()),
]  # fmt: skip


def test_an_app_without_a_secret_key_has_sessions_without_keys(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.secret_key = None
        shown(lambda: f"for {session.get('user')}")(app, cache)

    assert play(make_app, build, NOBODY, ANN, FORM) == ["MISS", "HIT", "HIT"]


def test_the_key_is_named_with_its_reader(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    play(make_app, shown(lambda: f"for {session.get('user')}"), ANN, BOB)
    (line,) = lines(caplog)
    assert "sessions with the key user, which was read by" in line
    assert __name__ in line


# -- Flask-Login -------------------------------------------------------------------------------------------------------


def with_login(show: Callable[[], object], **config: Any) -> Build:
    def build(app: Flask, cache: StaleCache) -> None:
        app.config.update(config)
        manager = LoginManager(app)

        @manager.user_loader
        def load(name: str) -> UserMixin:
            user = UserMixin()
            user.id = name  # type: ignore[attr-defined]
            return user

        shown(lambda: f"{show()}")(app, cache)

    return build


LOGGED_IN = [holding(_user_id=name, _fresh=True) for name in ("ann", "bob")]


@pytest.mark.parametrize("protection", ["basic", "strong", None])
@pytest.mark.parametrize(
    "show",
    [
        lambda: render_template_string("hello {{ current_user.id or 'stranger' }}"),
        lambda: f"hello {getattr(current_user, 'id', 'stranger')}",
    ],
    ids=["template", "view"],
)
def test_strangers_with_a_session_get_the_pages_of_flask_login(
    make_app: MakeApp, show: Callable[[], object], protection: str | None
) -> None:
    build, (ann, bob) = with_login(show, SESSION_PROTECTION=protection), LOGGED_IN
    said = play(make_app, build, ann, FORM, NOBODY, FORM, ann, EMPTY, bob, MESSAGE, NOBODY)
    assert said[3:] == ["HIT", "BYPASS", "HIT", "BYPASS", "HIT", "HIT"]


def test_whether_a_login_is_fresh_counts(make_app: MakeApp) -> None:
    build = with_login(lambda: f"fresh: {login_fresh()}", SESSION_PROTECTION=None)
    assert play(make_app, build, NOBODY, holding(_fresh=True), holding(_fresh=False), FORM) == ["MISS", "BYPASS", "BYPASS", "HIT"]


def test_who_fills_a_page_is_sent_their_session(make_app: MakeApp) -> None:
    """Flask-Login marks the session of a stranger who has one. That is no reason not to store the page, and is not stored."""
    app, cache = make_app()
    with_login(lambda: render_template_string("hello {{ current_user.id or 'stranger' }}"))(app, cache)
    seen = [visit(app, "/", fields) for fields in (FORM, FORM, NOBODY)]
    assert [each.word for each in seen] == ["MISS", "HIT", "HIT"]
    assert ["Set-Cookie" in each.headers for each in seen] == [True, False, False]


def test_a_refresh_leaves_the_keys_as_they_are(make_app: MakeApp) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule("/", "page", cache.cached(0, 600)(lambda: f"for {session.get('user')} {request.args.get('n')}"))
    assert [visit(app, "/", fields).word for fields in (FORM, NOBODY, MESSAGE, ANN, FORM)] == [
        "MISS",
        "STALE",
        "STALE",
        "BYPASS",
        "STALE",
    ]
