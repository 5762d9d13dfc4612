"""A forum: each page has a search form with a token, sessions are in a database, guests have permissions, a hook counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import Babel, get_locale
from flask_login import AnonymousUserMixin, LoginManager, UserMixin, current_user, login_user, logout_user
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect, FlaskForm
from jinja2 import DictLoader
from sqlalchemy import text
from sqlalchemy.pool import StaticPool
from wtforms import BooleanField, PasswordField, StringField
from wtforms.validators import DataRequired

from support.real_apps.flask_sites import VIEW, WINDOWS, built, cached_app
from support.real_apps.walks import Built, RealApp

TEMPLATES = {
    "base.html": """<!doctype html><html lang="{{ get_locale() }}"><title>{{ title }}</title>
<nav>{{ current_user.name }}{% if current_user.may_write %} <a href="/new">new topic</a>{% endif %}
<form action="/search" method=post>{{ search_form.hidden_tag() }}{{ search_form.text() }}</form></nav>
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>{% endfor %}
{% block main %}{% endblock %}</html>""",
    "topic.html": "{% extends 'base.html' %}{% block main %}<h1>{{ title }}</h1>{{ lines|join(', ') }}{% endblock %}",
    "form.html": "{% extends 'base.html' %}{% block main %}<form method=post>{{ form.hidden_tag() }}{{ form.text() if form.text }}"
    "</form>{% endblock %}",
}


class SearchForm(FlaskForm):
    text = StringField("text", [DataRequired()])


class LoginForm(FlaskForm):
    name = StringField("name", [DataRequired()])
    password = PasswordField("password", [DataRequired()])
    remember = BooleanField("remember")


class Guest(AnonymousUserMixin):
    name = "guest"
    may_write = False
    language = None


class User(UserMixin):
    may_write = True
    language = None

    def __init__(self, name: str) -> None:
        self.id = self.name = name


def build(front: str | None, folder: Path | None, *, counts_guests: bool = False, **config: Any) -> Built:
    """Build the site.

    :param front: the front of the cache; ``None``: without one.
    :param folder: its directory.
    :param counts_guests: a hook counts guests by their address, as forums do.
    """
    app = Flask("forum", root_path=str(Path(__file__).parent), static_folder=None)
    app.secret_key = "not a secret"
    app.jinja_loader = DictLoader(TEMPLATES)
    engine = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_ENGINE_OPTIONS=engine, **config)
    db = SQLAlchemy(app)
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
    Session(app)
    manager = LoginManager(app)
    manager.anonymous_user = Guest
    manager.user_loader(User)
    extensions = manager, Babel(app, locale_selector=choose_locale), CSRFProtect(app), db
    app.jinja_env.globals["get_locale"] = get_locale
    app.context_processor(lambda: {"search_form": SearchForm()})
    cache = cached_app(app, front, folder)
    online: set[str | None] = set()

    @app.before_request
    def mark_online() -> None:
        if current_user.is_authenticated:
            g.seen = current_user.name
        elif counts_guests:
            online.add(request.remote_addr)

    for path, (name, view) in VIEWS.items():
        shown = cache.cached(**WINDOWS)(view) if cache is not None and front == VIEW and name != "logout" else view
        app.add_url_rule(path, name, shown, methods=["GET", "POST"])
    return built(app, partial(_session_of, app, db), cache, *extensions)


def choose_locale() -> str | None:
    return current_user.language or request.accept_languages.best_match(["en", "de", "pt"])


def _session_of(app: Flask, db: SQLAlchemy, value: str) -> Mapping[str, Any]:
    with app.app_context(), db.engine.connect() as connection:
        found = connection.execute(
            text("select data from sessions where session_id = :name"), {"name": f"session:{value}"}
        ).scalar()
    return msgspec.msgpack.decode(found) if found else {}


def board() -> ResponseReturnValue:
    return render_template("topic.html", title="board", lines=["one", "two"])


def topic(number: int) -> ResponseReturnValue:
    return render_template("topic.html", title=f"topic {number}", lines=["first post", "second post"])


def feed() -> ResponseReturnValue:
    return {"topics": [1, 2]}


def search() -> ResponseReturnValue:
    form = SearchForm()
    lines = [f"found {form.text.data}"] if form.validate_on_submit() else []
    return render_template("topic.html", title="search", lines=lines)


def new() -> ResponseReturnValue:
    form = SearchForm()
    if form.validate_on_submit():
        flash(f"Thanks for {form.text.data}" if current_user.may_write else "You may not write here")
        return redirect(url_for("board"))
    return render_template("form.html", title="new topic", form=form)


def login() -> ResponseReturnValue:
    form = LoginForm()
    if form.validate_on_submit():
        login_user(User(form.name.data), remember=form.remember.data)
        return redirect(url_for("board"))
    return render_template("form.html", title="log in", form=form)


def logout() -> ResponseReturnValue:
    logout_user()
    flash("Logged out")
    return redirect(url_for("board"))


VIEWS: dict[str, tuple[str, Callable[..., Any]]] = {
    "/": ("board", board),
    "/topic/<int:number>": ("topic", topic),
    "/feed.json": ("feed", feed),
    "/search": ("search", search),
    "/new": ("new", new),
    "/login": ("login", login),
    "/logout": ("logout", logout),
}
_PATHS: dict[str, Any] = {
    "offered": ("en", "de", "pt"),
    "pages": ("/feed.json",),
    "with_form": ("/", "/topic/1", "/topic/2"),
    "forms": {"/new": {"text": "tea"}, "/search": {"text": "tea"}, "/login": {}},
}
FORUM = RealApp("forum", build, **_PATHS)
FORUM_THAT_COUNTS = RealApp("forum that counts guests", partial(build, counts_guests=True), **_PATHS)
