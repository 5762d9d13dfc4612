"""Pages with holes on real workers: members and strangers hit, and each token is accepted from its own visitor only."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from support.servers import PATIENCE, serving

pytestmark = pytest.mark.server

SITE = """
import os
from flask import Flask, redirect, render_template, request, session
from flask_login import LoginManager, UserMixin, login_user
from flask_wtf import CSRFProtect
from jinja2 import DictLoader
from flask_stalecache import StaleCache

app = Flask(__name__)
app.secret_key = "not a secret"
app.config["STALECACHE_DIR"] = os.environ["DIR"]
manager = LoginManager(app)
CSRFProtect(app)
cache = StaleCache(app)

class User(UserMixin):
    def __init__(self, name):
        self.id = name

manager.user_loader(User)
app.jinja_loader = DictLoader({
    "base.html": "{% hole %}hello {{ current_user.id if current_user.is_authenticated else 'stranger' }}{% endhole %}"
                 "<main>{% block main %}{% endblock %}</main>{{ basket() }}<form>token={{ csrf_token() }}</form>",
    "page.html": "{% extends 'base.html' %}{% block main %}page {{ number }}{% endblock %}",
})

@cache.hole
def basket():
    return f"basket of {session.get('basket', 0)}"

app.jinja_env.globals["basket"] = basket

@app.route("/login/<name>", methods=["POST", "GET"])
def login(name):
    if request.method == "POST":
        login_user(User(name))
        session["basket"] = name
    return render_template("page.html", number="login")

@app.route("/<int:number>")
@cache.cached(600)
def page(number):
    return render_template("page.html", number=number)
"""
TOKEN = re.compile(r"token=([\w.-]+)")
NAMES = ("ann", "bob", "eve", "stranger")


def test_members_and_strangers_share_pages_on_gunicorn(tmp_path: Path) -> None:
    with serving("gthread", SITE, tmp_path / "site", env={"DIR": tmp_path / "cache"}) as server:
        visitors = {name: requests.Session() for name in NAMES}
        for name, browser in visitors.items():
            token = _token(browser.get(f"{server.url}/login/{name}", timeout=PATIENCE).text)
            if name != "stranger":
                assert browser.post(f"{server.url}/login/{name}", {"csrf_token": token}, timeout=PATIENCE).status_code == 200
        for number in range(5):
            visitors["ann"].get(f"{server.url}/{number}", timeout=PATIENCE)
        tokens: dict[str, str] = {}

        def walk(name: str) -> list[str]:
            words = []
            for number in [*range(5)] * 6:
                seen = visitors[name].get(f"{server.url}/{number}", timeout=PATIENCE)
                basket = 0 if name == "stranger" else name
                assert seen.text.startswith(f"hello {name}<main>page {number}</main>basket of {basket}<form>"), seen.text
                assert seen.headers["Cache-Control"] == "private, no-cache"
                words.append(seen.headers["X-Cache-Status"])
                tokens[name] = _token(seen.text)
            return words

        with ThreadPoolExecutor(len(NAMES)) as pool:
            words = [word for found in pool.map(walk, NAMES) for word in found]
        assert words.count("HIT") / len(words) >= 0.95
        accepted = {
            (name, other): visitors[name].post(f"{server.url}/login/{name}", {"csrf_token": token}, timeout=PATIENCE).status_code
            for name in NAMES[:3]
            for other, token in tokens.items()
        }
        assert accepted == {(name, other): 200 if name == other else 400 for name, other in accepted}
        stored = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert b"<main>page 3</main>" in stored
        assert not [name for name in NAMES if f"hello {name}".encode() in stored or f"basket of {name}".encode() in stored]
        assert not [token for token in tokens.values() if token.encode() in stored]


def _token(text: str) -> str:
    found = TOKEN.search(text)
    assert found is not None, text
    return found[1]
