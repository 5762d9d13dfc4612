"""The seam to Flask and Werkzeug: both versions of Flask, the check at start-up, and that no other package uses private names.

Covers ``frontends.flask_internals.contexts``, ``frontends.flask_internals.sessions``, ``frontends.flask_internals.readers``,
``frontends.flask_internals.steps``, ``frontends.flask_internals.templates``, ``frontends.flask_internals.request_fields``,
``frontends.flask_internals.responses`` and ``frontends.flask_internals.versions``.
"""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_stalecache
from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.frontends.flask_internals import versions

PACKAGE = Path(flask_stalecache.__file__).parent
SEAM = PACKAGE / "frontends" / "flask_internals"
TESTS = Path(__file__).parents[1]

#: A script that plays an app with the next Flask. A failed assertion or a warning ends it.
NEXT = """
import os, sys
import support.next_flask
from flask import (
    Flask, abort, after_this_request, flash, g, get_flashed_messages, has_request_context, request,
    session, url_for,
)
from flask_stalecache import StaleCache
from flask_stalecache.errors import StaleCacheError

app = Flask("shop")
app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=sys.argv[1], STALECACHE_REFRESH_WORKERS=0, TESTING=True)
cache = StaleCache(app)
runs = []

ended, connections = [], []

@app.teardown_appcontext
def close(error):
    ended.append(1)
    if "db" in g:
        g.pop("db").close()

class Connection:
    def __init__(self):
        connections.append(self)
        self.closed = False
    def close(self):
        self.closed = True

@cache.memoize(300)
def rates(base):
    runs.append(base)
    return {"base": base}

@cache.memoize(300)
def who():
    return request.path

@app.get("/plain/<name>")
@cache.cached(60, 600, 86400)
def plain(name):
    runs.append(name)
    return f"{name} {rates('eur')['base']}"

@app.get("/soon")
@cache.cached(0, 600, 86400)
def soon():
    runs.append("soon")
    return str(len(runs))

@app.get("/member")
@cache.cached(60, 600, 86400)
def member():
    runs.append("member")
    return session.get("name", "everybody")

@app.get("/hooked")
@cache.cached(60, 600, 86400)
def hooked():
    runs.append("hooked")
    after_this_request(lambda response: response)
    return "hooked"

@app.get("/gone")
@cache.cached(60, 600, 86400, statuses={404: 60})
def gone():
    runs.append("gone")
    abort(404)

class Away(Exception):
    pass

handled = []

@app.errorhandler(Away)
def away(error):
    handled.append(error)
    return "away", 410

@app.get("/away")
@cache.cached(0, 0, 86400)
def leave():
    if runs:
        raise Away
    return "here"

@app.get("/front")
@cache.cached(60, gateway=True)
def front():
    runs.append("front")
    return "front"

@app.errorhandler(404)
def missing(error):
    return "there is no such page", 404

@app.get("/login")
def login():
    session["name"] = "ada"
    return "hello"

def connection():
    if "db" not in g:
        g.db = Connection()
    return g.db

@cache.memoize(300)
def seen():
    assert connection() is connections[-1] and not has_request_context() and "user" not in g
    g.locale = "en"
    links = []
    for link in (lambda: url_for("login", _external=True), get_flashed_messages, lambda: session["name"], lambda: request.path):
        try:
            links.append(link())
        except RuntimeError:
            links.append("no request")
    return links

@app.get("/seen")
def see():
    g.user, g.locale = "ada", "de"
    session["name"] = "ada"
    flash("hello")
    get_flashed_messages()
    ended.clear()
    db = connection()
    links = seen()
    assert (g.user, g.locale, session["name"], request.path, g.db) == ("ada", "de", "ada", "/seen", db)
    assert url_for("login", _external=True) == f"{request.host_url}login"
    assert get_flashed_messages() == ["hello"] and ended == []
    return str(links)

def status(path, client=None):
    with (client or app.test_client()).get(path) as response:
        return response.status_code, response.headers.get("X-Cache-Status"), response.text

assert status("/plain/tea") == (200, "MISS", "tea eur")
assert status("/plain/tea") == (200, "HIT", "tea eur")
assert status("/plain/milk") == (200, "MISS", "milk eur")
assert runs == ["tea", "eur", "milk"], runs

runs.clear()
assert status("/soon")[1:] == ("MISS", "1")
assert status("/soon")[1:] == ("STALE", "1")
cache.drain()
assert status("/soon")[1:] == ("STALE", "2"), "it is renewed after the response"

ada = app.test_client()
ada.get("/login")
assert status("/member") == (200, "MISS", "everybody")
assert status("/member", ada)[1:] == ("BYPASS", "ada")
assert status("/member") == (200, "HIT", "everybody")

runs.clear()
status("/hooked"), status("/hooked")
assert runs == ["hooked", "hooked"]

runs.clear()
assert status("/gone") == (404, "MISS", "there is no such page")
assert status("/gone") == (404, "HIT", "there is no such page")
assert runs == ["gone"]

runs.clear()
assert status("/away")[::2] == (200, "here")
runs.append("away")
assert status("/away")[::2] == status("/away")[::2] == (410, "away")
assert len(handled) == 2

runs.clear()
assert status("/front")[2] == status("/front")[2] == "front"
assert runs == ["front"]

with app.test_request_context("/"):
    try:
        who()
    except StaleCacheError as error:
        assert "uses the request" in str(error)
    else:
        raise AssertionError("a fetch function has seen the request")
with app.test_client().get("/seen", headers={"Host": "evil.example"}) as response:
    assert response.text == "['http://evil.example/login', 'no request', 'no request', 'no request']", response.text
assert ended == [1] and [each.closed for each in connections] == [True]
connections.clear()
for visit in range(2):
    with app.test_client().get("/seen") as response:
        # Its host has a value of its own.
        assert response.text == "['http://localhost/login', 'no request', 'no request', 'no request']", response.text

with app.app_context():
    assert rates("eur") == {"base": "eur"}
print("done")
"""


def test_it_works_with_the_next_flask_and_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", NEXT, str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.startswith("__main__.hooked is not stored: the view registered a callback with after_this_request")
    assert done.stderr.count("\n") == 1


def test_the_installed_versions_are_known() -> None:
    versions.check_versions()


@pytest.mark.parametrize(
    ("name", "without", "told"),
    [
        ("EnvironHeaders", object, "werkzeug.datastructures.EnvironHeaders: _get_key"),
        ("Headers", dict, "werkzeug.datastructures.Headers: _list"),
        ("Response", object, "werkzeug.wrappers.Response: _on_close, werkzeug.wrappers.Response: _status,"),
    ],
)
def test_a_version_that_lacks_a_name_fails_at_start_up_in_one_sentence(
    name: str, without: type, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions._missing.cache_clear()
    monkeypatch.setattr(versions, name, without)
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    with pytest.raises(ConfigError, match=r"^Flask 3\S+ with Werkzeug 3\S+ lacks ") as error:
        StaleCache(app)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "stalecache" not in app.extensions
    versions._missing.cache_clear()


@pytest.mark.parametrize("name", ["_cv_app", "_cv_request"])
def test_a_missing_context_variable_fails_at_start_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versions._missing.cache_clear()
    monkeypatch.setattr(versions, "GLOBALS", {key: None for key in ("_cv_app", "_cv_request") if key != name})
    with pytest.raises(ConfigError, match=f"flask.globals.{name}"):
        versions.check_versions()
    versions._missing.cache_clear()


# -- private names are used in one package only ------------------------------------------------------------------------

#: Names that are private to Flask or Werkzeug, or that depend on their version.
_OF_FLASK = {
    "_cv_app", "_cv_request", "_session", "request_ctx", "app_ctx", "RequestContext", "_after_request_functions",
    "_get_current_object", "_get_session", "_get_key", "_list", "_on_close", "_status", "_status_code", "process_response",
    "preprocess_request", "full_dispatch_request", "finalize_request", "do_teardown_request", "do_teardown_appcontext",
    "handle_exception", "handle_user_exception", "make_default_options_response", "log_exception", "dispatch_request",
}  # fmt: skip
#: Names with an underscore that others document, or that belong to another library.
_OF_OTHERS = {
    "_replace", "_fields", "_asdict", "_getframe", "_exit",  # Python
    "_name_", "_value_",  # enum
    "_content", "_content_consumed",  # requests
    "_get_token",  # Flask-SeaSurf, which puts it into templates
}  # fmt: skip


@cache
def nodes() -> dict[str, list[ast.AST]]:
    """Return all nodes of each module."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != SEAM]
    return {str(path.relative_to(PACKAGE)): nodes_of(path.read_text(encoding="utf-8")) for path in paths}


def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def own_names() -> set[str]:
    """What our own modules and classes define."""
    names: set[str] = set()
    for found in nodes().values():
        for node in found:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Assign) and any(
                isinstance(name, ast.Name) and name.id == "__slots__" for name in node.targets
            ):
                names.update(ast.literal_eval(node.value))
    return names


def is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def foreign_names(nodes: list[ast.AST], own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name of each private name of Flask or Werkzeug, and of each other one that our code does not define."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("flask", "werkzeug"):
            for alias in node.names:
                if alias.name in _OF_FLASK or alias.name.startswith("_"):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Attribute) and not is_self(node):
            is_private = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.attr in _OF_FLASK or (is_private and node.attr not in own and node.attr not in _OF_OTHERS):
                yield node.lineno, node.attr


def test_private_names_of_flask_and_werkzeug_are_used_in_the_seam_only() -> None:
    own = own_names()
    found = {name: list(foreign_names(found, own)) for name, found in nodes().items()}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from flask.globals import _cv_app\n", ["_cv_app"]),
        ("from flask.ctx import RequestContext as Context\n", ["RequestContext"]),
        ("from flask.globals import request_ctx\nrequest_ctx._session\n", ["request_ctx", "_session"]),
        ("app.process_response = saved\n", ["process_response"]),
        ("response.headers._list\n", ["_list"]),
        ("from flask import Flask, request\nrequest.environ\nself._mine\n", []),
    ],
)
def test_this_test_sees_them(source: str, names: list[str]) -> None:
    assert [name for _, name in foreign_names(nodes_of(source), {"_mine"})] == names


def test_the_app_that_is_looked_at_is_never_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Flask]] = []

    class Watched(Flask):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(weakref.ref(self))

    monkeypatch.setattr(versions, "Flask", Watched)
    versions._bare_app.cache_clear()
    versions._missing.cache_clear()
    versions.check_versions()
    gc.collect()
    assert [reference() is not None for reference in made] == [True]
    versions._bare_app.cache_clear()
