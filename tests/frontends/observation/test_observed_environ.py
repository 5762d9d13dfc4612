"""The environ that records its reads.

Covers ``frontends.observation.read_log`` too.
"""

from __future__ import annotations

import json
import operator
import types
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from typing import Any

import pytest
from flask import Flask, Request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder

from flask_stalecache.frontends.observation.observed_environ import ObservedEnviron
from flask_stalecache.frontends.observation.read_log import ReadLog


def observed(**more: Any) -> ObservedEnviron:
    plain = EnvironBuilder("/page?a=1", environ_base={"REMOTE_ADDR": "203.0.113.7", "HTTP_X_USER": "ann"}).get_environ()
    return ObservedEnviron({**plain, **more}, ReadLog({}))


def reads(environ: ObservedEnviron) -> tuple[set[str], set[str], set[str]]:
    """Return the fields, the variables, and the kinds that were read as a whole."""
    environ.log.settle()
    log = environ.log
    return set(log.headers), set(log.variables), set(log.whole)


def matched(environ: Mapping[str, Any]) -> object:
    match environ:
        case {"HTTP_X_USER": user}:
            return user
    return None


#: Ways to read a variable by its name. Each returns the value.
BY_NAME: dict[str, Callable[[ObservedEnviron, str], object]] = {
    "[]": lambda environ, name: environ[name],
    "get": lambda environ, name: environ.get(name),
    "in": lambda environ, name: environ[name] if name in environ else None,  # noqa: SIM401
    "pop": lambda environ, name: environ.pop(name),
    "setdefault": lambda environ, name: environ.setdefault(name, "-"),
    "itemgetter": lambda environ, name: operator.itemgetter(name)(environ),
    "%": lambda environ, name: f"%({name})s" % environ,
    "format_map": lambda environ, name: f"{{{name}}}".format_map(environ),
    "dict.get": lambda environ, name: dict.get(environ, name),
    "dict.__getitem__": lambda environ, name: dict.__getitem__(environ, name),
    "dict.pop": lambda environ, name: dict.pop(environ, name),
    "copy": lambda environ, name: environ.copy()[name],
    "copy.copy": lambda environ, name: copy(environ)[name],
    "|": lambda environ, name: (environ | {"a": 1})[name],
}  # fmt: skip


@pytest.mark.parametrize("name", BY_NAME)
def test_a_read_by_name_is_recorded(name: str) -> None:
    environ = observed()
    assert BY_NAME[name](environ, "HTTP_X_USER") == "ann"
    assert BY_NAME[name](environ, "REMOTE_ADDR") == "203.0.113.7"
    assert reads(environ) == ({"x-user"}, {"REMOTE_ADDR"}, set())
    assert set(environ.log.headers.values()) == {__name__}
    assert environ.log.given == {"REMOTE_ADDR"}


#: Reads of all variables.
WHOLE: dict[str, Callable[[ObservedEnviron], object]] = {
    "iter": lambda environ: next(iter(environ)),
    "len": len,
    "dict": dict,
    "{**}": lambda environ: {**environ},
    "f(**)": lambda environ: dict(**environ),
    "update": lambda environ: {"a": 1}.update(environ),
    "{} |": lambda environ: {"a": 1} | environ,
    "keys": lambda environ: list(environ.keys()),
    "values": lambda environ: list(environ.values()),
    "items": lambda environ: list(environ.items()),
    "==": lambda environ: environ == {},
    "!=": lambda environ: environ != {},
    "{} ==": lambda environ: environ == {},
    "repr": repr,
    "str": str,
    "reversed": lambda environ: list(reversed(environ)),
    "sorted": sorted,
    "set": set,
    "deepcopy": lambda environ: deepcopy(ObservedEnviron({"A": "b"}, environ.log)),
    "json": lambda environ: json.dumps(environ, default=str),
    "popitem": lambda environ: environ.popitem(),
    "match": matched,
    "mapping-proxy": lambda environ: dict(types.MappingProxyType(environ)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_read_of_all_variables_is_recorded(name: str) -> None:
    environ = observed()
    WHOLE[name](environ)
    assert "environ" in reads(environ)[2]


@pytest.mark.parametrize(
    "read",
    [
        lambda environ: dict.items(environ),
        lambda environ: dict.copy(environ),
        lambda environ: dict.get(environ, "HTTP_X_BETA"),
        lambda environ: dict.__contains__(environ, "HTTP_X_BETA"),
        lambda environ: None,
    ],
    ids=["items", "copy", "get-absent", "in-absent", "unused"],
)
def test_an_environ_that_is_taken_and_read_by_c_code_counts_as_read_as_a_whole(read: Callable[[ObservedEnviron], object]) -> None:
    environ = observed()
    read(environ.hand_out("shop"))
    assert "environ" in reads(environ)[2]


def test_an_environ_that_is_taken_for_each_read_is_not_read_as_a_whole() -> None:
    environ = observed()
    taken = environ.hand_out("shop")
    taken.get("HTTP_X_A", environ.hand_out("shop").get("HTTP_X_B"))
    environ.hand_out("shop")["HTTP_X_C"] = "1"
    assert reads(environ) == ({"x-a", "x-b"}, set(), set())


def test_reads_before_do_not_excuse_what_is_taken_later() -> None:
    environ = observed()
    taken = environ.hand_out("shop")
    assert taken.get("HTTP_X_A") is taken.get("HTTP_X_B") is None
    dict.get(environ.hand_out("shop"), "HTTP_X_C")
    assert reads(environ) == ({"x-a", "x-b"}, set(), {"environ"})


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("HTTP_X_USER", ({"x-user"}, set(), set())),
        ("HTTP_COOKIE", ({"cookie"}, set(), set())),
        ("HTTP_AUTHORIZATION", ({"authorization"}, set(), set())),
        ("CONTENT_TYPE", ({"content-type"}, set(), set())),
        ("QUERY_STRING", (set(), set(), {"query"})),
        ("RAW_URI", (set(), set(), {"query"})),
        ("REQUEST_URI", (set(), set(), {"query"})),
        ("REMOTE_ADDR", (set(), {"REMOTE_ADDR"}, set())),
        ("REMOTE_USER", (set(), {"REMOTE_USER"}, set())),
        ("SSL_CLIENT_S_DN", (set(), {"SSL_CLIENT_S_DN"}, set())),
        ("SERVER_PORT", (set(), {"SERVER_PORT"}, set())),
        ("shop.user", (set(), {"shop.user"}, set())),
        ("PATH_INFO", (set(), set(), set())),
        ("REQUEST_METHOD", (set(), set(), set())),
        ("wsgi.url_scheme", (set(), set(), set())),
        ("werkzeug.request", (set(), set(), set())),
        ("flask_stalecache.refreshing", (set(), set(), set())),
    ],
)
def test_a_variable_counts_as_what_it_says(variable: str, expected: tuple[set[str], set[str], set[str]]) -> None:
    environ = observed()
    environ.get(variable)
    assert reads(environ) == expected


def test_writes_go_through() -> None:
    environ = observed()
    environ["a"] = 1
    environ.update({"b": 2}, c=3)
    environ |= {"d": 4}
    environ.setdefault("e", 5)
    del environ["HTTP_X_USER"]
    for seen in (environ.plain, dict.copy(environ)):
        assert [seen[name] for name in "abcde"] == [1, 2, 3, 4, 5]
        assert "HTTP_X_USER" not in seen
    with pytest.raises(KeyError):
        del environ["HTTP_X_USER"]
    environ.clear()
    assert (environ.plain, dict.copy(environ)) == ({}, {})


def test_a_copy_is_another_environ_with_the_same_log() -> None:
    environ = observed()
    copied = environ.copy()
    copied["HTTP_X_USER"] = "bob"
    assert environ.plain["HTTP_X_USER"] == "ann"
    assert copied.log is environ.log


def test_what_the_framework_reads_for_itself_does_not_count() -> None:
    app = Flask("shop")
    app.add_url_rule("/page", "page", lambda: "page")
    environ = observed()

    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        # The app's middleware calls Werkzeug's, which calls Flask.
        return ProxyFix(app)(environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "wsgi_app", Flask.wsgi_app)
        assert list(wrapped(environ, lambda *args: print)) == [b"page"]
    assert reads(environ) == (set(), set(), set())


def test_what_the_framework_reads_for_a_view_counts() -> None:
    environ = observed()
    Request(environ)
    assert reads(environ) == (set(), {"REMOTE_ADDR"}, {"query"})


def test_a_paused_log_records_nothing() -> None:
    environ = observed()
    with environ.log.paused():
        environ.get("HTTP_X_USER")
        list(environ)
    assert reads(environ) == (set(), set(), set())


def test_reads_that_are_set_aside_are_kept_apart() -> None:
    environ = observed()
    with environ.log.set_aside() as aside:
        environ.get("REMOTE_ADDR")
        environ.get("HTTP_X_USER")
    environ.get("HTTP_X_OTHER")
    assert (set(aside.headers), set(aside.variables), aside.given) == ({"x-user"}, {"REMOTE_ADDR"}, {"REMOTE_ADDR"})
    assert reads(environ) == ({"x-other"}, set(), set())
