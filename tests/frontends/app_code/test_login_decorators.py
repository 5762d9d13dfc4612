"""The order of ``cached(ignore_session=True)`` and decorators that ask who is logged in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import abort, session
from flask_login import LoginManager, UserMixin, login_required

from flask_stalecache.frontends.app_code.login_decorators import login_decorator
from support.client import MakeApp, visit
from support.privacy import NOBODY, as_member, lines


def members_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of an app's own."""

    @wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs) if session.get("user") else abort(401)

    return wrapped


def counted(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


def page() -> str:
    return "for members"


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (login_required(page), "flask_login.utils."),
        (counted(login_required(page)), "flask_login.utils."),
        (members_only(page), f"{__name__}.members_only"),
        (counted(page), None),
        (page, None),
        (None, None),
    ],
    ids=["flask-login", "within", "own", "another", "none", "no-view"],
)
def test_the_decorator_is_found(view: Callable[..., Any] | None, found: str | None) -> None:
    name = login_decorator(view)
    assert name is found if found is None or name is None else name.startswith(found)


@pytest.mark.parametrize("decorator", [login_required, members_only])
@pytest.mark.parametrize("gateway", [False, True])
def test_a_line_warns_where_the_session_is_ignored_above_a_login(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, decorator: Callable[..., Any], gateway: bool
) -> None:
    app, cache = make_app()
    LoginManager(app).user_loader(lambda ident: UserMixin())
    app.add_url_rule("/", "page", cache.cached(60, ignore_session=True, gateway=gateway)(decorator(page)))
    ann = as_member("ann", **{"X-More": "1"})
    for fields in (ann, NOBODY, NOBODY):
        visit(app, "/", fields)
    said = [line for line in lines(caplog) if "may show a member's page to everybody" in line]
    assert len(said) == 1
    assert "below" in said[0]


def test_the_right_order_asks_each_visitor_and_warns_of_nothing(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", members_only(cache.cached(60, ignore_session=True)(page)))
    said = [
        (visit(app, "/", fields).status, visit(app, "/", fields).word) for fields in (as_member("ann"), as_member("bob"), NOBODY)
    ]
    assert said == [(200, "HIT"), (200, "HIT"), (401, "")]
    assert not [line for line in lines(caplog) if "member's page" in line]


def test_without_ignore_session_the_wrong_order_shows_nothing_to_others(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(members_only(page)))
    assert [visit(app, "/", fields).status for fields in (as_member("ann"), NOBODY, as_member("bob"), NOBODY)] == [
        200,
        401,
        200,
        401,
    ]
    assert not [line for line in lines(caplog) if "member's page" in line]
