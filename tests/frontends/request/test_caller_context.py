"""A call for everybody in the app context of one visitor: what it sees, and what it leaves there (frontends/caller_context)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, flash, g, get_flashed_messages, has_request_context, request, session, url_for
from flask.ctx import AppContext, _AppCtxGlobals
from flask_babel import Babel, get_locale
from flask_login import LoginManager, UserMixin, current_user, login_user
from werkzeug.datastructures import FileStorage
from werkzeug.local import LocalProxy

from flask_stalecache import StaleCache
from flask_stalecache.frontends.flask_internals import contexts
from flask_stalecache.frontends.request import caller_context
from support.threads import crowd, results

MakeApp = Callable[..., tuple[Flask, StaleCache]]
Shop = tuple[Flask, StaleCache]


@pytest.fixture
def shop(make_app: MakeApp) -> Shop:
    app, cache = make_app()
    app.testing = True
    return app, cache


def visited(app: Flask, view: Callable[..., Any], **options: Any) -> str:
    """Return the text of one visit to a view."""
    name = f"view{len(app.view_functions)}"
    app.view_functions[name] = view
    app._got_first_request = False
    app.add_url_rule(f"/{name}", name)
    with app.test_client().get(f"/{name}", **options) as response:
        assert response.status_code == 200
        return response.text


def memoized(cache: StaleCache, function: Callable[[], Any]) -> Callable[[], Any]:
    return cache.memoize(serializer="pickle")(function)


class Connection:
    """What has a ``close()``."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


# -- of one visitor ----------------------------------------------------------------------------------------------------


def test_a_german_visitors_locale_is_not_everybodys_and_stays_hers(shop: Shop) -> None:
    app, cache = shop
    Babel(app, locale_selector=lambda: request.accept_languages.best_match(["de", "en"]) if has_request_context() else "en")
    greeting = memoized(cache, lambda: str(get_locale()))

    def view() -> str:
        before = str(get_locale())
        return f"{before} {greeting()} {get_locale()}"

    def view_that_asks_first() -> str:
        return f"{greeting()} {get_locale()}"

    assert visited(app, view, headers={"Accept-Language": "de"}) == "de en de"
    with app.app_context():
        greeting.purge()  # type: ignore[attr-defined]
    assert visited(app, view_that_asks_first, headers={"Accept-Language": "de"}) == "en de"


@pytest.fixture
def logged_in(shop: Shop) -> Shop:
    app, _ = shop

    class User(UserMixin):
        id = "ada"

    LoginManager(app).user_loader(lambda name: User())
    return shop


def test_a_logged_in_user_is_not_seen_and_stays_logged_in(logged_in: Shop) -> None:
    app, cache = logged_in
    who = memoized(cache, lambda: f"{getattr(current_user, 'id', 'nobody')} {'user' in g} {has_request_context()}")

    def view() -> str:
        user: Any = SimpleNamespace(id="ada", is_active=True, get_id=lambda: "ada")
        login_user(user)
        g.user = "ada"
        return f"{who()} {current_user.id} {g.user}"

    assert visited(app, view) == "nobody False False ada ada"


@pytest.mark.parametrize(
    "look",
    [
        lambda: request.path,
        lambda: session["name"],
        lambda: flash("for everybody"),
        lambda: get_flashed_messages(),
        lambda: url_for("login", _external=True),
        lambda: g.user,
    ],
)
def test_a_call_can_not_see_it(shop: Shop, look: Callable[[], Any]) -> None:
    app, cache = shop
    ask = cache.memoize(fallback="nothing")(look)

    def view() -> str:
        g.user = session["name"] = "ada"
        flash("for ada")
        get_flashed_messages()
        return f"{ask()} {g.user} {session['name']} {get_flashed_messages()}"

    assert visited(app, view, headers={"Host": "evil.example"}) == "nothing ada ada ['for ada']"


@pytest.mark.parametrize(
    "make",
    [
        lambda: request._get_current_object(),  # type: ignore[attr-defined]
        lambda: request,
        lambda: BytesIO(b"secret"),
        lambda: FileStorage(BytesIO(b"secret")),
        lambda: (letter for letter in "secret"),
        lambda: LocalProxy(lambda: SimpleNamespace(name="ada")),
        lambda: SimpleNamespace(close=3.14),
    ],
    ids=["request", "proxy", "file", "upload", "generator", "proxy without close", "a price called close"],
)
def test_what_belongs_to_a_visitor_is_no_connection_although_it_can_be_closed(shop: Shop, make: Callable[[], Any]) -> None:
    app, cache = shop
    sees = memoized(cache, lambda: "theirs" in g)

    def view() -> str:
        theirs = g.theirs = make()
        return f"{sees()} {g.theirs is theirs}"

    assert visited(app, view) == "False True"


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(shop: Shop) -> Iterator[list[Connection]]:
    """The connections that :func:`connection` opens; the app closes its own at teardown."""
    opened: list[Connection] = []

    @shop[0].teardown_appcontext
    def close(error: BaseException | None) -> None:
        if (each := g.pop("db", None)) is not None:
            each.close()

    shop[0].extensions["opened"] = opened
    yield opened
    assert all(each.is_closed for each in opened)


def connection(app: Flask) -> Connection:
    if g.get("db") is None:
        g.db = Connection()
        app.extensions["opened"].append(g.db)
    return g.db  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("before", "after"),
    [(True, True), (True, False), (False, True), (False, False)],
)
def test_one_connection_serves_the_caller_and_its_calls(shop: Shop, opened: list[Connection], before: bool, after: bool) -> None:
    app, cache = shop

    @cache.memoize()
    def inner() -> int:
        return id(connection(app))

    @cache.memoize()
    def outer() -> bool:
        return inner() == id(connection(app))

    def view() -> str:
        if before:
            connection(app)
        assert outer()
        if after:
            connection(app)
        assert not opened[0].is_closed
        return "ok"

    visited(app, view)
    assert len(opened) == 1


def test_a_connection_that_a_failed_call_has_opened_is_closed_by_its_callers_teardown(shop: Shop, opened: list[Connection]) -> None:
    app, cache = shop

    @cache.memoize(fallback="fallback")
    def fails() -> str:
        connection(app)
        raise ConnectionError("down")

    def view() -> str:
        return f"{fails()} {g.db is opened[0]}"

    assert visited(app, view) == "fallback True"
    assert len(opened) == 1


def test_a_connection_that_a_call_has_dropped_is_gone(shop: Shop, opened: list[Connection]) -> None:
    app, cache = shop
    drop = memoized(cache, lambda: g.pop("db").close())

    def view() -> str:
        connection(app)
        drop()
        return str("db" in g)

    assert visited(app, view) == "False"


def test_a_place_for_a_connection_is_taken_and_what_the_caller_has_put_there_is_not(shop: Shop, opened: list[Connection]) -> None:
    app, cache = shop

    @cache.memoize()
    def ask() -> None:
        connection(app)
        g.user = Connection()

    def view() -> str:
        g.db, g.user = None, "ada"
        ask()
        return f"{g.db is opened[0]} {g.user}"

    assert visited(app, view) == "True ada"


def test_a_real_connection_keeps_its_transaction(shop: Shop) -> None:
    app, cache = shop
    count = memoized(cache, lambda: g.db.execute("SELECT count(*) FROM orders").fetchone()[0])

    def view() -> str:
        g.db = sqlite3.connect(":memory:")
        g.db.execute("CREATE TABLE orders (name)")
        g.db.execute("INSERT INTO orders VALUES ('tea')")
        found = count()
        g.db.rollback()
        left = g.db.execute("SELECT count(*) FROM orders").fetchone()[0]
        g.db.close()
        return f"{found} {left}"

    assert visited(app, view) == "1 0"


# -- threads ---------------------------------------------------------------------------------------------------------


def test_the_requests_other_threads_go_on_seeing_everything(shop: Shop) -> None:
    app, cache = shop
    in_call, seen = threading.Event(), threading.Event()

    @cache.memoize()
    def ask() -> bool:
        in_call.set()
        return seen.wait(30)

    def view() -> str:
        g.user = "ada"

        def look() -> str:
            assert in_call.wait(30)
            found = f"{g.user} {request.path[:5]}"
            g.found = found
            seen.set()
            return found

        context = copy_context()
        thread = threading.Thread(target=context.run, args=(look,))
        thread.start()
        assert ask()
        thread.join(30)
        return str(g.found)

    assert visited(app, view) == "ada /view"


def test_an_async_view_shares_its_context(shop: Shop, opened: list[Connection]) -> None:
    app, cache = shop
    ask = memoized(cache, lambda: f"{connection(app) is opened[0]} {'user' in g}")

    async def view() -> str:
        g.user = "ada"
        connection(app)
        return f"{ask()} {g.user}"

    assert visited(app, view) == "True False ada"
    assert len(opened) == 1


def test_a_thread_without_a_context_of_its_own_gets_one(shop: Shop, opened: list[Connection]) -> None:
    app, cache = shop
    ask = memoized(cache, lambda: id(connection(app)))

    def view() -> str:
        ours, context = connection(app), copy_context()
        (theirs,) = results(crowd(1, lambda: context.run(ask)))
        return str(theirs == id(ours))

    assert visited(app, view) == "False"
    assert len(opened) == 2


# -- classes of the app's own ------------------------------------------------------------------------------------------


class OwnGlobals(_AppCtxGlobals):
    """A ``g`` with something of its own."""

    def __init__(self) -> None:
        self.number = 7


@pytest.mark.parametrize("late", [False, True])
def test_an_app_may_have_a_class_of_its_own_for_g(make_app: MakeApp, late: bool, directory: Any) -> None:
    app = Flask("own")
    app.secret_key = "not a secret"
    app.config.update(STALECACHE_DIR=directory, TESTING=True)
    if not late:
        app.app_ctx_globals_class = OwnGlobals
    cache = StaleCache(app)
    app.app_ctx_globals_class = OwnGlobals if late else app.app_ctx_globals_class
    ends: list[int] = []
    app.teardown_appcontext(lambda error: ends.append(1))

    @cache.memoize()
    def first() -> int:
        return g.number  # type: ignore[no-any-return]

    @cache.memoize()
    def second() -> bool:
        return isinstance(g._get_current_object(), OwnGlobals) and "user" not in g  # type: ignore[attr-defined]

    def view() -> str:
        g.user = "ada"
        return f"{first()} {second()} {g.user} {len(ends)}"

    with app.app_context():
        first()
    ends.clear()
    assert visited(app, view) == "7 True ada 0"


def test_a_factory_in_the_place_of_the_class_of_g_is_left_alone(directory: Any) -> None:
    """Then no context notes its beginning, and calls run in a context of their own."""
    app = Flask("own")
    app.config.update(STALECACHE_DIR=directory, TESTING=True)
    app.app_ctx_globals_class = lambda: OwnGlobals()  # type: ignore[assignment,misc]
    cache = StaleCache(app)
    ask = cache.memoize()(lambda: g.number)
    assert visited(app, lambda: f"{ask()} {ask()}") == "7 7"


class OwnContext(AppContext):
    """A context whose class Python does not let us change, since it has slots of its own."""

    __slots__ = ("number",)


def test_a_context_that_can_not_hide_anything_is_not_shared(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    app, cache = shop
    monkeypatch.setattr(app, "app_context", lambda: OwnContext(app))
    monkeypatch.setattr(contexts, "_hiding", lambda kind: AppContext)
    sees = memoized(cache, lambda: "user" in g)

    def view() -> str:
        g.user = "ada"
        return f"{sees()} {g.user}"

    assert visited(app, view) == "False ada"


def test_what_was_noted_is_no_attribute_of_g(shop: Shop) -> None:
    with shop[0].app_context():
        assert list(g) == []
        assert repr(g) == "<flask.g of 'shop'>"


# -- its beginning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(5, 9, 9), (6, 9, 5)],
    ids=["the only purge", "another purge came first"],
)
def test_a_purge_of_its_own_counts_as_known_to_a_context(before: int, after: int, expected: int) -> None:
    app = Flask("shop")
    caller_context.note_beginnings(app, lambda: 5)
    with app.app_context():
        caller_context.note_own_purge(before, after)
        context = caller_context.CallerContext.of(app)
        assert context is not None
        assert context.began.seq == expected
    caller_context.note_own_purge(5, 9)
