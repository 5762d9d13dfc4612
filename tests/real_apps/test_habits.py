"""Habits of real apps around their sessions: what strangers get from the store, and that nobody gets what was made for another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, current_app, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, confirm_login, current_user, login_user, logout_user
from flask_principal import AnonymousIdentity, Identity, Principal, identity_changed
from flask_wtf import CSRFProtect, FlaskForm
from flask_wtf.csrf import generate_csrf
from jinja2 import DictLoader
from wtforms import StringField

from support.clock import NOON
from support.real_apps.flask_sites import GATEWAY, VIEW, WINDOWS, built, cached_app, signed_session
from support.real_apps.walks import Built, RealApp, Step, Visitor, Walk, compare

pytestmark = pytest.mark.usefixtures("no_housekeeping")

TEMPLATES = {
    "page.html": "<p>{{ current_user.id or 'nobody' }} {{ g.shown }} {{ extra }}</p>"
    "{% for message in get_flashed_messages() %}<b class=flash>{{ message }}</b>{% endfor %}",
    "form.html": "<form method=post>{{ form.hidden_tag() }}</form>",
}


class TextForm(FlaskForm):
    name = StringField("name")


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


def page() -> str:
    return render_template("page.html")


def form() -> ResponseReturnValue:
    if TextForm().validate_on_submit():
        flash("thank you")
        return redirect(url_for("page"))
    return render_template("form.html", form=TextForm())


def login() -> ResponseReturnValue:
    if TextForm().validate_on_submit():
        login_user(User(request.form["name"]))
        identity_changed.send(current_app._get_current_object(), identity=Identity(request.form["name"]))  # type: ignore[attr-defined]
        session["user"] = request.form["name"]
        return redirect(url_for("page"))
    return render_template("form.html", form=TextForm())


def logout() -> ResponseReturnValue:
    logout_user()
    session.pop("user", None)
    return redirect(url_for("page"))


def build(habit: Callable[[Flask], Any], front: str | None, folder: Path | None) -> Built:
    app = Flask("shop", root_path=str(Path(__file__).parent), static_folder=None)
    app.secret_key = "not a secret"
    app.jinja_loader = DictLoader(TEMPLATES)
    manager = LoginManager(app)
    manager.user_loader(User)
    manager.anonymous_user = lambda: type("Nobody", (), {"is_authenticated": False, "id": None})()  # type: ignore[assignment]
    kept = CSRFProtect(app), habit(app)
    cache = cached_app(app, front, folder)
    for name, view in (("page", page), ("form", form), ("login", login), ("logout", logout)):
        shown = cache.cached(**WINDOWS)(view) if cache is not None and front == VIEW and name != "logout" else view
        app.add_url_rule(f"/{name}", name, shown, methods=["GET", "POST"])
    return built(app, partial(signed_session, app), cache, manager, *kept)


# -- the habits ------------------------------------------------------------------------------------------------------


def none(app: Flask) -> None:
    """The extensions alone."""


def token_in_cookie(app: Flask) -> None:
    @app.after_request
    def for_scripts(response: Response) -> Response:
        response.set_cookie("csrf_token", generate_csrf())
        return response


def permanent(app: Flask) -> None:
    @app.before_request
    def stay() -> None:
        session.permanent = True


def last_visit(app: Flask) -> None:
    @app.before_request
    def note() -> None:
        session["last"] = int(NOON)


def user_in_hook(app: Flask) -> None:
    @app.before_request
    def load() -> None:
        name = session.get("user")
        g.shown = f"member {name}" if name else ""


def user_in_after_request(app: Flask) -> None:
    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-User"] = session.get("user", "nobody")
        return response


def user_in_context_processor(app: Flask) -> None:
    app.context_processor(lambda: {"extra": session.get("user", "")})


def basket(app: Flask) -> None:
    app.context_processor(lambda: {"extra": f"{len(session.get('basket', []))} in your basket"})


def language(app: Flask) -> None:
    @app.before_request
    def choose() -> None:
        g.shown = request.accept_languages.best_match(["en", "de"], "en")


def principal(app: Flask) -> Principal:
    return Principal(app)


def principal_as_documented(app: Flask) -> Principal:
    @app.after_request
    def forget(response: Response) -> Response:
        if request.endpoint == "logout":
            identity_changed.send(app, identity=AnonymousIdentity())
        return response

    return Principal(app)


def strong(app: Flask) -> None:
    app.login_manager.session_protection = "strong"  # type: ignore[attr-defined]


def fresh_login(app: Flask) -> None:
    @app.before_request
    def confirm() -> None:
        if current_user.is_authenticated:
            confirm_login()


def logged_user(app: Flask) -> None:
    lines: list[object] = []

    @app.teardown_request
    def log(error: BaseException | None) -> None:
        lines.append((request.path, session.get("user")))


def preferences(app: Flask) -> None:
    @app.before_request
    def parse() -> None:
        chosen = {name: value for name, value in request.cookies.items() if name.startswith("prefer_")}
        g.shown = str(chosen)


HABITS = (
    none, token_in_cookie, permanent, last_visit, user_in_hook, user_in_after_request, user_in_context_processor, basket, language,
    principal, principal_as_documented, strong, fresh_login, logged_user, preferences,
)  # fmt: skip

#: The habits with fewer than six hits in six requests: the hits with the cache at the view, and at the gateway.
FEWER: dict[Callable[[Flask], Any], tuple[int, int]] = {
    # Each response sets a cookie.
    token_in_cookie: (6, 0),
    last_visit: (6, 0),
    # Flask-Principal keeps the identity in the session, which the gateway sees as a cookie.
    principal: (6, 4),
    principal_as_documented: (6, 4),
    # The hook reads all cookies, so that only visitors without cookies share a page.
    preferences: (2, 2),
}

FIRST, OTHER, ANN = 0, 1, 2
NAME = (("name", "ann"),)
STEPS = (
    Step(FIRST, "/page"),
    Step(OTHER, "/form"),
    Step(OTHER, "/page"),
    Step(ANN, "/login", NAME),
    Step(ANN, "/page"),
    Step(FIRST, "/page"),
    Step(OTHER, "/form", NAME),
    Step(OTHER, "/page"),
    Step(OTHER, "/login", (("name", "bob"),)),
    Step(OTHER, "/page"),
    Step(OTHER, "/logout"),
    Step(ANN, "/page", pause=700),
    Step(FIRST, "/page"),
    Step(OTHER, "/page"),
)
WALK = Walk(
    (Visitor((("HTTP_ACCEPT_LANGUAGE", "de"),)), Visitor((("HTTP_ACCEPT_LANGUAGE", "de-AT,de;q=0.9"),)), Visitor(())), STEPS
)


@pytest.mark.grid
@pytest.mark.parametrize("front", [VIEW, GATEWAY])
@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_each_visitor_sees_what_the_site_shows_without_a_cache(habit: Callable[[Flask], Any], front: str, directory: Path) -> None:
    site = RealApp(habit.__name__, partial(build, habit), pages=("/page",), forms={"/form": {}})
    walked = compare(site, site.build(front, directory), WALK)
    assert walked.total.possible == 6
    assert walked.total.hits == FEWER.get(habit, (6, 6))[front == GATEWAY]
