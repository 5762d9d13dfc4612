"""The usual ways to log in, on real workers: strangers come from the cache, members are live, and nobody sees another's page."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest
import requests

from support.servers import PATIENCE, Server, serving

pytestmark = pytest.mark.server

#: Two workers with threads: the second answers from what the first one stored.
KIND = "gthread"

COMMON = """
import os
from flask import Flask
from flask_stalecache import StaleCache

cache = StaleCache()
app = Flask(__name__)
app.secret_key = "not a secret"
app.config["STALECACHE_DIR"] = os.environ["DIR"]
app.config["STALECACHE_REFRESH_BACKOFF"] = (0.1, 0.2)
cache.init_app(app)
"""

#: As Flask-Login's documentation has it: the extension, a user_loader, login_user, logout_user, login_required, current_user.
FLASK_LOGIN = (
    COMMON
    + """
from flask import redirect, render_template_string, request, url_for
import flask_login

login_manager = flask_login.LoginManager()
login_manager.init_app(app)
login_manager.login_view = "login"
users = {"ann": {"password": "secret"}, "bob": {"password": "secret"}}

LAYOUT = '''{% if current_user.is_authenticated %}Hello {{ current_user.id }}{% else %}Hello stranger{% endif %}
{% for message in get_flashed_messages() %}[{{ message }}]{% endfor %}'''

class User(flask_login.UserMixin):
    pass

@login_manager.user_loader
def user_loader(name):
    if name not in users:
        return None
    user = User()
    user.id = name
    return user

@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "GET":
        return "the form"
    name = request.form["name"]
    if name in users and request.form["password"] == users[name]["password"]:
        user = User()
        user.id = name
        flask_login.login_user(user, remember="remember" in request.form)
        return redirect(url_for("protected"))
    return "Bad login"

@app.route("/logout", methods=["POST"])
def logout():
    flask_login.logout_user()
    return "Logged out"

@app.route("/")
@cache.cached(max_age=600)
def index():
    return render_template_string(LAYOUT)

@app.route("/stale")
@cache.cached(max_age=0, stale_while_revalidate=600)
def stale():
    return render_template_string(LAYOUT)

@app.route("/plain")
@cache.cached(max_age=600)
def plain():
    return "for everybody"

@app.route("/protected")
@flask_login.login_required
@cache.cached(max_age=600)
def protected():
    return "Logged in as: " + flask_login.current_user.id

@app.route("/guarded")
@cache.cached(max_age=600)
@flask_login.login_required
def guarded():
    return "Logged in as: " + flask_login.current_user.id
"""
)

#: As Flask's tutorial has it: before_app_request looks up g.user by session["user_id"].
TUTORIAL = (
    COMMON
    + """
import functools
from flask import Blueprint, g, redirect, render_template_string, request, session, url_for

bp = Blueprint("auth", __name__, url_prefix="/")
USERS = {1: "ann", 2: "bob"}

@bp.before_app_request
def load_logged_in_user():
    user_id = session.get("user_id")
    g.user = None if user_id is None else USERS.get(user_id)

@bp.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "GET":
        return "the form"
    session.clear()
    session["user_id"] = {name: number for number, name in USERS.items()}[request.form["name"]]
    return redirect(url_for("index"))

@bp.route("/logout", methods=["POST"])
def logout():
    session.clear()
    return redirect(url_for("index"))

def login_required(view):
    @functools.wraps(view)
    def wrapped_view(**kwargs):
        if g.user is None:
            return redirect(url_for("auth.login"))
        return view(**kwargs)
    return wrapped_view

@app.route("/")
@cache.cached(max_age=600)
def index():
    return render_template_string("Hello {{ g.user or 'stranger' }}")

@app.route("/stale")
@cache.cached(max_age=0, stale_while_revalidate=600)
def stale():
    return render_template_string("Hello {{ g.user or 'stranger' }}")

@app.route("/protected")
@login_required
@cache.cached(max_age=600)
def protected():
    return f"Logged in as: {g.user}"

@app.route("/guarded")
@cache.cached(max_age=600)
@login_required
def guarded():
    return f"Logged in as: {g.user}"

app.register_blueprint(bp)
"""
)

#: A token in a cookie, or a field that a proxy in front sets: only a hook reads it.
HOOKED = (
    COMMON
    + """
from flask import abort, g, request

TOKENS = {"token-of-ann": "ann", "token-of-bob": "bob"}

@app.before_request
def who_is_it():
    if os.environ["HOW"] == "cookie":
        g.user = TOKENS.get(request.cookies.get("token"))
    else:
        g.user = request.headers.get("X-Remote-User")

@app.route("/")
@cache.cached(max_age=600)
def index():
    return f"Hello {g.user or 'stranger'}"

@app.route("/stale")
@cache.cached(max_age=0, stale_while_revalidate=600)
def stale():
    return f"Hello {g.user or 'stranger'}"

@app.route("/guarded")
@cache.cached(max_age=600)
def guarded():
    if g.user is None:
        abort(401)
    return f"Logged in as: {g.user}"

@app.route("/plain")
@cache.cached(max_age=600)
def plain():
    return "for everybody"
"""
)


#: Kinds of sites: their source, and the environment of it.
SITES = {
    "flask-login": (FLASK_LOGIN, {}),
    "tutorial": (TUTORIAL, {}),
    "token-cookie": (HOOKED, {"HOW": "cookie"}),
    "remote-user-field": (HOOKED, {"HOW": "field"}),
}
WITH_FORM = ("flask-login", "tutorial")
_cases = count(1)


class Person:
    """Somebody with a browser: keeps cookies, and comes on a new connection each time, so that any worker may answer."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update({"Connection": "close", "User-Agent": "a browser", "X-Forwarded-For": "192.0.2.7"})

    def ask(self, path: str) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE, allow_redirects=False)

    def get(self, path: str) -> tuple[str | None, str]:
        """Return how a page was answered, and its text."""
        response = self.ask(path)
        return response.headers.get("X-Cache-Status"), response.text.strip()

    def post(self, path: str, **form: str) -> requests.Response:
        return self.session.post(self.url + path, data=form, timeout=PATIENCE, allow_redirects=False)

    def restart_browser(self) -> None:
        """Forget the cookies that end with the browser."""
        self.session.cookies.clear_session_cookies()


class Site:
    """A running site and those who visit it."""

    def __init__(self, kind: str, server: Server, stack: ExitStack) -> None:
        self.kind = kind
        self.server = server
        self._stack = stack

    def stranger(self) -> Person:
        person = Person(self.server)
        self._stack.enter_context(person.session)
        return person

    def member(self, name: str) -> Person:
        person = self.stranger()
        self.log_in(person, name)
        return person

    def log_in(self, person: Person, name: str, **more: str) -> None:
        if self.kind == "token-cookie":
            person.session.cookies.set("token", f"token-of-{name}")
        elif self.kind == "remote-user-field":
            person.session.headers["X-Remote-User"] = name
        else:
            answer = person.post("/login", name=name, password="secret", **more)
            assert (answer.status_code, "session" in person.session.cookies) == (302, True)

    def log_out(self, person: Person) -> None:
        if self.kind == "token-cookie":
            person.session.cookies.clear()
        elif self.kind == "remote-user-field":
            del person.session.headers["X-Remote-User"]
        else:
            assert person.post("/logout").status_code in (200, 302)


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    source, env = SITES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        server = stack.enter_context(serving(KIND, source, folder, env={"DIR": folder / "cache", **env}))
        yield Site(request.param, server, stack)


@pytest.fixture
def page() -> str:
    """A query of one's own, so that each test has a cold page."""
    return f"?case={next(_cases)}"


# -- every kind --------------------------------------------------------------------------------------------------------


def test_strangers_are_served_from_the_cache(site: Site, page: str) -> None:
    path = f"/{page}"
    assert site.stranger().get(path) == ("MISS", "Hello stranger")
    assert [site.stranger().get(path) for _ in range(10)] == [("HIT", "Hello stranger")] * 10


def test_members_are_live_and_see_themselves(site: Site, page: str) -> None:
    path = f"/{page}"
    ann, bob, stranger = site.member("ann"), site.member("bob"), site.stranger()
    stranger.get(path)
    for _ in range(3):
        assert ann.get(path) == ("BYPASS", "Hello ann")
        assert bob.get(path) == ("BYPASS", "Hello bob")
        assert stranger.get(path) == ("HIT", "Hello stranger")


def test_a_member_who_comes_first_fills_nothing(site: Site, page: str) -> None:
    path = f"/{page}"
    ann, bob, stranger = site.member("ann"), site.member("bob"), site.stranger()
    assert ann.get(path) == ("MISS", "Hello ann")
    assert bob.get(path)[1] == "Hello bob"
    assert stranger.get(path) == ("MISS", "Hello stranger")
    assert [who.get(path)[1] for who in (ann, bob, stranger)] == ["Hello ann", "Hello bob", "Hello stranger"]


def test_a_stale_page_is_renewed_as_a_strangers(site: Site, page: str) -> None:
    """While the page is stale, members are live, and refreshes store the page that a stranger sees."""
    path = f"/stale{page}"
    ann, bob, stranger = site.member("ann"), site.member("bob"), site.stranger()
    assert stranger.get(path)[0] == "MISS"
    for _ in range(10):
        assert ann.get(path) == ("BYPASS", "Hello ann")
        assert stranger.get(path) in [("STALE", "Hello stranger"), ("UPDATING", "Hello stranger")]
        assert bob.get(path) == ("BYPASS", "Hello bob")


def test_a_page_for_members_is_nobody_elses(site: Site, page: str) -> None:
    path = f"/guarded{page}"
    ann, bob, stranger = site.member("ann"), site.member("bob"), site.stranger()
    for _ in range(3):
        assert ann.get(path)[1] == "Logged in as: ann"
        assert bob.get(path)[1] == "Logged in as: bob"
        assert stranger.ask(path).status_code in (302, 401)
        assert "Logged in" not in site.stranger().get(path)[1]


def test_all_at_once_everybody_sees_themselves(site: Site, page: str) -> None:
    """On a cold page, members and strangers, over both workers."""
    path = f"/{page}"
    ann, bob = site.member("ann"), site.member("bob")
    crowd = [(ann, "ann"), (bob, "bob"), *((site.stranger(), "stranger") for _ in range(6))] * 4
    with ThreadPoolExecutor(len(crowd)) as pool:
        said = list(pool.map(lambda item: Person.get(_again(item[0], site), path)[1], crowd))
    assert said == [f"Hello {name}" for _, name in crowd]


def _again(person: Person, site: Site) -> Person:
    """Return the same person in another window, since a requests session is not for several threads."""
    window = site.stranger()
    window.session.headers.update(person.session.headers)
    window.session.cookies.update(person.session.cookies)
    return window


def test_login_and_logout_in_between(site: Site, page: str) -> None:
    path = f"/{page}"
    person, other = site.stranger(), site.stranger()
    assert person.get(path) == ("MISS", "Hello stranger")
    assert person.get(path) == ("HIT", "Hello stranger")
    for name in ("ann", "bob"):
        site.log_in(person, name)
        assert person.get(path) == ("BYPASS", f"Hello {name}")
        assert other.get(path) == ("HIT", "Hello stranger")
        site.log_out(person)
        assert person.get(path) == ("HIT", "Hello stranger")


def test_a_page_made_while_somebody_logs_out_and_in(site: Site, page: str) -> None:
    """The same person on a cold page: as a member first, then as a stranger, then as another member."""
    path = f"/{page}"
    person = site.member("ann")
    assert person.get(path) == ("MISS", "Hello ann")
    site.log_out(person)
    assert person.get(path) == ("MISS", "Hello stranger")
    site.log_in(person, "bob")
    assert person.get(path) == ("BYPASS", "Hello bob")
    site.log_out(person)
    assert person.get(path) == ("HIT", "Hello stranger")


# -- with a form to log in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", WITH_FORM, indirect=True)
def test_login_required_above_the_cache(site: Site, page: str) -> None:
    path = f"/protected{page}"
    ann, bob, stranger = site.member("ann"), site.member("bob"), site.stranger()
    for _ in range(2):
        assert ann.get(path)[1] == "Logged in as: ann"
        assert bob.get(path)[1] == "Logged in as: bob"
        answer = stranger.ask(path)
        assert (answer.status_code, "/login" in answer.headers["Location"]) == (302, True)


@pytest.mark.parametrize("site", ["flask-login"], indirect=True)
def test_a_remembered_member_is_live(site: Site, page: str) -> None:
    """The session is gone with the browser; Flask-Login knows them by its remember cookie."""
    path = f"/{page}"
    ann, stranger = site.stranger(), site.stranger()
    stranger.get(path)
    site.log_in(ann, "ann", remember="1")
    ann.restart_browser()
    assert list(ann.session.cookies.keys()) == ["remember_token"]
    for _ in range(2):
        assert ann.get(path) == ("BYPASS", "Hello ann")
        assert stranger.get(path) == ("HIT", "Hello stranger")
    site.log_out(ann)
    assert ann.get(path) == ("HIT", "Hello stranger")


@pytest.mark.parametrize("site", ["flask-login"], indirect=True)
def test_a_remembered_member_who_comes_first_fills_nothing(site: Site, page: str) -> None:
    path = f"/{page}"
    ann = site.stranger()
    site.log_in(ann, "ann", remember="1")
    ann.restart_browser()
    assert ann.get(path) == ("MISS", "Hello ann")
    assert site.stranger().get(path) == ("MISS", "Hello stranger")
    ann.restart_browser()
    assert ann.get(path) == ("BYPASS", "Hello ann")


@pytest.mark.parametrize("site", ["flask-login"], indirect=True)
def test_a_message_is_shown_once_and_to_its_reader_only(site: Site, page: str) -> None:
    path = f"/{page}"
    stranger, other = site.stranger(), site.stranger()
    assert other.get(path) == ("MISS", "Hello stranger")
    assert stranger.ask("/protected").status_code == 302
    assert other.get(path) == ("HIT", "Hello stranger")
    assert stranger.get(path) == ("BYPASS", "Hello stranger\n[Please log in to access this page.]")
    assert stranger.get(path)[1] == "Hello stranger"
    assert other.get(path) == ("HIT", "Hello stranger")


@pytest.mark.parametrize("site", ["flask-login", "token-cookie", "remote-user-field"], indirect=True)
def test_a_page_without_anything_personal(site: Site, page: str) -> None:
    """If a hook reads the login on every page, members are live here, too; they are not if only other pages read it."""
    path = f"/plain{page}"
    site.stranger().get(path)
    word = "HIT" if site.kind == "flask-login" else "BYPASS"
    assert site.member("ann").get(path) == (word, "for everybody")
    assert site.stranger().get(path) == ("HIT", "for everybody")
