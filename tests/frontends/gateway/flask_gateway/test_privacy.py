"""A gateway in front of Flask apps: never somebody else's page."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    redirect,
    render_template_string,
    request,
    session,
    stream_with_context,
)
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask_login import LoginManager, UserMixin

from support.client import MakeApp, settle, visit
from support.flask_gateway import ANN, CARL, NOBODY, Build, Fields, fresh, signed, site, who_by_session
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters

BOB: Fields = {"Cookie": f"user=bob; {signed({'user': 'bob', '_user_id': 'bob'})}", "X-User": "bob"}


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
    """Return a view that looks up its visitor only after the response has begun."""

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
    """Opens sessions that don't record whether they were used."""

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
    """Writes the visitor's name into the page while it saves the session, after all hooks have run."""

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

#: Sites whose pages are never stored: they read all fields, so that it is not known on which of them the page depends.
NEVER = {"fields as a whole", "fields as a whole in a stream"}


@pytest.mark.grid
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
    """A request that waits for another visitor's call is not given its page if that is personal."""
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
    wait_for_waiters(app, 3)
    more.set()
    assert [seen.text for seen in results([ann, *others])] == ["hello ann", "hello bob", "hello stranger", "hello bob"]


@pytest.mark.parametrize("failing", [True, False])
def test_members_failures_are_their_own(make_app: MakeApp, failing: bool) -> None:
    """An error page with a visitor's name on it is not given to the requests that waited for it."""
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
    wait_for_waiters(app, 2)
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


def test_what_is_read_of_the_environ_is_seen(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    app.after_request(fresh)
    app.add_url_rule("/unsaid", "unsaid", lambda: f"hello {request.environ.get('HTTP_X_USER')}")
    app.add_url_rule("/said", "said", lambda: Response(f"hello {request.environ.get('HTTP_X_USER')}", headers={"Vary": "X-User"}))
    assert [visit(app, "/unsaid", headers).page for headers in (ANN, BOB, NOBODY, ANN, NOBODY)] == [
        ("MISS", "hello ann"), ("MISS", "hello bob"), ("MISS", "hello None"), ("BYPASS", "hello ann"), ("HIT", "hello None"),
    ]  # fmt: skip
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
    # Without threads: the page that the redirect leads to is made anew when the answer to the form is closed.
    app, _ = make_app(GATEWAY=True, REFRESH_WORKERS=0)
    site(lambda: f"messages: {get_flashed_messages()}")(app)
    app.add_url_rule("/do", "do", lambda: (flash("done"), redirect("/"))[1], methods=["POST"])
    visit(app)
    with app.test_client() as client:
        client.post("/do").close()
        assert client.get("/").text == "messages: ['done']"
        assert [visit(app).page for _ in range(2)] == [("HIT", "messages: []")] * 2
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
    """As Flask-Babel reads them: each language has a copy, whether or not the app says so in Vary."""
    app, _ = make_app(GATEWAY=True)
    app.after_request(fresh)

    def language() -> str:
        return request.accept_languages.best_match(["de", "en"]) or "en"

    app.add_url_rule("/unsaid", "unsaid", language)
    app.add_url_rule("/said", "said", varying(language, "Accept-Language"))
    asked = [NOBODY, {"Accept-Language": "de, en;q=0.5"}, {"Accept-Language": "en"}, {"Accept-Language": "en;q=0.5,de"}, NOBODY]
    assert [visit(app, "/unsaid", headers).page for headers in asked] == [
        ("MISS", "en"), ("MISS", "de"), ("MISS", "en"), ("HIT", "de"), ("HIT", "en"),
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
