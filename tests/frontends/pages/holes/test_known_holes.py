"""Covers ``frontends.pages.filling_holes.known_holes`` and ``frontends.pages.watching.hook_reads``: extensions as they are
installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from flask import Flask, g, jsonify, render_template, request, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_principal import Identity, Permission, Principal, RoleNeed, identity_loaded
from flask_seasurf import SeaSurf
from flask_talisman import Talisman
from flask_wtf import CSRFProtect, FlaskForm
from flask_wtf.csrf import generate_csrf
from wtforms import StringField

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.holes import ANN, BOB, NOBODY, cookie, templates

pytestmark = pytest.mark.usefixtures("clock")
TOKEN = re.compile(r"token=([\w.-]+)")


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


class Form(FlaskForm):
    text = StringField()


def opened(client: FlaskClient, path: str = "/", **more: Any) -> tuple[str, str]:
    """Return the status word and the text of an answer."""
    with client.get(path, **more) as response:
        return response.headers.get("X-Cache-Status", ""), response.text


def member(app: Flask, **values: Any) -> FlaskClient:
    client = app.test_client()
    with client.session_transaction() as kept:
        kept.update(values)
    return client


# -- Flask-WTF ---------------------------------------------------------------------------------------------------------

FORMS: dict[str, str] = {
    "csrf_token()": "token={{ csrf_token() }}",
    "hidden_tag": "{{ form.hidden_tag()|replace('value=\"', 'token=') }}",
    "the field": "{{ form.csrf_token }} token={{ form.csrf_token.current_token }}",
    "two forms": "{{ form.hidden_tag() }}{{ other.hidden_tag() }}token={{ csrf_token() }}",
    "a meta tag": "<meta content='token={{ csrf_token() }}'>",
    "JavaScript": "<script>x = {{ ('token=' ~ csrf_token())|tojson }}</script>",
    "a link": "<a href='?{{ {'token': csrf_token()}|urlencode }}'>",
}


def wtf_app(make_app: MakeApp, text: str, **config: Any) -> Flask:
    app, cache = make_app(**config)
    templates(app, page=text)
    CSRFProtect(app)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html", form=Form(), other=Form(prefix="b"))))
    app.add_url_rule("/json", "json", cache.cached(60)(lambda: jsonify(text=f"token={generate_csrf()}")))
    app.add_url_rule("/send", "send", lambda: "sent", methods=["POST"])
    return app


def sends(client: FlaskClient, token: str, name: str = "csrf_token") -> int:
    with client.post("/send", data={name: token}) as response:
        return response.status_code


@pytest.mark.parametrize("text", [*FORMS.values(), "json"], ids=[*FORMS, "JSON"])
def test_every_visitor_has_a_token_of_their_own(text: str, make_app: MakeApp) -> None:
    app = wtf_app(make_app, text)
    path = "/json" if text == "json" else "/"
    visitors = [app.test_client() for _ in range(3)]
    tokens = []
    for number, client in enumerate(visitors):
        word, shown = opened(client, path)
        assert word == ("HIT" if number else "MISS")
        found = TOKEN.search(shown)
        assert found is not None
        tokens.append(found[1])
    assert len(set(tokens)) == 3
    assert [sends(client, token) for client, token in zip(visitors, tokens, strict=True)] == [200] * 3
    assert [sends(client, tokens[0]) for client in visitors] == [200, 400, 400]
    for client, token in zip(visitors, tokens, strict=True):
        word, shown = opened(client, path)
        assert word == "HIT"
        assert sends(client, TOKEN.search(shown)[1]) == 200  # type: ignore[index]
        assert sends(client, token) == 200


def test_a_field_of_another_name(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.config["WTF_CSRF_FIELD_NAME"] = "proof"
    templates(app, page="token={{ csrf_token() }}")
    CSRFProtect(app)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html")))
    app.add_url_rule("/send", "send", lambda: "sent", methods=["POST"])
    one, other = app.test_client(), app.test_client()
    tokens = [TOKEN.search(opened(client)[1])[1] for client in (one, other)]  # type: ignore[index]
    assert [opened(client)[0] for client in (one, other)] == ["HIT", "HIT"]
    assert [sends(one, token, "proof") for token in tokens] == [200, 400]


def test_a_form_with_a_secret_of_its_own_is_not_stored(make_app: MakeApp) -> None:
    class Secret(FlaskForm):
        class Meta:
            csrf_secret = b"another"

    app, cache = make_app()
    templates(app, page="{{ form.csrf_token.current_token }}")
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html", form=Secret())))
    tokens = {opened(app.test_client())[1] for _ in range(3)}
    assert len(tokens) == 3
    assert opened(app.test_client())[0] != "HIT"


def test_a_form_that_shows_no_token_costs_nothing(make_app: MakeApp) -> None:
    app = wtf_app(make_app, "{{ form.text }}")
    assert [opened(app.test_client())[0] for _ in range(2)] == ["MISS", "HIT"]
    seen = visit(app)
    assert "Cache-Control" not in seen.headers
    assert "ETag" in seen.headers


def test_a_stream_without_a_form_is_made_once(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.secret_key = "secret"
    calls: list[int] = []

    @app.get("/")
    @cache.cached(60)
    def stream() -> Any:
        calls.append(len(calls))
        return iter([f"stream {len(calls)}"])

    assert [visit(app).text for _ in range(3)] == ["stream 1", "stream 2", "stream 3"]


def test_a_stream_of_a_form_shows_its_visitors_token(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.secret_key = "secret"

    @app.get("/")
    @cache.cached(60)
    def stream() -> Any:
        token = generate_csrf()
        return iter(["token=", token])

    assert [TOKEN.fullmatch(visit(app).text) is not None for _ in range(3)] == [True] * 3


def test_a_page_that_looks_at_its_token_is_not_stored(make_app: MakeApp) -> None:
    app = wtf_app(make_app, "{% if csrf_token() %}token={{ csrf_token() }}{% endif %}")
    pages = [opened(app.test_client()) for _ in range(3)]
    assert [word for word, _ in pages].count("HIT") == 0
    assert len({shown for _, shown in pages}) == 3


def test_without_its_hole_each_form_is_made_for_its_visitor(make_app: MakeApp) -> None:
    app = wtf_app(make_app, "token={{ csrf_token() }}", HOLES=["flask_login"])
    assert "HIT" not in [opened(app.test_client())[0] for _ in range(3)]


# -- Flask-Talisman ----------------------------------------------------------------------------------------------------


def test_the_nonce_of_the_header_is_that_of_the_page(make_app: MakeApp) -> None:
    app, cache = make_app()
    policy = {"default-src": "'self'", "script-src": "'self'"}
    Talisman(app, force_https=False, content_security_policy=policy, content_security_policy_nonce_in=["script-src"])
    templates(app, page="<script nonce='{{ csp_nonce() }}'></script>")
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html")))
    shown = set()
    for word in ("MISS", "HIT", "HIT"):
        seen = visit(app)
        nonce = re.search(r"nonce='(.+)'", seen.text)
        assert seen.word == word
        assert nonce is not None
        assert f"'nonce-{nonce[1]}'" in seen.headers["Content-Security-Policy"]
        shown.add(nonce[1])
    assert len(shown) == 3


# -- Flask-SeaSurf -----------------------------------------------------------------------------------------------------


def test_flask_seasurf(make_app: MakeApp) -> None:
    app, cache = make_app()
    SeaSurf(app)
    templates(app, page="token={{ csrf_token() }}", plain="text")
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html")))
    app.add_url_rule("/plain", "plain", cache.cached(60)(lambda: render_template("plain.html")))
    visitors = [app.test_client() for _ in range(3)]
    tokens = []
    for turn in range(2):
        for number, client in enumerate(visitors):
            word, shown = opened(client)
            assert word == ("HIT" if number or turn else "MISS")
            tokens.append(TOKEN.search(shown)[1])  # type: ignore[index]
            with client.session_transaction() as kept:
                assert kept["_csrf_token"] == tokens[-1]
            assert client.get_cookie("_csrf_token").value == tokens[-1]  # type: ignore[union-attr]
    assert tokens[:3] == tokens[3:]
    assert len(set(tokens)) == 3
    assert [opened(client, "/plain")[0] for client in visitors] == ["MISS", "HIT", "HIT"]


# -- Flask-Login -------------------------------------------------------------------------------------------------------


def login_app(make_app: MakeApp, **texts: str) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    manager = LoginManager(app)
    manager.user_loader(User)
    templates(app, **texts)
    return app, cache


def test_members_hit_on_pages_whose_base_has_a_box(make_app: MakeApp) -> None:
    box = "{% if current_user.is_authenticated %}hello {{ current_user.id }}{% else %}log in{% endif %}"
    app, cache = login_app(make_app, base=f"{{% hole %}}{box}{{% endhole %}}{{% block main %}}{{% endblock %}}",
                           page="{% extends 'base.html' %}", old=box)  # fmt: skip
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html")))
    app.add_url_rule("/old", "old", cache.cached(60)(lambda: render_template("old.html")))
    ann, bob, stranger = member(app, _user_id="ann"), member(app, _user_id="bob"), app.test_client()
    assert [opened(each) for each in (ann, bob, stranger, ann)] == [
        ("MISS", "hello ann"),
        ("HIT", "hello bob"),
        ("HIT", "log in"),
        ("HIT", "hello ann"),
    ]
    # What is shown outside of a hole makes the page personal, as ever.
    assert [opened(each, "/old")[1] for each in (stranger, ann, bob, stranger)] == ["log in", "hello ann", "hello bob", "log in"]
    assert [opened(each, "/old")[0] for each in (stranger, ann)] == ["HIT", "BYPASS"]


def test_login_required_above_a_cached_view(make_app: MakeApp) -> None:
    app, cache = login_app(make_app, page="members only", named="{{ current_user.id }}")
    app.add_url_rule("/", "page", login_required(cache.cached(60)(lambda: render_template("page.html"))))
    app.add_url_rule("/named", "named", login_required(cache.cached(60)(lambda: render_template("named.html"))))
    app.add_url_rule("/direct", "direct", login_required(cache.cached(60)(lambda: f"{current_user.id}")))
    ann, bob, stranger = member(app, _user_id="ann"), member(app, _user_id="bob"), app.test_client()
    assert [opened(each)[0] for each in (ann, bob, ann)] == ["MISS", "HIT", "HIT"]
    assert stranger.get("/").status_code == 401
    for path in ("/named", "/direct"):
        assert [opened(each, path)[1] for each in (ann, bob, ann, bob)] == ["ann", "bob"] * 2


def test_code_of_the_app_that_asks_who_is_logged_in_counts(make_app: MakeApp) -> None:
    rows: ContextVar[str] = ContextVar("rows")
    app, cache = login_app(make_app)

    @app.before_request
    def hook() -> None:
        rows.set(f"rows of {current_user.id if current_user.is_authenticated else 'nobody'}")

    app.add_url_rule("/", "page", cache.cached(60)(lambda: rows.get()))
    ann, bob = member(app, _user_id="ann"), member(app, _user_id="bob")
    assert [opened(each)[1] for each in (ann, bob, ann, bob)] == ["rows of ann", "rows of bob"] * 2


# -- Flask-Principal ---------------------------------------------------------------------------------------------------


def test_flask_principal(make_app: MakeApp) -> None:
    app, cache = make_app()
    principal, editors = Principal(app), Permission(RoleNeed("editor"))

    def give(sender: Flask, identity: Identity) -> None:
        if identity.id == "bob":
            identity.provides.add(RoleNeed("editor"))

    identity_loaded.connect(give, app)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: "text"))
    app.add_url_rule("/edit", "edit", cache.cached(60)(lambda: "edit" if editors.can() else "read"))
    ann, bob = (member(app, **{"identity.id": name, "identity.auth_type": "form"}) for name in ("ann", "bob"))
    stranger = app.test_client()
    assert [opened(each)[0] for each in (ann, bob, stranger)] == ["MISS", "HIT", "HIT"]
    for _ in range(2):
        assert [opened(each, "/edit")[1] for each in (stranger, ann, bob, stranger)] == ["read", "read", "edit", "read"]
    assert principal is not None


# -- hooks of the app's own --------------------------------------------------------------------------------------------


def load_user() -> None:
    g.user = session.get("user")


def hooked_app(make_app: MakeApp, **config: Any) -> Flask:
    app, cache = make_app(**config)
    app.before_request(load_user)
    shown: dict[str, Callable[[], Any]] = {
        "/": lambda: "text",
        "/attribute": lambda: f"{g.user}",
        "/get": lambda: f"{g.get('user')}",
        "/in": lambda: f"{'user' in g and g.pop('user')}",
        "/all": lambda: f"{sorted(g)} {vars(g)['user']}",
        "/dict": lambda: str(g.__dict__["user"]),
        "/setdefault": lambda: f"{g.setdefault('user', 1)}",
    }
    for path, view in shown.items():
        app.add_url_rule(path, path, cache.cached(60)(view))
    return app


NAMED = f"{__name__}.load_user"
PATHS = ("/attribute", "/get", "/in", "/all", "/dict", "/setdefault")


@pytest.mark.parametrize("path", PATHS)
def test_a_page_that_shows_what_a_hook_has_set_is_personal(path: str, make_app: MakeApp) -> None:
    app = hooked_app(make_app, HOOKS_SET_G=[NAMED])
    for _ in range(2):
        assert ["bob" in visit(app, path, each).text for each in (ANN, BOB, NOBODY)] == [False, True, False]
        assert ["ann" in visit(app, path, each).text for each in (ANN, BOB, NOBODY)] == [True, False, False]


def test_a_page_that_does_not_show_it_is_everybodys(make_app: MakeApp) -> None:
    app = hooked_app(make_app, HOOKS_SET_G=[NAMED])
    assert [visit(app, "/", each).word for each in (ANN, BOB, NOBODY, cookie(other=1))] == ["MISS", "HIT", "HIT", "HIT"]


def test_hooks_that_are_not_named_count(make_app: MakeApp) -> None:
    app = hooked_app(make_app)
    assert "HIT" not in [visit(app, "/", each).word for each in (ANN, BOB, ANN)]


def test_a_hook_that_answers_counts(make_app: MakeApp) -> None:
    app, cache = make_app(HOOKS_SET_G=[f"{__name__}.answer"], GATEWAY=True, MAX_AGE=60)
    app.before_request(answer)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: "text"))
    for _ in range(2):
        assert [visit(app, "/", each).text for each in (BOB, NOBODY)] == ["for bob", "text"]


def answer() -> Any:
    if session.get("user") == "bob":
        return "for bob", 200, {"Cache-Control": "max-age=60"}
    return None


def test_a_hook_that_does_not_exist_is_told(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = hooked_app(make_app, HOOKS_SET_G=["shop.auth.load"])
    visit(app)
    assert (
        "STALECACHE_HOOKS_SET_G names shop.auth.load, but no function of that name is registered with before_request" in caplog.text
    )


def test_a_hit_of_a_page_within_a_page_that_reads_g(make_app: MakeApp) -> None:
    app, cache = make_app(HOOKS_SET_G=[NAMED])
    app.before_request(load_user)

    @cache.cached(60)
    def inner() -> str:
        return f"inner {g.user}"

    @cache.cached(60)
    def outer() -> str:
        return f"outer {app.make_response(inner()).get_data(as_text=True)}"

    app.add_url_rule("/", "outer", outer)
    for _ in range(2):
        assert [visit(app, "/", each).text for each in (BOB, NOBODY)] == ["outer inner bob", "outer inner None"]


def test_other_requests_let_it_count(make_app: MakeApp) -> None:
    app = hooked_app(make_app, HOOKS_SET_G=[NAMED])
    app.add_url_rule("/live", "live", lambda: f"{g.user} {request.path}")
    assert visit(app, "/live", BOB).text == "bob /live"
    assert login_user is not None
