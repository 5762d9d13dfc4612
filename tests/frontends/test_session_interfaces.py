"""Session interfaces that look up the visitor when they open a session, at the view and at the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Request, Response, g, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.privacy import NOBODY, Fields, as_member, cookie_of

ALICE, BOB = as_member("alice"), as_member("bob")
SIDS = {"sid-a": "alice", "sid-b": "bob"}


class Subclass(SecureCookieSessionInterface):
    """Looks up who has signed in."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        opened = super().open_session(app, request)
        g.user = (opened or {}).get("user", "stranger")
        # As if it had not been used: the user is known by now.
        if opened is not None:
            opened.accessed = False
        return opened


class Empty(SecureCookieSessionInterface):
    """Differs from Flask's own in nothing but its class."""


class ServerSide(SessionInterface):
    """Keeps the values of sessions on the server, by an id in the cookie."""

    class Session(dict[str, Any], SessionMixin):
        accessed = False

        def __getitem__(self, name: str) -> Any:
            self.accessed = True
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            self.accessed = True
            return super().get(name, default)

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        user = SIDS.get(request.cookies.get(self.get_cookie_name(app), ""))
        g.user = user or "stranger"
        return self.Session({"user": user} if user else {})

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """The values stay where they are."""


def in_instance() -> SessionInterface:
    """Return Flask's own interface, with another ``open_session`` set on the instance."""
    interface, other = SecureCookieSessionInterface(), Subclass()
    interface.open_session = other.open_session  # type: ignore[method-assign]
    return interface


class Looking(SecureCookieSession):
    def __init__(self, initial: Any = None) -> None:
        super().__init__(initial)
        g.user = dict(initial or {}).get("user", "stranger")
        self.accessed = False


def by_session_class() -> SessionInterface:
    """Return Flask's own interface, with a session class that looks up the user when it is made."""
    interface = SecureCookieSessionInterface()
    interface.session_class = Looking
    return interface


INTERFACES: dict[str, tuple[Callable[[], SessionInterface], Fields, Fields]] = {
    "subclass": (Subclass, ALICE, BOB),
    "instance": (in_instance, ALICE, BOB),
    "session-class": (by_session_class, ALICE, BOB),
    "server-side": (ServerSide, {"Cookie": "session=sid-a"}, {"Cookie": "session=sid-b"}),
}


def at_view(app: Flask, cache: StaleCache, show: Callable[[], str]) -> None:
    app.add_url_rule("/", "page", cache.cached(60)(show))


def at_coded(app: Flask, cache: StaleCache, show: Callable[[], str]) -> None:
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(show))


def at_gateway(app: Flask, cache: StaleCache, show: Callable[[], str]) -> None:
    app.add_url_rule("/", "page", lambda: Response(show(), headers={"Cache-Control": "public, max-age=60"}))


FRONTS = pytest.mark.parametrize(
    ("front", "config"), [(at_view, {}), (at_coded, {}), (at_gateway, {"GATEWAY": True})], ids=["view", "coded", "gateway"]
)


def play(make_app: MakeApp, front: Callable[..., None], config: Any, name: str, *visitors: Fields) -> list[str]:
    """Make the visits, compare each page with the one without a cache, and return the cache status words."""
    make, _, _ = INTERFACES[name]
    said = []
    sites = []
    for more in ({**config}, {**config, "ENABLED": False}):
        app, cache = make_app(**more)
        app.session_interface = make()
        front(app, cache, lambda: f"hello {g.user}")
        sites.append(app)
    for fields in visitors:
        seen, expected = (visit(app, "/", fields) for app in sites)
        assert seen.text == expected.text, (said, fields)
        said.append(seen.word)
    return said


@pytest.mark.grid
@FRONTS
@pytest.mark.parametrize("name", INTERFACES)
def test_who_is_looked_up_when_the_session_is_opened_is_not_shared(
    make_app: MakeApp, front: Callable[..., None], config: Any, name: str
) -> None:
    _, alice, bob = INTERFACES[name]
    assert play(make_app, front, config, name, NOBODY, alice, bob, NOBODY, alice) == ["MISS", "BYPASS", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.grid
@FRONTS
@pytest.mark.parametrize("name", INTERFACES)
def test_a_member_who_comes_first_fills_nothing(make_app: MakeApp, front: Callable[..., None], config: Any, name: str) -> None:
    _, alice, bob = INTERFACES[name]
    said = play(make_app, front, config, name, alice, bob, NOBODY, NOBODY, alice)
    assert said == ["MISS", "MISS", "MISS", "HIT", "BYPASS"]


@FRONTS
def test_flasks_own_interface_tells_members_apart_only_where_a_page_uses_the_session(
    make_app: MakeApp, front: Callable[..., None], config: Any
) -> None:
    app, cache = make_app(**config)
    front(app, cache, lambda: "the same for all")
    assert [visit(app, "/", fields).word for fields in (ALICE, BOB, NOBODY)] == ["MISS", "HIT", "HIT"]


@FRONTS
def test_pages_of_strangers_are_shared_with_any_interface(make_app: MakeApp, front: Callable[..., None], config: Any) -> None:
    app, cache = make_app(**config)
    app.session_interface = Empty()
    front(app, cache, lambda: f"hello {session.get('user', 'stranger')}")
    said = [visit(app, "/", fields).page for fields in (NOBODY, {"Cookie": "theme=dark"}, {"Cookie": cookie_of("bob")})]
    assert said == [("MISS", "hello stranger"), ("HIT", "hello stranger"), ("BYPASS", "hello bob")]


@pytest.mark.parametrize("name", ["subclass", "server-side"])
def test_ignore_session_covers_the_opening_of_the_session(make_app: MakeApp, name: str) -> None:
    """It is the developer's word that the page depends on nothing of it."""
    make, alice, bob = INTERFACES[name]
    app, cache = make_app()
    app.session_interface = make()
    app.add_url_rule("/", "page", cache.cached(60, ignore_session=True)(lambda: "the same for all"))
    assert [visit(app, "/", fields).word for fields in (alice, bob, NOBODY)] == ["MISS", "HIT", "HIT"]
