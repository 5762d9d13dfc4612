"""A microblog, as a well-known tutorial builds one: Flask-Login, -SQLAlchemy, -Moment, Bootstrap-Flask, -WTF, -Babel, -Compress.

A hook notes when members were last seen, pages of the public show dates by Moment, and a post drops the pages that show posts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flask import Flask, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import Babel, get_locale
from flask_bootstrap import Bootstrap5
from flask_compress import Compress
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_moment import Moment
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import FlaskForm
from jinja2 import DictLoader
from sqlalchemy import select
from sqlalchemy.pool import StaticPool
from wtforms import BooleanField, PasswordField, StringField, SubmitField, TextAreaField
from wtforms.validators import DataRequired, Length

from flask_stalecache import StaleCache
from support.real_apps.flask_sites import VIEW, WINDOWS, built, cached_app, signed_session
from support.real_apps.walks import Built, RealApp

TEMPLATES = {
    "base.html": """<!doctype html><html lang="{{ g.locale }}">{{ bootstrap.load_css() }}<title>{{ title }}</title>
<nav>{% if current_user.is_anonymous %}<a href="{{ url_for('login') }}">log in</a>{% else %}{{ current_user.name }}
{% if g.search_form %}<form action="/search">{{ g.search_form.q() }}</form>{% endif %}{% endif %}</nav>
{% for message in get_flashed_messages() %}<p class="alert">{{ message }}</p>{% endfor %}
{% block content %}{% endblock %}{{ moment.include_moment() }}{{ moment.lang(g.locale) }}</html>""",
    "posts.html": """{% extends "base.html" %}{% block content %}{% for post in posts %}<p>{{ post.author }}
{{ moment(post.written).fromNow() }}: {{ post.body }} <a href="{{ url_for('post', number=post.id) }}">more</a>{% endfor %}
{% if form %}<form method=post>{{ form.hidden_tag() }}{{ form.text() }}</form>{% endif %}
{% if person %}{{ moment(person.last_seen).format("LLL") }}<form method=post>{{ empty.hidden_tag() }}</form>{% endif %}
{% if older %}<a href="{{ older }}">older</a>{% endif %}{% endblock %}""",
    "form.html": """{% extends "base.html" %}{% from "bootstrap5/form.html" import render_form %}
{% block content %}{{ render_form(form) }}{% endblock %}""",
}
PER_PAGE = 3


class LoginForm(FlaskForm):
    name = StringField("name", [DataRequired()])
    password = PasswordField("password", [DataRequired()])
    remember = BooleanField("remember")
    submit = SubmitField("log in")


class PostForm(FlaskForm):
    text = TextAreaField("text", [DataRequired(), Length(max=140)])
    submit = SubmitField("post")


class EmptyForm(FlaskForm):
    submit = SubmitField("follow")


class SearchForm(FlaskForm):
    q = StringField("search", [DataRequired()])

    def __init__(self, **options: Any) -> None:
        super().__init__(formdata=request.args, meta={"csrf": False}, **options)


def build(front: str | None, folder: Path | None, **config: Any) -> Built:
    """Build the site.

    :param front: the front of the cache; ``None``: without one.
    :param folder: its directory.
    """
    app = Flask("microblog", root_path=str(Path(__file__).parent), static_folder=None)
    app.secret_key = "not a secret"
    app.jinja_loader = DictLoader(TEMPLATES)
    engine = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_ENGINE_OPTIONS=engine, **config)
    db = SQLAlchemy(app)

    class User(UserMixin, db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String, unique=True)
        last_seen = db.Column(db.DateTime)

    class Post(db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)
        author = db.Column(db.String)
        body = db.Column(db.String)
        written = db.Column(db.DateTime)

    with app.app_context():
        db.create_all()
        day = datetime(2026, 11, 1)
        db.session.add_all(Post(author="ann", body=f"post {number}", written=day.replace(day=number)) for number in range(1, 8))
        db.session.commit()
    manager = LoginManager(app)
    manager.login_view = "login"
    manager.user_loader(lambda key: db.session.get(User, int(key)))
    extensions = manager, Moment(app), Bootstrap5(app), Babel(app, locale_selector=choose_locale), Compress(app), db
    cache = cached_app(app, front, folder)
    _add_hook(app, db)
    for path, (name, view) in _views(db, User, Post, cache).items():
        shown = cache.cached(**WINDOWS)(view) if cache is not None and front == VIEW and name != "logout" else view
        app.add_url_rule(path, name, shown, methods=["GET", "POST"])
    return built(app, lru_cache(partial(signed_session, app)), cache, *extensions)


def choose_locale() -> str | None:
    return request.accept_languages.best_match(["en", "es"])


def _add_hook(app: Flask, db: SQLAlchemy) -> None:
    @app.before_request
    def before_request() -> None:
        if current_user.is_authenticated:
            current_user.last_seen = datetime.now(timezone.utc)
            db.session.commit()
            g.search_form = SearchForm()
        g.locale = str(get_locale())


def _views(db: SQLAlchemy, User: Any, Post: Any, cache: StaleCache | None) -> dict[str, tuple[str, Callable[..., Any]]]:
    def posts(query: Any, title: str, page: int = 1, **more: Any) -> str:
        if cache is not None:
            cache.tag("posts")
        found = db.paginate(query.order_by(Post.written.desc(), Post.id.desc()), page=page, per_page=PER_PAGE, error_out=False)
        older = url_for(request.endpoint or "", page=found.next_num) if found.has_next and not more else None
        return render_template("posts.html", title=title, posts=found.items, older=older, **more)

    @login_required
    def index() -> ResponseReturnValue:
        form = PostForm()
        if form.validate_on_submit():
            db.session.add(Post(author=current_user.name, body=form.text.data, written=datetime.now(timezone.utc)))
            db.session.commit()
            if cache is not None:
                cache.purge(tag="posts")
            flash("Your post is now live!")
            return redirect(url_for("index"))
        return posts(select(Post), "home", form=form)

    def explore() -> ResponseReturnValue:
        return posts(select(Post), "explore", request.args.get("page", 1, type=int))

    def by_author(name: str) -> ResponseReturnValue:
        return posts(select(Post).where(Post.author == name), name, has_author=True)

    def post(number: int) -> ResponseReturnValue:
        return posts(select(Post).where(Post.id == number), f"post {number}", is_one=True)

    @login_required
    def user(name: str) -> ResponseReturnValue:
        person = db.first_or_404(select(User).where(User.name == name))
        form = EmptyForm()
        if form.validate_on_submit():
            flash(f"You are following {name}!")
            return redirect(url_for("user", name=name))
        return posts(select(Post).where(Post.author == name), name, person=person, empty=form)

    def login() -> ResponseReturnValue:
        if current_user.is_authenticated:
            return redirect(url_for("index"))
        form = LoginForm()
        if form.validate_on_submit():
            person = db.session.scalar(select(User).where(User.name == form.name.data)) or User(name=form.name.data)
            db.session.add(person)
            db.session.commit()
            login_user(person, remember=form.remember.data)
            return redirect(request.args.get("next") or url_for("index"))
        return render_template("form.html", title="log in", form=form)

    def logout() -> ResponseReturnValue:
        logout_user()
        return redirect(url_for("explore"))

    return {
        "/": ("index", index),
        "/explore": ("explore", explore),
        "/by/<name>": ("by_author", by_author),
        "/post/<int:number>": ("post", post),
        "/user/<name>": ("user", user),
        "/login": ("login", login),
        "/logout": ("logout", logout),
    }


MICROBLOG = RealApp(
    "microblog",
    build,
    pages=("/explore", "/explore?page=2", "/post/3", "/by/ann", "/post/5"),
    forms={"/": {"text": "hello"}, "/login": {}},
    offered=("en", "es"),
    others=("/user/ann", "/user/bob"),
)
