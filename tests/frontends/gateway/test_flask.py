"""A gateway in front of real Flask apps: never somebody else's page, and what anonymous visitors get comes from the store.

The yardstick is the same app without a cache: whoever asks, in whatever order, sees what they would see there.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask_login import LoginManager, UserMixin

from flask_stalecache import ConfigError, Policy, StaleCache
from flask_stalecache.frontends.gateway.handler import Gateway
from support.client import MakeApp, Seen, settle, visit
from support.threads import PATIENCE, go, results

Build: TypeAlias = "Callable[[Flask], object]"
Fields: TypeAlias = "Mapping[str, str]"

NOBODY: Fields = {}


def signed(values: dict[str, Any]) -> str:
    """Return the field of somebody who has these values in their session."""
    app = Flask("shop")
    app.secret_key = "not a secret"
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return f"session={signer.dumps(values)}"


ANN: Fields = {"Cookie": f"user=ann; {signed({'user': 'ann', '_user_id': 'ann'})}", "X-User": "ann"}
BOB: Fields = {"Cookie": f"user=bob; {signed({'user': 'bob', '_user_id': 'bob'})}", "X-User": "bob"}
#: Somebody who carries what no page asks for.
CARL: Fields = {"Cookie": "theme=dark", "X-Other": "1", "User-Agent": "carl/1"}


def fresh(response: Response) -> Response:
    """Say what the gateway obeys."""
    response.headers.setdefault("Cache-Control", "max-age=60")
    return response


# -- never somebody else's page ----------------------------------------------------------------------------------------


def site(show: Callable[[], Any], **hooks: Callable[..., Any]) -> Build:
    """Return what sets up an app with one page, which may be stored as far as its fields go."""

    def build(app: Flask) -> None:
        app.add_url_rule("/", "page", show)
        app.after_request(fresh)
        for name, hook in hooks.items():
            getattr(app, name)(hook)

    return build


def who_by_session() -> str:
    return f"hello {session.get('user', 'stranger')}"


def set_user(value: Callable[[], Any]) -> Callable[[], None]:
    def look_up() -> None:
        g.user = value()

    return look_up


def show_g() -> str:
    return f"hello {g.user or 'stranger'}"


def add_name(value: Callable[[], Any]) -> Callable[[Response], Response]:
    """Return a hook that writes a visitor's name into what the view has made for all."""

    def hook(response: Response) -> Response:
        response.set_data(f"{response.get_data(as_text=True)}, {value() or 'stranger'}")
        return response

    return hook


def by_cookie() -> str | None:
    return request.cookies.get("user")


def by_field() -> str | None:
    return request.headers.get("X-User")


def by_all_fields() -> str | None:
    return next((value for name, value in request.headers if name == "X-User"), None)


def by_all_cookies() -> str | None:
    return dict(request.cookies).get("user")


def by_raw_cookie() -> str | None:
    return "ann" if "ann" in request.headers.get("Cookie", "") else "bob" if "bob" in request.headers.get("Cookie", "") else None


def by_session() -> str | None:
    return session.get("user")


def late(value: Callable[[], Any]) -> Callable[[], Response]:
    """Return a view that asks who it is for once the response has begun."""

    def view() -> Response:
        def chunks() -> Iterator[str]:
            yield "hello "
            yield "and welcome "
            yield value() or "stranger"

        return Response(stream_with_context(chunks()))

    return view


def late_without_context(value: Callable[[Any], Any]) -> Callable[[], Response]:
    def view() -> Response:
        asked = request._get_current_object()  # type: ignore[attr-defined]

        def chunks() -> Iterator[str]:
            yield "hello "
            yield value(asked) or "stranger"

        return Response(chunks())

    return view


def late_session() -> Response:
    """The session is at hand in a stream without context, too."""
    mine = session._get_current_object()  # type: ignore[attr-defined]

    def chunks() -> Iterator[str]:
        yield "hello "
        yield mine.get("user", "stranger")

    return Response(chunks())


def at_the_end(value: Callable[[], Any]) -> Callable[[], str]:
    def view() -> str:
        after_this_request(add_name(value))
        return "hello"

    return view


def by_template() -> str:
    return render_template_string("hello {{ session.user or request.cookies.user }}")


def varying(value: Callable[[], Any], field: str) -> Callable[[], Response]:
    def view() -> Response:
        response = Response(f"hello {value() or 'stranger'}")
        response.vary.add(field)
        return response

    return view


def with_login(app: Flask) -> None:
    manager = LoginManager(app)

    @manager.user_loader
    def load(name: str) -> UserMixin:
        user = UserMixin()
        user.id = name  # type: ignore[attr-defined]
        return user

    app.add_url_rule("/", "page", lambda: render_template_string("hello {{ current_user.id or 'stranger' }}"))
    app.after_request(fresh)


class _Server(SessionInterface):
    """Keeps sessions in the server, by a cookie of another name than the app's own."""

    values: Mapping[str, dict[str, Any]] = {"ann": {"user": "ann"}, "bob": {"user": "bob"}}

    def open_session(self, app: Flask, request: Any) -> SessionMixin:
        return SecureCookieSession(self.values.get(request.cookies.get("user"), {}))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """They never change."""


class _Dumb(SessionInterface):
    """Has a session that can't tell whether it was used."""

    def open_session(self, app: Flask, request: Any) -> Any:
        name = request.cookies.get("session")
        return _DumbSession(SecureCookieSessionInterface().get_signing_serializer(app).loads(name) if name else {})  # type: ignore[union-attr]

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """They never change."""


class _DumbSession(dict[str, Any], SessionMixin):
    pass


def keeping(interface: SessionInterface, build: Build) -> Build:
    def both(app: Flask) -> None:
        app.session_interface = interface
        build(app)

    return both


class _TellTale(SecureCookieSessionInterface):
    """Says who it is for while it saves the session, which is after all hooks."""

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        response.set_data(f"hello {request.cookies.get('user', 'stranger')}")


#: Sites that show who is there; each is seen by two members and by strangers.
PERSONAL: dict[str, Build] = {
    "session in the view": site(who_by_session),
    "session in a hook": site(show_g, before_request=set_user(by_session)),
    "session after the view": site(lambda: "hello", after_request=add_name(by_session)),
    "session in a template": site(by_template),
    "session in a stream": site(late(by_session)),
    "session in a stream without context": site(late_session),
    "session in after_this_request": site(at_the_end(by_session)),
    "session, and Vary: Cookie": site(varying(by_session, "Cookie")),
    "flask-login": with_login,
    "session on the server": keeping(_Server(), site(who_by_session)),
    "session that can't tell": keeping(_Dumb(), site(who_by_session)),
    "cookie while the session is saved": keeping(_TellTale(), site(lambda: "hello")),
    "cookie in the view": site(lambda: f"hello {by_cookie()}"),
    "cookie in a hook": site(show_g, before_request=set_user(by_cookie)),
    "cookie in a template": site(lambda: render_template_string("hello {{ request.cookies.user }}")),
    "cookie after the view": site(lambda: "hello", after_request=add_name(by_cookie)),
    "cookie in a stream": site(late(by_cookie)),
    "cookie in a stream without context": site(late_without_context(lambda asked: asked.cookies.get("user"))),
    "cookie in after_this_request": site(at_the_end(by_cookie)),
    "cookie, and Vary: Cookie": site(varying(by_cookie, "Cookie")),
    "cookies as a whole": site(lambda: f"hello {by_all_cookies()}"),
    "the field Cookie": site(lambda: f"hello {by_raw_cookie()}"),
    "field in the view": site(lambda: f"hello {by_field()}"),
    "field in a hook": site(show_g, before_request=set_user(by_field)),
    "field in a stream": site(late(by_field)),
    "field, and Vary": site(varying(by_field, "X-User")),
    "field, and Vary of another": site(varying(by_field, "X-Other")),
    "fields as a whole": site(lambda: f"hello {by_all_fields()}"),
    "fields as a whole in a stream": site(late(by_all_fields)),
}
#: Those that are never stored, since nobody can tell whose they are.
NEVER = {"cookies as a whole", "fields as a whole", "fields as a whole in a stream"}


@pytest.mark.parametrize("name", PERSONAL)
@pytest.mark.parametrize(
    "visitors",
    [
        [NOBODY, ANN, BOB, NOBODY, CARL, ANN],
        [ANN, BOB, ANN, BOB, NOBODY, NOBODY],
        [CARL, BOB, ANN, NOBODY, BOB],
    ],
    ids=["a stranger first", "members first", "another first"],
)
def test_nobody_sees_anothers_page(make_app: MakeApp, name: str, visitors: list[Fields]) -> None:
    app, _ = make_app(GATEWAY=True)
    plain, _ = make_app(ENABLED=False)
    for each in (app, plain):
        PERSONAL[name](each)
    for headers in visitors:
        seen, expected = visit(app, "/", headers), visit(plain, "/", headers)
        assert (seen.status, seen.text) == (expected.status, expected.text), dict(headers)
    assert (visit(app, "/").word == "HIT") is (name not in NEVER)


def test_members_at_once_see_their_own(make_app: MakeApp) -> None:
    """Who waits for another's call is not given what that brings, if it is for that one."""
    app, _ = make_app(GATEWAY=True)
    started, more = threading.Event(), threading.Event()

    def view() -> str:
        if by_session() == "ann":
            started.set()
            assert more.wait(PATIENCE)
        return who_by_session()

    site(view)(app)
    ann = go(visit, app, "/", ANN)
    assert started.wait(PATIENCE)
    others = [go(visit, app, "/", headers) for headers in (BOB, NOBODY, BOB)]
    more.set()
    assert [seen.text for seen in results([ann, *others])] == ["hello ann", "hello bob", "hello stranger", "hello bob"]


@pytest.mark.parametrize("failing", [True, False])
def test_members_failures_are_their_own(make_app: MakeApp, failing: bool) -> None:
    """The error page with a name on it is not given to who waited; nor is a copy in its place, which is not for members."""
    app, _ = make_app(GATEWAY=True)
    started, more = threading.Event(), threading.Event()

    def view() -> Response:
        if by_session() == "ann":
            started.set()
            assert more.wait(PATIENCE)
        return Response(who_by_session(), 503 if failing else 404)

    site(view)(app)
    ann = go(visit, app, "/", ANN)
    assert started.wait(PATIENCE)
    others = [go(visit, app, "/", headers) for headers in (BOB, NOBODY)]
    more.set()
    assert [seen.text for seen in results([ann, *others])] == ["hello ann", "hello bob", "hello stranger"]


def test_a_page_for_all_is_for_all(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    calls = []
    site(lambda: calls.append(1) or "for all")(app)
    assert [visit(app, "/", headers).page for headers in (ANN, BOB, NOBODY, CARL)] == [
        ("MISS", "for all"), ("HIT", "for all"), ("HIT", "for all"), ("HIT", "for all"),
    ]  # fmt: skip
    assert len(calls) == 1


def test_strangers_come_from_the_store_whatever_members_do(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    calls: list[str | None] = []
    site(lambda: calls.append(by_session()) or who_by_session())(app)
    said = [visit(app, "/", headers).word for headers in (ANN, BOB, NOBODY, NOBODY, ANN, CARL, BOB, NOBODY)]
    assert calls == ["ann", "bob", None, "ann", "bob"]
    assert said == ["MISS", "MISS", "MISS", "HIT", "BYPASS", "HIT", "BYPASS", "HIT"]


def test_a_page_with_absent_names_says_so_to_other_caches(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    site(lambda: f"hello {by_cookie()} {by_field()}")(app)
    for word in ("MISS", "HIT"):
        seen = visit(app)
        assert seen.word == word
    assert {name.strip().lower() for name in seen.headers["Vary"].split(",")} == {"cookie", "x-user"}


def test_what_is_read_past_the_request_object_is_not_seen(make_app: MakeApp) -> None:
    """As the documentation says; ``Vary`` says it."""
    app, _ = make_app(GATEWAY=True)
    app.after_request(fresh)
    app.add_url_rule("/unseen", "unseen", lambda: f"hello {request.environ.get('HTTP_X_USER')}")
    app.add_url_rule("/said", "said", lambda: Response(f"hello {request.environ.get('HTTP_X_USER')}", headers={"Vary": "X-User"}))
    assert [visit(app, "/unseen", headers).text for headers in (ANN, BOB)] == ["hello ann", "hello ann"]
    assert [visit(app, "/said", headers).page for headers in (ANN, BOB, ANN)] == [
        ("MISS", "hello ann"), ("MISS", "hello bob"), ("HIT", "hello ann"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "words"),
    [("max-age=60", ["BYPASS", "MISS", "BYPASS", "HIT"]), ("public, max-age=60", ["MISS", "MISS", "BYPASS", "HIT"])],
)
def test_authorization_is_its_owners(make_app: MakeApp, control: str, words: list[str]) -> None:
    app, _ = make_app(GATEWAY=True)

    def view() -> Response:
        who = request.authorization
        return Response(f"for {who.token if who else 'all'}", headers={"Cache-Control": control})

    site(view)(app)
    asked = [{"Authorization": "Bearer ann"}, NOBODY, {"Authorization": "Bearer bob"}, NOBODY]
    seen = [visit(app, "/", headers) for headers in asked]
    assert [each.text for each in seen] == ["for ann", "for all", "for bob", "for all"]
    assert [each.word for each in seen[1:]] == words[1:]


def test_a_user_of_the_servers_is_live(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    site(lambda: f"for {request.remote_user}")(app)
    ann, bob = {"REMOTE_USER": "ann"}, {"REMOTE_USER": "bob"}
    said = [visit(app, environ=environ).page for environ in (ann, {}, bob, {})]
    assert said == [("BYPASS", "for ann"), ("MISS", "for None"), ("BYPASS", "for bob"), ("HIT", "for None")]


@pytest.mark.parametrize("change", ["view", "hook", "flash", "after", "permanent", "token"])
def test_a_page_that_changes_the_session_is_not_stored(make_app: MakeApp, change: str) -> None:
    app, _ = make_app(GATEWAY=True)

    def modify(*args: Any) -> Any:
        session["seen"] = session.get("seen", 0) + 1
        session.permanent = change == "permanent"
        return args[0] if args else None

    def view() -> str:
        if change in ("view", "permanent"):
            modify()
        if change == "flash":
            flash("welcome")
        if change == "token":
            session.setdefault("csrf", "random")
        return "page"

    site(view)(app)
    if change == "hook":
        app.before_request(modify)
    if change == "after":
        app.after_request(modify)
    seen = [visit(app), visit(app)]
    assert all("Set-Cookie" in each.headers for each in seen)
    assert [each.word == "HIT" for each in seen] == [False, False]


def test_a_flashed_message_is_shown_once_and_to_its_visitor(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    site(lambda: f"messages: {get_flashed_messages()}")(app)
    app.add_url_rule("/do", "do", lambda: (flash("done"), redirect("/"))[1], methods=["POST"])
    visit(app)
    with app.test_client() as client:
        client.post("/do").close()
        assert client.get("/").text == "messages: ['done']"
        assert [visit(app).page for _ in range(2)] == [("MISS", "messages: []"), ("HIT", "messages: []")]
        assert client.get("/").text == "messages: []"


def test_the_refresh_of_a_page_that_varies_on_cookies_does_not_act_as_its_visitor(make_app: MakeApp) -> None:
    """It is made with the Cookie field, which is in the key: but nothing of it is saved."""
    app, cache = make_app(GATEWAY=True)
    shelf: dict[str, list[str]] = {"ann": ["welcome"]}

    class Shelf(_Server):
        def open_session(self, app: Flask, request: Any) -> SessionMixin:
            return SecureCookieSession({"messages": list(shelf.get(request.cookies.get("user"), []))})

        def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
            if session.modified:  # type: ignore[attr-defined]
                shelf[request.cookies["user"]] = session["messages"]

    def view() -> Response:
        shown = session["messages"][:]
        if cache.refreshing:
            session["messages"] = []
        control = "max-age=0, stale-while-revalidate=60"
        return Response(f"messages: {shown}", headers={"Vary": "Cookie", "Cache-Control": control})

    app.session_interface = Shelf()
    site(view)(app)
    assert visit(app, "/", ANN).page == ("MISS", "messages: ['welcome']")
    assert visit(app, "/", ANN).word == "STALE"
    settle(app, cache)
    assert shelf["ann"] == ["welcome"]


def test_the_refresh_of_a_page_that_varies_on_cookies_is_for_nobody_else(make_app: MakeApp) -> None:
    """Even if the page does not say any more that it varies."""
    app, cache = make_app(GATEWAY=True)

    def view() -> Response:
        response = Response(who_by_session(), headers={"Cache-Control": "max-age=0, stale-while-revalidate=60"})
        if not cache.refreshing:
            response.vary.add("Cookie")
        return response

    site(view)(app)
    assert [visit(app, "/", ANN).word for _ in range(2)] == ["MISS", "STALE"]
    settle(app, cache)
    assert [visit(app, "/", headers).text for headers in (NOBODY, BOB, ANN)] == ["hello stranger", "hello bob", "hello ann"]


def test_languages_by_vary_and_without(make_app: MakeApp) -> None:
    """As Flask-Babel reads them. Said in Vary, each language has a copy; unsaid, who sends the field is live."""
    app, _ = make_app(GATEWAY=True)
    app.after_request(fresh)

    def language() -> str:
        return request.accept_languages.best_match(["de", "en"]) or "en"

    app.add_url_rule("/unsaid", "unsaid", language)
    app.add_url_rule("/said", "said", varying(language, "Accept-Language"))
    asked = [NOBODY, {"Accept-Language": "de, en;q=0.5"}, {"Accept-Language": "en"}, {"Accept-Language": "en;q=0.5,de"}, NOBODY]
    assert [visit(app, "/unsaid", headers).page for headers in asked] == [
        ("MISS", "en"), ("BYPASS", "de"), ("BYPASS", "en"), ("BYPASS", "de"), ("HIT", "en"),
    ]  # fmt: skip
    assert [visit(app, "/said", headers).page for headers in asked] == [
        ("MISS", "hello en"), ("MISS", "hello de"), ("MISS", "hello en"), ("HIT", "hello de"), ("HIT", "hello en"),
    ]  # fmt: skip


@pytest.mark.parametrize("always", [True, False], ids=["Vary always", "Vary only where it packs"])
def test_packed_and_plain_pages_are_kept_apart(make_app: MakeApp, always: bool) -> None:
    """As Flask-Compress does it: in an after_request hook, by Accept-Encoding."""
    app, _ = make_app(GATEWAY=True)

    def pack(response: Response) -> Response:
        packs = "gzip" in request.headers.get("Accept-Encoding", "")
        if packs:
            response.set_data(gzip.compress(response.get_data(), mtime=0))
            response.headers["Content-Encoding"] = "gzip"
        if packs or always:
            response.vary.add("Accept-Encoding")
        return response

    site(lambda: "page", after_request=pack)(app)
    asked: list[Fields] = [{"Accept-Encoding": "gzip"}, NOBODY, {"Accept-Encoding": "br"}, {"Accept-Encoding": "gzip"}, NOBODY]
    for headers in asked * 2:
        seen = visit(app, "/", headers)
        is_packed = seen.headers.get("Content-Encoding") == "gzip"
        assert is_packed is ("gzip" in headers.get("Accept-Encoding", ""))
        assert (gzip.decompress(seen.body) if is_packed else seen.body) == b"page"
    assert [visit(app, "/", headers).word for headers in (asked[0], NOBODY)] == ["HIT", "HIT"]


# -- beside the decorator --------------------------------------------------------------------------------------------


def statuses_of(seen: Seen) -> list[str]:
    """Return the members of ``Cache-Status``."""
    return [member for line in seen.headers.getlist("Cache-Status") for member in line.split(",")]


@pytest.mark.parametrize("chosen", [("Cache-Status", "X-Cache-Status"), ("Cache-Status",)], ids=len)
def test_a_cached_page_is_stored_once_and_speaks_once(
    make_app: MakeApp, clock: time_machine.Traveller, chosen: tuple[str, ...]
) -> None:
    app, cache = make_app(GATEWAY=True, STATUS_HEADERS=chosen)
    visits: list[bool] = []
    app.before_request(lambda: visits.append(cache.refreshing))
    calls: list[int] = []

    @app.route("/", methods=["GET", "POST"])
    @cache.cached(10, 100, 1000, jitter=0)
    def page() -> str:
        calls.append(1)
        return f"{who_by_session()} {len(calls)}"

    asked: list[tuple[str, Fields]] = [("GET", NOBODY), ("GET", NOBODY), ("HEAD", NOBODY), ("POST", NOBODY), ("GET", ANN)]
    said = [visit(app, "/", headers, method=method) for method, headers in asked]
    assert [len(statuses_of(seen)) for seen in said] == [1] * 5
    assert ["hit" in statuses_of(seen)[0] for seen in said] == [False, True, True, False, False]
    # Each has entered the app: the gateway has nothing of it.
    assert visits == [False] * 5
    clock.shift(11)
    stale = visit(app)
    assert (stale.text, statuses_of(stale)) == ("hello stranger 1", ["stalecache; hit; ttl=-1"])
    settle(app, cache)
    assert visits == [False] * 6 + [True]
    renewed = visit(app)
    assert (renewed.text, len(calls), len(statuses_of(renewed))) == ("hello stranger 4", 4, 1)


def test_pages_take_over_tags_and_freshness_of_the_values_they_are_made_of(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app, cache = make_app(GATEWAY=True)
    calls: list[str] = []

    @cache.memoize(10, 100, 1000, tags=("rates",), jitter=0)
    def rates() -> int:
        calls.append("rates")
        return calls.count("rates")

    def view() -> Response:
        calls.append("page")
        return Response(f"rate {rates()}", headers={"Cache-Control": "max-age=60, stale-while-revalidate=100"})

    site(view)(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "rate 1"), ("HIT", "rate 1")]
    clock.shift(11)
    # Its refresh renews the value first.
    assert visit(app).page == ("STALE", "rate 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "rate 2")
    assert calls == ["page", "rates", "rates", "page"]
    with app.app_context():
        cache.purge(tag="rates")
    assert visit(app).page == ("MISS", "rate 3")


def test_a_stream_takes_them_over_too(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=True)

    @cache.memoize(10, tags=("rates",), jitter=0)
    def rates() -> int:
        return 1

    def chunks() -> Iterator[str]:
        yield "rate "
        cache.tag("late")
        yield str(rates())

    site(lambda: Response(stream_with_context(chunks())))(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "rate 1"), ("HIT", "rate 1")]
    for tag in ("rates", "late"):
        with app.app_context():
            cache.purge(tag=tag)
        assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
    clock.shift(11)
    assert visit(app).word == "EXPIRED"


@pytest.mark.parametrize("where", ["view", "hook", "stream"])
def test_the_app_has_the_last_word(make_app: MakeApp, clock: time_machine.Traveller, where: str) -> None:
    app, cache = make_app(GATEWAY=True)

    def speak(response: Any = None) -> Any:
        if request.path == "/never":
            cache.no_store()
        cache.max_age(5)
        cache.tag("news")
        return response

    def chunks() -> Iterator[str]:
        yield "pa"
        speak()
        yield "ge"

    def view(**args: str) -> Any:
        if where == "view":
            speak()
        return Response(stream_with_context(chunks())) if where == "stream" else "page"

    app.add_url_rule("/<name>", "page", view)
    app.after_request(fresh)
    if where == "hook":
        app.after_request(speak)
    assert [visit(app, "/never").word == "HIT" for _ in range(2)] == [False, False]
    assert [visit(app, "/page").word for _ in range(2)] == ["MISS", "HIT"]
    clock.shift(4)
    assert visit(app, "/page").word == "HIT"
    clock.shift(2)
    assert [visit(app, "/page").word for _ in range(2)] == ["EXPIRED", "HIT"]
    with app.app_context():
        cache.purge(tag="news")
    assert visit(app, "/page").word == "MISS"


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "selector",
    [{"tag": "news"}, {"url": "/en/a?x=1"}, {"url": "http://localhost/en/a?x=1"}, {"endpoint": "news.page"}, {"all": True}],
    ids=lambda selector: next(iter(selector)),
)
@pytest.mark.parametrize("varies", [False, True])
def test_another_worker_purges(make_app: MakeApp, selector: dict[str, Any], soft: bool, varies: bool) -> None:
    """Two apps over one directory, as two workers have them."""

    def worker() -> tuple[Flask, StaleCache]:
        app, cache = make_app(GATEWAY=True)
        bp = Blueprint("news", __name__, url_prefix="/<lang>")

        @bp.get("/a")
        def page(lang: str) -> Response:
            cache.tag("news")
            made.append(cache.refreshing)
            control = {"Cache-Control": "max-age=60, stale-while-revalidate=60"}
            return Response("page", headers={**control, "Vary": "Accept-Language"} if varies else control)

        app.register_blueprint(bp)
        return app, cache

    made: list[bool] = []
    (app, cache), (other, others) = worker(), worker()
    fields = {"Accept-Language": "en"}
    assert [visit(each, "/en/a?x=1", fields).word for each in (app, app, other, other)] == ["MISS", "HIT", "HIT", "HIT"]
    with other.app_context():
        others.purge(**selector, soft=soft)
    assert visit(app, "/en/a?x=1", fields).word == ("STALE" if soft else "MISS")
    settle(app, cache)
    assert visit(app, "/en/a?x=1", fields).word == "HIT"
    assert visit(other, "/en/a?x=1", fields).word == "HIT"
    assert made == [False, soft]


def test_a_refresh_is_told_from_a_visit_and_enters_the_app(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=True)
    seen: list[tuple[bool, str, str | None, str | None]] = []

    def look() -> None:
        seen.append((cache.refreshing, request.url, request.remote_addr, request.environ.get("HTTP_COOKIE")))

    def view() -> Response:
        return Response("page", headers={"Cache-Control": "max-age=10, stale-while-revalidate=60"})

    site(view, before_request=look)(app)
    visit(app, "/?a=1", {"Host": "shop.example", **CARL})
    clock.shift(11)
    assert visit(app, "/?a=1", {"Host": "shop.example", **CARL}).word == "STALE"
    settle(app, cache)
    assert visit(app, "/?a=1", {"Host": "shop.example"}).word == "HIT"
    url = "http://shop.example/?a=1"
    assert seen == [(False, url, "192.0.2.7", "theme=dark"), (True, url, "127.0.0.1", None)]


def test_a_failing_app_is_covered(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _ = make_app(GATEWAY=True)
    calls: list[int] = []

    def view() -> Response:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("down")
        return Response("page", headers={"Cache-Control": "max-age=10, stale-if-error=100"})

    site(view)(app)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    visit(app)
    clock.shift(11)
    assert [visit(app).page for _ in range(3)] == [("STALE", "page")] * 3
    assert len(calls) == 2
    clock.shift(100)
    assert visit(app).status == 500


# -- cached(gateway=True) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False], ids=["decorated before init_app", "decorated after"])
def test_a_hit_of_a_gateway_view_does_not_enter_the_app(directory: Path, early: bool) -> None:
    cache, app, visits = StaleCache(), Flask("shop"), []
    app.config["STALECACHE_DIR"] = directory
    app.before_request(lambda: visits.append(request.path))
    if not early:
        cache.init_app(app)
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(lambda: "page"))
    app.add_url_rule("/other", "other", lambda: Response("other", headers={"Cache-Control": "public, max-age=60"}))
    app.add_url_rule("/cached", "cached", cache.cached(60)(lambda: "cached"))
    if early:
        cache.init_app(app)
    assert [visit(app).page for _ in range(3)] == [("MISS", "page"), ("HIT", "page"), ("HIT", "page")]
    assert visits == ["/"]
    # Nothing else is stored by the gateway.
    assert [visit(app, "/other").word == "HIT" for _ in range(2)] == [False, False]
    assert [visit(app, "/cached").page for _ in range(2)] == [("MISS", "cached"), ("HIT", "cached")]
    assert visits == ["/", "/other", "/other", "/cached", "/cached"]


def test_a_gateway_view_has_the_windows_that_cached_has(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """As the documentation of ``cached`` has it: code, then the response, then the configuration with its defaults."""
    app, cache = make_app()
    says = {"Cache-Control": "max-age=5"}
    app.add_url_rule("/bare", "bare", cache.cached(gateway=True, jitter=0)(lambda: "page"))
    app.add_url_rule("/said", "said", cache.cached(gateway=True, jitter=0)(lambda: Response("page", headers=says)))
    app.add_url_rule("/coded", "coded", cache.cached(20, gateway=True, jitter=0)(lambda: Response("page", headers=says)))
    pages = ("/bare", "/said", "/coded")

    def words() -> list[str]:
        return [visit(app, path).word for path in pages]

    assert words() == ["MISS"] * 3
    clock.shift(4)
    assert words() == ["HIT"] * 3
    clock.shift(2)
    assert words() == ["HIT", "STALE", "HIT"]
    settle(app, cache)
    clock.shift(15)
    assert words() == ["HIT", "STALE", "STALE"]
    settle(app, cache)
    clock.shift(40)
    assert words() == ["STALE"] * 3
    settle(app, cache)
    # Past stale-while-revalidate, and within stale-if-error.
    clock.shift(60 + 600 + 1)
    assert words() == ["EXPIRED"] * 3


def test_the_jitter_of_a_gateway_view_is_its_own(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    app.add_url_rule("/<number>", "page", cache.cached(1000, gateway=True, jitter=0.5)(lambda number: "page"))
    app.add_url_rule("/exact/<number>", "exact", cache.cached(1000, gateway=True, jitter=0)(lambda number: "page"))

    def ttls(prefix: str) -> set[str]:
        return {
            visit(app, f"{prefix}/{number}").headers["Cache-Status"].partition("ttl=")[2].partition(";")[0] for number in range(20)
        }

    assert ttls("/exact") == {"1000"}
    spread = {int(ttl) for ttl in ttls("")}
    assert len(spread) > 5
    assert 500 <= min(spread) < 900


def test_a_gateway_view_says_what_cached_says(make_app: MakeApp) -> None:
    """statuses, tags, vary and response_filter, by the names that ``cached`` has."""
    app, cache = make_app()
    calls: list[str] = []

    def view(name: str) -> Any:
        calls.append(name)
        if name == "gone":
            abort(404)
        return Response(f"{name} {request.headers.get('X-Kind', '-')}", headers={"X-Keep": "no" if name == "kept-out" else "yes"})

    decorated = cache.cached(
        60,
        gateway=True,
        statuses={410: 5},
        tags=lambda name: (f"page-{name}",),
        vary=("X-Kind",),
        response_filter=lambda response: response.headers["X-Keep"] == "yes",
    )(view)
    app.add_url_rule("/<name>", "page", decorated)
    assert [visit(app, "/a", {"X-Kind": kind}).page for kind in "xyx"] == [("MISS", "a x"), ("MISS", "a y"), ("HIT", "a x")]
    assert "X-Kind" in visit(app, "/a").headers["Vary"]
    with app.app_context():
        cache.purge(tag="page-b")
    assert visit(app, "/a", {"X-Kind": "x"}).word == "HIT"
    with app.app_context():
        cache.purge(tag="page-a")
    assert visit(app, "/a", {"X-Kind": "x"}).word == "MISS"
    assert [visit(app, "/kept-out").word == "HIT" for _ in range(2)] == [False, False]


@pytest.mark.parametrize("wrong", ["tags", "response_filter"])
def test_a_callable_of_a_gateway_view_that_raises_breaks_no_page(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    app, cache = make_app()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not today")

    app.add_url_rule("/", "page", cache.cached(60, gateway=True, **{wrong: broken})(lambda: "page"))
    assert [visit(app).page[1] for _ in range(2)] == ["page"] * 2
    assert visit(app).word != "HIT"
    assert "not today" in caplog.text


def test_statuses_of_a_gateway_view(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/listed", "listed", cache.cached(60, gateway=True, statuses={418: 60})(lambda: ("tea", 418)))
    app.add_url_rule("/unlisted", "unlisted", cache.cached(60, gateway=True)(lambda: ("tea", 418)))
    app.add_url_rule("/aborted", "aborted", cache.cached(60, gateway=True, statuses={410: 60})(lambda: abort(410)))
    assert [visit(app, "/listed").word for _ in range(2)] == ["MISS", "HIT"]
    assert [visit(app, "/unlisted").word == "HIT" for _ in range(2)] == [False, False]
    assert [(seen.status, seen.word) for seen in (visit(app, "/aborted"), visit(app, "/aborted"))] == [(410, "MISS"), (410, "HIT")]


@pytest.mark.parametrize("ignored", [True, False])
def test_a_gateway_view_may_ignore_the_session(make_app: MakeApp, ignored: bool) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, gateway=True, ignore_session=ignored)(lambda: f"page {bool(session)}"))
    words = [visit(app, "/", headers).word for headers in (NOBODY, ANN, NOBODY)]
    assert words == (["MISS", "HIT", "HIT"] if ignored else ["MISS", "BYPASS", "HIT"])


#: What a hit would have to ask the app, and what the error says.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unless": ({"unless": lambda: False}, "STALECACHE_GATEWAY"),
    "key": ({"key": lambda: "x"}, "vary="),
    "ignored_parameters": ({"ignored_parameters": ("utm_*",)}, "STALECACHE_IGNORED_PARAMETERS"),
    "prefer_stale": ({"prefer_stale": False}, "STALECACHE_GATEWAY"),
    "wait": ({"wait": 0.5}, "STALECACHE_GATEWAY"),
    "lock_timeout": ({"lock_timeout": 1}, "STALECACHE_GATEWAY"),
    "refresh_ahead": ({"refresh_ahead": 1}, "STALECACHE_GATEWAY"),
    "vary": ({"vary": {"Accept-Language": lambda value: "en"}}, "normaliser"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_hit_would_have_to_ask_the_app_is_refused_at_decoration(make_app: MakeApp, name: str) -> None:
    _, cache = make_app()
    given, advice = REFUSED[name]
    with pytest.raises(ConfigError) as refused:
        cache.cached(60, gateway=True, **given)
    assert name in str(refused.value)
    assert advice in str(refused.value)


@pytest.mark.parametrize("given", [{"lock_timeout": 0}, {"wait": 0}, {"refresh_ahead": 0}])
def test_zero_is_said_too(make_app: MakeApp, given: dict[str, Any]) -> None:
    """``wait=0`` asks for something; only ``refresh_ahead=0`` is what holds anyway."""
    _, cache = make_app()
    if "refresh_ahead" in given:
        cache.cached(60, gateway=True, **given)
    else:
        with pytest.raises(ConfigError):
            cache.cached(60, gateway=True, **given)


# -- apps ------------------------------------------------------------------------------------------------------------


def test_two_apps_of_one_object_have_gateways_of_their_own(tmp_path: Path) -> None:
    cache, apps = StaleCache(), []
    view = cache.cached(60, gateway=True)(lambda: request.host)
    for name in ("one", "two"):
        app = Flask(name)
        app.config.update(STALECACHE_DIR=tmp_path / name, STALECACHE_GATEWAY=name == "two")
        app.add_url_rule("/", "page", view)
        app.add_url_rule("/free", "free", lambda: Response("free", headers={"Cache-Control": "max-age=60"}))
        cache.init_app(app)
        apps.append(app)
    assert [visit(app).word for app in apps * 2] == ["MISS", "MISS", "HIT", "HIT"]
    assert [visit(app, "/free").word == "HIT" for app in apps * 2] == [False, False, False, True]
    with apps[0].app_context():
        cache.purge(all=True)
    assert [visit(app).word for app in apps] == ["MISS", "HIT"]


def test_a_gateway_before_a_gateway_speaks_for_the_outer_only_if_it_can_see(directory: Path, make_app: MakeApp) -> None:
    """An app that is mounted in another one: what it reads of the session is known by its own cookie's name."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    inner = Flask("inner")
    inner.config.update(SECRET_KEY="not a secret", SESSION_COOKIE_NAME="inner", STALECACHE_DIR=directory / "inner")
    inner.config["STALECACHE_GATEWAY"] = True
    StaleCache(inner)
    site(lambda: Response(who_by_session(), headers={"Cache-Control": "max-age=0, stale-while-revalidate=9"}))(inner)
    outer = Flask("outer")
    outer.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory, STALECACHE_GATEWAY=[("/*", Policy(max_age=60))])
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": inner.wsgi_app})  # type: ignore[method-assign]
    StaleCache(outer)
    ann = {"Cookie": f"inner={signed({'user': 'ann'}).partition('=')[2]}"}
    for headers in (ann, NOBODY, ann, NOBODY, NOBODY, ann):
        assert visit(outer, "/in/", headers).text == ("hello ann" if headers else "hello stranger")


def test_switched_off_there_is_no_gateway(make_app: MakeApp) -> None:
    app, cache = make_app(ENABLED=False, GATEWAY=True)
    site(cache.cached(60, gateway=True)(lambda: "page"))(app)
    seen = [visit(app), visit(app)]
    assert [each.word for each in seen] == ["", ""]
    assert "Cache-Status" not in seen[0].headers
    assert not isinstance(app.wsgi_app, Gateway)


def test_a_factory_may_be_called_twice(tmp_path: Path) -> None:
    cache, bp = StaleCache(), Blueprint("shop", __name__)
    calls: list[int] = []
    bp.add_url_rule("/page", "page", cache.cached(60, gateway=True)(lambda: f"page {calls.append(1) or len(calls)}"))

    def create_app() -> Flask:
        app = Flask("shop")
        app.config["STALECACHE_DIR"] = tmp_path / "cache"
        cache.init_app(app)
        app.register_blueprint(bp, url_prefix="/shop")
        return app

    first, second = create_app(), create_app()
    assert [visit(app, "/shop/page").page for app in (first, second)] == [("MISS", "page 1"), ("HIT", "page 1")]


def test_middleware_around_and_inside(make_app: MakeApp) -> None:
    """What is put around the app later is in front of the gateway: its view of the request is in the key."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    app, _ = make_app(GATEWAY=True)
    site(lambda: url_for("page", _external=True))(app)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    asked: list[Fields] = [
        NOBODY,
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.example"},
        {"X-Forwarded-Prefix": "/x"},
    ]
    links = ["http://localhost/", "https://localhost/", "http://shop.example/", "http://localhost/x/"]
    assert [visit(app, "/", headers).page for headers in asked] == [("MISS", link) for link in links]
    assert [visit(app, "/", headers).page for headers in asked] == [("HIT", link) for link in links]


def test_a_file_is_sent_and_stored(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"page")
    app, _ = make_app(GATEWAY=True)
    site(lambda: send_file(tmp_path / "page.txt", max_age=60))(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "page"), ("HIT", "page")]
    seen = visit(app)
    assert visit(app, "/", {"If-None-Match": seen.headers["ETag"]}).status == 304
    assert visit(app, "/", {"Range": "bytes=1-2"}).text == "ag"


def test_what_flask_closes_is_closed(make_app: MakeApp) -> None:
    """``call_on_close`` and the teardown of a stream's context run once for each call of the app."""
    closed: list[str] = []

    def view(how: str) -> Response:
        def chunks() -> Iterator[str]:
            yield "pa"
            if how == "breaks":
                raise RuntimeError("broken")
            yield "ge"

        response = Response(stream_with_context(chunks()) if how != "plain" else "page", headers={"Cache-Control": "max-age=60"})
        response.call_on_close(lambda: closed.append("closed"))
        return response

    def closings(app: Flask, how: str, text: str) -> list[str]:
        closed.clear()
        with suppress(RuntimeError):
            assert visit(app, f"/{how}").text == text
        return sorted(closed)

    (app, _), (plain, _) = make_app(GATEWAY=True), make_app(ENABLED=False)
    for each in (app, plain):
        each.add_url_rule("/<how>", "page", view)
        each.teardown_request(lambda error: closed.append("torn down"))
    for how in ("plain", "stream", "breaks"):
        expected = closings(plain, how, "page")
        assert expected.count("closed") == 1
        assert closings(app, how, "page") == expected
        assert closings(app, how, "page") == (expected if how == "breaks" else [])


# -- rules -----------------------------------------------------------------------------------------------------------


def views(app: Flask) -> list[str]:
    """Add some pages that say nothing about caching; return the paths that were asked."""
    calls: list[str] = []

    def page(**args: str) -> Any:
        calls.append(request.path)
        if args.get("name") == "gone":
            return "gone", 410
        return f"page {request.args.get('page', '-')}"

    for rule, endpoint in (("/news/<name>", "news"), ("/shop/<name>", "shop"), ("/ü/<name>", "umlaut")):
        app.add_url_rule(rule, endpoint, page)
    return calls


def is_hit(app: Flask, path: str, headers: Fields | None = None, **options: Any) -> bool:
    """Whether the second of two visits comes from the store."""
    visit(app, path, headers, **options)
    return visit(app, path, headers, **options).word == "HIT"


def test_the_first_rule_that_matches_holds(make_app: MakeApp) -> None:
    rules = [
        ("/news/live*", Policy(unless=lambda environ: True)),
        ("/news/*", Policy(max_age=60, statuses={410: 60}, ignored_parameters=("utm_*",))),
        ("shop", Policy(max_age=60, unless=lambda environ: "HTTP_X_STAFF" in environ)),
        ("/shop/*", Policy(max_age=60, statuses={410: 60})),
        ("/ü/?", Policy(max_age=60)),
        ("/*", Policy(max_age=60, response_filter=lambda status, fields: False)),
    ]
    app, _ = make_app(GATEWAY=rules)
    views(app)
    assert not is_hit(app, "/news/live-1")
    assert is_hit(app, "/news/a")
    assert is_hit(app, "/news/gone")
    assert visit(app, "/news/a?utm_source=letter").word == "HIT"
    assert visit(app, "/news/a?page=2").word == "MISS"
    assert is_hit(app, "/shop/a")
    assert visit(app, "/shop/a", {"X-Staff": "1"}).word == "BYPASS"
    # The endpoint's rule comes first, and has no such status.
    assert not is_hit(app, "/shop/gone")
    assert is_hit(app, "/ü/a")
    assert not is_hit(app, "/ü/long")


def test_a_rule_may_say_all_that_cached_may(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    filtered: list[tuple[str, bool]] = []

    def keep(status: str, fields: list[tuple[str, str]]) -> bool:
        filtered.append((status, ("Content-Type", "text/html; charset=utf-8") in fields))
        return True

    rules = {
        "news": Policy(max_age=10, stale_while_revalidate=20, stale_if_error=100, vary=("X-Kind",), tags=("news",), jitter=0),
        "shop": Policy(max_age=10, prefer_stale=True, tags=lambda environ: (environ["PATH_INFO"],), response_filter=keep, jitter=0),
        "umlaut": Policy(max_age=10, refresh_ahead=5, jitter=0),
    }
    app, cache = make_app(GATEWAY=rules)
    calls = views(app)
    assert [visit(app, "/news/a", {"X-Kind": kind}).word for kind in "xyx"] == ["MISS", "MISS", "HIT"]
    visit(app, "/shop/a")
    visit(app, "/ü/a")
    clock.shift(6)
    assert visit(app, "/ü/a").word == "HIT"
    settle(app, cache)
    assert calls.count("/ü/a") == 2
    clock.shift(15)
    assert visit(app, "/news/a", {"X-Kind": "x"}).word == "STALE"
    settle(app, cache)
    assert visit(app, "/news/a", {"X-Kind": "x"}).word == "HIT"
    clock.shift(1000)
    assert visit(app, "/shop/a").word == "STALE"
    settle(app, cache)
    assert set(filtered) == {("200 OK", True)}
    for tag, path, headers in (("news", "/news/a", {"X-Kind": "x"}), ("/shop/a", "/shop/a", None)):
        is_hit(app, path, headers)
        with app.app_context():
            cache.purge(tag=tag)
        assert visit(app, path, headers).word == "MISS"


@pytest.mark.parametrize(
    ("headers", "prefers"),
    [
        ({"X-Stale": "1"}, True),
        ({"X-Stale": "0"}, False),
        ({"Cookie": "stale=yes"}, True),
        ({"Cookie": "stale=0"}, False),
        ({}, False),
    ],
)
def test_a_visitor_may_prefer_stale(make_app: MakeApp, clock: time_machine.Traveller, headers: Fields, prefers: bool) -> None:
    """By the field or the cookie that the configuration names, unless a rule says more."""
    rules = {"/news/a": Policy(max_age=10, stale_while_revalidate=0, jitter=0), "/news/b": Policy(max_age=10, prefer_stale=False)}
    app, cache = make_app(GATEWAY=rules, PREFER_STALE_HEADER="X-Stale", PREFER_STALE_COOKIE="stale")
    views(app)
    assert [visit(app, path).word for path in ("/news/a", "/news/b")] == ["MISS", "MISS"]
    clock.shift(1000)
    assert visit(app, "/news/a", headers).word == ("STALE" if prefers else "EXPIRED")
    assert visit(app, "/news/b", headers).word == "EXPIRED"
    settle(app, cache)
    assert visit(app, "/news/a").word == "HIT"


def test_a_rule_may_limit_the_wait(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=[("/*", Policy(max_age=10, stale_while_revalidate=0, stale_if_error=100, wait=0.05, jitter=0))])
    more, calls = threading.Event(), []

    def view() -> str:
        calls.append(cache.refreshing)
        assert len(calls) == 1 or more.wait(PATIENCE)
        return f"page {len(calls)}"

    app.add_url_rule("/", "page", view)
    visit(app)
    clock.shift(11)
    assert visit(app).page == ("STALE", "page 1")
    assert calls == [False, True]
    more.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "page 2")


@pytest.mark.parametrize("wrong", ["unless", "tags", "response_filter"])
def test_a_callable_of_a_rule_that_raises_breaks_no_page(make_app: MakeApp, caplog: pytest.LogCaptureFixture, wrong: str) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("not today")

    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, **{wrong: broken})})
    views(app)
    assert [visit(app, "/news/a").text for _ in range(2)] == ["page -"] * 2
    assert visit(app, "/news/a").word != "HIT"
    assert "not today" in caplog.text


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("/news/*", "GATEWAY"),
        ([("/news/*",)], "pairs"),
        ([("/news/*", 60)], "Policy"),
        ([("", Policy())], "pattern"),
        ([(7, Policy())], "pattern"),
        ([("/", Policy(key=lambda: "x"))], "vary"),
        ([("/", Policy(ignore_session=True))], "ignore_session"),
        ([("/", Policy(gateway=True))], "leave it out"),
        ([("/", Policy(prefer_stale=lambda: True))], "prefer_stale"),
        (7, "GATEWAY"),
    ],
)
def test_a_bad_rule_is_an_error_at_start_up(make_app: MakeApp, rules: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_app(GATEWAY=rules)


@pytest.mark.parametrize("matching", ["none", "server name", "hosts", "subdomains"])
def test_a_rule_finds_the_endpoint_that_answers(directory: Path, matching: str) -> None:
    """As Flask would: by host or subdomain where the app has them, and whatever the Host is where it does not care."""
    hosts: dict[str, Any] = {"host_matching": True, "static_host": "shop.example"} if matching == "hosts" else {}
    app = Flask("shop", subdomain_matching=matching == "subdomains", **hosts)
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY={"page": Policy(max_age=60)})
    if matching in ("server name", "subdomains"):
        app.config["SERVER_NAME"] = "shop.example"
    where: dict[str, Any] = {"hosts": {"host": "www.shop.example"}, "subdomains": {"subdomain": "www"}}.get(matching, {})
    StaleCache(app)
    app.add_url_rule("/", "page", lambda: "page", **where)
    hit = is_hit(app, "/", {"Host": "www.shop.example"})
    assert visit(app, "/", {"Host": "www.shop.example"}).status == 200
    assert hit


def test_a_converter_that_needs_the_request_breaks_no_page(make_app: MakeApp) -> None:
    """Endpoints are looked up before the app is entered: what can't be found there has no rule."""
    from werkzeug.routing import BaseConverter

    class Needy(BaseConverter):
        def to_python(self, value: str) -> str:
            return f"{value} of {request.host}"

    app, _ = make_app(GATEWAY={"page": Policy(max_age=60)})
    app.url_map.converters["needy"] = Needy
    app.add_url_rule("/<needy:name>", "page", lambda name: name)
    assert [visit(app, "/a").text for _ in range(2)] == ["a of localhost"] * 2


def test_an_unknown_endpoint_in_a_rule_matches_nothing(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY={"nowhere": Policy(max_age=60)})
    views(app)
    assert not is_hit(app, "/news/a")
    assert visit(app, "/nowhere").status == 404


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda: (request.headers.get("X-Shop"), "page")[1], "the request field x-shop was read and is not in Vary"),
        (lambda: (list(request.headers), "page")[1], "goes through all headers of the request: read them by name"),
        (lambda: Response("page", headers={"Set-Cookie": "a=b"}), "the response sets a cookie"),
        (lambda: Response("page", headers={"Vary": "*"}), "Vary: *"),
        (lambda: "page" * 1000, "the body is larger than STALECACHE_MAX_ENTRY_SIZE"),
    ],
    ids=["a field", "all fields", "a cookie", "vary", "too large"],
)
def test_what_keeps_a_page_from_being_stored_is_said_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: Callable[[], Any], told: str
) -> None:
    app, _ = make_app(GATEWAY=True, MAX_ENTRY_SIZE=1000)
    site(view)(app)

    @app.after_request
    def fresh(response: Response) -> Response:
        response.cache_control.max_age = 60
        return response

    assert [visit(app, "/", {"X-Shop": "1"}).word == "HIT" for _ in range(3)] == [False] * 3
    said = [record.getMessage() for record in caplog.records if "is not stored by the gateway" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the endpoint ")
    assert told in said[0]


def test_a_member_who_has_the_page_already_gets_no_second_one(make_app: MakeApp) -> None:
    """What can't be stored for a visitor is between them and the app, conditions and all."""
    app, _ = make_app(GATEWAY=True)

    def page() -> Response:
        response = Response(f"for {request.cookies.get('who')}", headers={"Cache-Control": "max-age=60"})
        response.set_etag("a")
        return response.make_conditional(request)

    site(page)(app)
    member = {"Cookie": "who=ann"}
    assert visit(app, "/", member).text == "for ann"
    for _ in range(2):
        assert visit(app, "/", {**member, "If-None-Match": '"a"'}).status == 304
    assert visit(app).text == "for None"


def test_nobody_waits_for_the_end_of_a_stream_of_events(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=[("/*", Policy(max_age=60))])

    def events() -> Iterator[str]:
        while True:
            yield "data: 1\n\n"

    site(lambda: Response(events(), mimetype="text/event-stream"))(app)

    def first_event() -> bytes:
        with app.test_client().get("/") as response:
            return next(response.iter_encoded())

    with app.test_client().get("/") as response:
        assert next(response.iter_encoded()) == b"data: 1\n\n"
        assert go(first_event).result(10) == b"data: 1\n\n"
