"""A magazine: Flask-Login, -WTF, -Babel, -Session, -Talisman, -Principal, flash messages, and views that are classes.

Apart from lifetimes, nothing in it is written for the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import time_machine
from cachelib import SimpleCache
from flask import Flask, Request, Response, current_app, flash, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from flask.views import MethodView, View
from flask_babel import Babel, format_date, get_locale
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_principal import Identity, Permission, Principal, RoleNeed, identity_changed, identity_loaded
from flask_session import Session
from flask_talisman import Talisman
from flask_wtf import CSRFProtect, FlaskForm
from jinja2 import DictLoader
from wtforms import BooleanField, PasswordField, StringField
from wtforms.validators import DataRequired

from support.clock import NOON
from support.real_apps.flask_sites import VIEW, WINDOWS, built, cached_app, signed_session
from support.real_apps.walks import Built, RealApp

LANGUAGES = ("en", "de", "fr", "pl")
DAY = date(2026, 11, 29)

BASE = """<!doctype html><html lang="{{ get_locale() }}"><title>{{ title }}</title>
<nav>{% if current_user.is_authenticated %}hello {{ current_user.id }} <a href="{{ url_for('logout') }}">leave</a>
{% else %}<a href="{{ url_for('login') }}">log in</a>{% endif %}</nav>
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>{% endfor %}
<main>{% block main %}{% endblock %}</main><footer>{{ format_date(day, "full") }}</footer></html>"""
TEMPLATES = {
    "base.html": BASE,
    "text.html": "{% extends 'base.html' %}{% block main %}<h1>{{ title }}</h1>{% for line in lines %}<p>{{ line }}</p>{% endfor %}"
    "{% if admin %}<a href='/edit'>edit</a>{% endif %}{% endblock %}",
    "form.html": "{% extends 'base.html' %}{% block main %}<form method=post>{{ form.hidden_tag() }}"
    "{% for field in form if field.type != 'CSRFTokenField' %}{{ field.label }}{{ field() }}{{ field.errors|join }}{% endfor %}"
    "</form>{% endblock %}",
    "map.html": "{% extends 'base.html' %}{% block main %}<script nonce=\"{{ csp_nonce() }}\">draw()</script>{% endblock %}",
}


#: The same templates with what depends on the visitor in holes.
WITH_HOLES = {
    **TEMPLATES,
    "base.html": BASE.replace("<nav>", "<nav>{% hole %}")
    .replace("</nav>\n{% for", "{% endhole %}</nav>\n{% hole %}{% for")
    .replace("{% endfor %}\n<main>", "{% endfor %}{% endhole %}\n<main>"),
}


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


class LoginForm(FlaskForm):
    name = StringField("name", [DataRequired()])
    password = PasswordField("password", [DataRequired()])
    remember = BooleanField("remember")


class ContactForm(FlaskForm):
    text = StringField("text", [DataRequired()])


def choose_locale() -> str | None:
    """As Flask-Babel's documentation writes it, with a language that the visitor has chosen."""
    chosen = session.get("lang") or request.cookies.get("lang")
    return chosen if chosen in LANGUAGES else request.accept_languages.best_match(LANGUAGES)


def text(title: str, *lines: str, **more: Any) -> str:
    return render_template("text.html", title=title, lines=lines, **more)


# -- the views -------------------------------------------------------------------------------------------------------

editors = Permission(RoleNeed("editor"))


def home() -> str:
    return text("home", "first", "second")


def article(number: int) -> str:
    return text(f"article {number}", "text", admin=editors.can())


def tag(name: str) -> str:
    return text(f"about {name}", f"page {request.args.get('page', 1, type=int)}")


def about() -> str:
    return text("about", f"We write in {get_locale().display_name}")


class Terms(View):
    def dispatch_request(self) -> str:
        return text("terms", "none")


class Archive(MethodView):
    def get(self) -> str:
        return text("archive", "2025", "2026")


def prices() -> str:
    return text("prices", "dear" if editors.can() else "cheap")


def feed() -> Response:
    return Response("<rss><item>first</item></rss>", mimetype="application/rss+xml")


def search() -> str:
    return text("search", f"found {request.args.get('q', 'nothing')}")


def plan() -> str:
    return render_template("map.html", title="map")


@login_required
def account() -> str:
    return text("account", f"yours, {current_user.id}")


def contact() -> ResponseReturnValue:
    form = ContactForm()
    if form.validate_on_submit():
        flash(f"Thank you for {form.text.data}")
        return redirect(url_for("home"))
    return render_template("form.html", title="contact", form=form)


def discussion(number: int) -> ResponseReturnValue:
    form = ContactForm()
    if form.validate_on_submit():
        flash("Your comment waits for the editors")
        return redirect(url_for("article", number=number))
    return render_template("form.html", title=f"discussion of {number}", form=form)


def login() -> ResponseReturnValue:
    form = LoginForm()
    if form.validate_on_submit() and form.password.data == "secret":
        login_user(User(form.name.data), remember=form.remember.data)
        identity_changed.send(current_app._get_current_object(), identity=Identity(form.name.data))  # type: ignore[attr-defined]
        flash("Welcome back")
        return redirect(request.args.get("next") or url_for("home"))
    return render_template("form.html", title="login", form=form)


def logout() -> ResponseReturnValue:
    logout_user()
    # As Flask-Principal's documentation writes it; the names are those that it uses.
    for key in ("identity.id", "identity.auth_type"):
        session.pop(key, None)
    flash("See you")
    return redirect(url_for("home"))


def speak(code: str) -> ResponseReturnValue:
    session["lang"] = code
    session.permanent = True
    return redirect(url_for("about"))


def speak_by_cookie(code: str) -> ResponseReturnValue:
    response = redirect(url_for("about"))
    response.set_cookie("lang", code)
    return response


#: Path, endpoint, view and methods of the pages.
PAGES: dict[str, tuple[str, Callable[..., Any], list[str]]] = {
    "/": ("home", home, ["GET"]),
    "/articles/<int:number>": ("article", article, ["GET"]),
    "/tags/<name>": ("tag", tag, ["GET"]),
    "/about": ("about", about, ["GET"]),
    "/terms": ("terms", Terms.as_view("terms"), ["GET"]),
    "/archive": ("archive", Archive.as_view("archive"), ["GET"]),
    "/prices": ("prices", prices, ["GET"]),
    "/feed.xml": ("feed", feed, ["GET"]),
    "/search": ("search", search, ["GET"]),
    "/map": ("plan", plan, ["GET"]),
    "/account": ("account", account, ["GET"]),
    "/contact": ("contact", contact, ["GET", "POST"]),
    "/articles/<int:number>/discussion": ("discussion", discussion, ["GET", "POST"]),
    "/login": ("login", login, ["GET", "POST"]),
}
#: They only change the visitor's login or language: nobody would decorate them.
ACTIONS = {
    "/logout": ("logout", logout),
    "/speak/<code>": ("speak", speak),
    "/speak/<code>/by-cookie": ("speak_by_cookie", speak_by_cookie),
}


# -- the app ---------------------------------------------------------------------------------------------------------


def build(
    front: str | None,
    folder: Path | None,
    *,
    on_server: bool = False,
    with_holes: bool = False,
    gateway: bool = False,
    **config: Any,
) -> Built:
    """Build the site.

    :param front: :data:`VIEW` or :data:`GATEWAY`; ``None``: without a cache.
    :param folder: the directory of the cache.
    :param on_server: Flask-Session keeps the sessions.
    :param with_holes: what depends on the visitor is in holes. Without a cache, there are no holes.
    :param gateway: views are decorated with ``gateway=True``.
    :param config: more configuration.
    """
    app = Flask("magazine", root_path=str(Path(__file__).parent), static_folder=None)
    app.secret_key = "not a secret"
    app.jinja_loader = DictLoader(WITH_HOLES if with_holes and front is not None else TEMPLATES)
    app.config.update(config)
    sessions = _keep_sessions(app) if on_server else None
    extensions = _add_extensions(app)
    cache = cached_app(app, front, folder)
    for path, (name, view, methods) in PAGES.items():
        shown = cache.cached(**WINDOWS, gateway=gateway)(view) if cache is not None and front == VIEW else view
        app.add_url_rule(path, name, shown, methods=methods)
    for path, (name, view) in ACTIONS.items():
        app.add_url_rule(path, name, view)
    session_of = partial(_kept_session, sessions) if sessions is not None else lru_cache(partial(signed_session, app))
    return built(app, session_of, cache, *extensions)


def _add_extensions(app: Flask) -> tuple[object, ...]:
    manager = LoginManager(app)
    manager.user_loader(User)
    manager.login_view = "login"
    # Signals hold their receivers weakly, so the caller keeps what is returned.
    principal = Principal(app)
    identity_loaded.connect(_give_roles, app)
    policy = {"default-src": "'self'", "script-src": "'self'"}
    talisman = Talisman(app, content_security_policy=policy, content_security_policy_nonce_in=["script-src"])
    babel = Babel(app, locale_selector=choose_locale)
    app.jinja_env.globals.update(get_locale=get_locale, format_date=format_date, day=DAY)
    return manager, principal, talisman, babel, CSRFProtect(app)


def _give_roles(sender: Flask, identity: Identity) -> None:
    if identity.id == "bob":
        identity.provides.add(RoleNeed("editor"))


def _keep_sessions(app: Flask) -> SimpleCache:
    sessions = SimpleCache(threshold=100_000)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=sessions)
    Session(app)
    return sessions


def _kept_session(sessions: SimpleCache, value: str) -> Mapping[str, Any]:
    return sessions.get(f"session:{value}") or {}


def signed(values: Mapping[str, Any], *, ago: float = 0.0, key: str = "not a secret") -> str:
    """Return a session cookie.

    :param ago: how many seconds before the walk it was signed.
    :param key: the secret.
    """
    app = Flask("magazine")
    app.secret_key = key
    with time_machine.travel(NOON - ago, tick=False):
        return SecureCookieSessionInterface().get_signing_serializer(app).dumps(dict(values))  # type: ignore[union-attr,no-any-return]


_PAGES = (
    "/",
    "/articles/1",
    "/articles/2",
    "/tags/news?page=2",
    "/about",
    "/terms",
    "/archive",
    "/prices",
    "/feed.xml",
    "/search?q=tea",
)
_PATHS: dict[str, Any] = {
    "offered": LANGUAGES,
    "pages": _PAGES,
    "forms": {"/contact": {"text": "tea"}, "/articles/1/discussion": {"text": "well said"}, "/login": {}},
    "others": ("/map", "/account"),
    "languages": tuple(f"/speak/{code}{way}" for code in LANGUAGES for way in ("", "/by-cookie")),
}


def open_session(app: Flask, request: Request) -> Any:
    return app.session_interface.open_session(app, request)


MAGAZINE = RealApp("magazine", build, **_PATHS)
MAGAZINE_ON_SERVER = RealApp("magazine, Flask-Session", partial(build, on_server=True), **_PATHS)
#: Outside of holes, its pages depend on the language only. Pages that ask for a permission can't be shared.
_WITH_HOLES: dict[str, Any] = {
    **_PATHS,
    "pages": ("/", "/tags/news?page=2", "/about", "/terms", "/archive", "/search?q=tea", "/feed.xml", *_PATHS["forms"], "/map"),
    "others": ("/account", "/articles/1", "/articles/2", "/prices"),
    "user_key": "",
    "own": frozenset({"lang"}),
    "is_shared": True,
}
MAGAZINE_WITH_HOLES = RealApp("magazine, holes", partial(build, with_holes=True), **_WITH_HOLES)
MAGAZINE_ON_SERVER_WITH_HOLES = RealApp(
    "magazine, Flask-Session, holes", partial(build, with_holes=True, on_server=True), **_WITH_HOLES
)
#: Pages of a view with ``gateway=True`` are stored by the app, from the first one with holes on.
MAGAZINE_AT_GATEWAY_WITH_HOLES = RealApp(
    "magazine, gateway=True, holes", partial(build, with_holes=True, gateway=True), **_WITH_HOLES
)
MAGAZINE_OPENED = RealApp(
    "magazine, Flask-Session, opener", partial(build, on_server=True, STALECACHE_SESSION_OPENER=open_session), **_PATHS
)
