"""Request objects whose attributes are set at once, without Werkzeug's constructor, have the attributes that it sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Request
from flask import request as current
from werkzeug.test import create_environ
from werkzeug.wrappers import Request as WerkzeugRequest

from flask_stalecache import StaleCache
from flask_stalecache.frontends.pages.watching.request_recorder import observed_request_class


def observed(base: type[Request] = Request) -> Any:
    return observed_request_class(base, {})


def state_of(request: Any) -> dict[str, Any]:
    """Return the attributes that both kinds keep in the same place, and some that are computed from them."""
    state = {name: getattr(request, name) for name in ("method", "scheme", "server", "root_path", "path", "shallow")}
    cookies = list(request.cookies.items(multi=True))
    return {
        **state,
        "query": request.query_string,
        "address": request.remote_addr,
        "headers": dict(request.headers.items()),
        "cookies": cookies,
    }


ENVIRONS: dict[str, dict[str, Any]] = {
    "of a browser": create_environ("/a/b?c=d", "http://shop.example/root", headers={"Cookie": "e=f"}),
    "with odd cookies": {"HTTP_COOKIE": 'a=1; a=2; b="\\303\\244"; c; =d; e=\xc3\xa4;; f=\xff; "g"=h'},
    "with an empty cookie field": {"HTTP_COOKIE": ""},
    "over https": create_environ("/", "https://shop.example:8443"),
    "posting": create_environ("/", method="POST", data={"name": "ada"}),
    "with an encoded path": create_environ("/caf\xe9/%FF?q=%E9"),
    "empty": {},
    "with a method in lower case": {"REQUEST_METHOD": "get"},
    "with many slashes": {"SCRIPT_NAME": "/a//", "PATH_INFO": "//b//"},
    "without a leading slash": {"SCRIPT_NAME": "a", "PATH_INFO": "b"},
    "with empty values": {"SCRIPT_NAME": "", "PATH_INFO": "", "QUERY_STRING": "", "SERVER_PORT": ""},
    "with bytes that are no UTF-8": {"SCRIPT_NAME": "/\xff", "PATH_INFO": "/\xc3\xa4\xff", "QUERY_STRING": "\xe4=\xff"},
    "at a socket": {"SERVER_NAME": "/run/shop.sock", "SERVER_PORT": None},
    "at a port that is no number": {"SERVER_NAME": "shop", "SERVER_PORT": "web"},
}


@pytest.mark.parametrize("environ", ENVIRONS.values(), ids=ENVIRONS)
def test_the_attributes_are_those_that_werkzeug_sets(environ: dict[str, Any]) -> None:
    kind = observed()
    given = environ.copy()
    request = kind(given)
    assert kind.stalecache_is_usual
    assert state_of(request) == state_of(WerkzeugRequest(environ.copy()))
    assert given.pop("werkzeug.request") is request
    assert given == {name: value for name, value in environ.items() if name != "werkzeug.request"}


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"])
def test_what_is_no_latin_1_is_refused_as_by_werkzeug(name: str) -> None:
    for kind in (observed(), WerkzeugRequest):
        with pytest.raises(UnicodeEncodeError):
            kind({name: "/\u4e2d"})


def test_a_shallow_request_does_not_get_into_its_environ() -> None:
    for kind in (observed(), WerkzeugRequest):
        environ: dict[str, Any] = {}
        assert kind(environ, shallow=True).shallow
        assert kind(environ, False).path == "/"
        assert environ == {}


class WithConstructor(Request):
    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        WithConstructor.made += 1


class WithPath(Request):
    @property
    def path(self) -> str:
        shown: str = self.__dict__["shown"]
        return shown.lower()

    @path.setter
    def path(self, value: str) -> None:
        self.__dict__["shown"] = value


class WithAttributes(Request):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.lower() if name == "path" else value)


class WithCreation(Request):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        made.began = 1  # type: ignore[attr-defined]
        return made


@pytest.mark.parametrize("base", [WithConstructor, WithPath, WithAttributes, WithCreation])
def test_a_class_of_the_apps_own_with_other_steps_is_constructed_by_werkzeug(base: type[Request]) -> None:
    kind = observed(base)
    request, plain = kind(create_environ("/Page")), base(create_environ("/Page"))
    assert not kind.stalecache_is_usual
    assert request.path == plain.path
    assert vars(request).keys() - {"environ"} >= vars(plain).keys() - {"environ", "headers", "query_string", "remote_addr"}


def test_a_constructor_of_the_apps_own_is_not_tried_out() -> None:
    WithConstructor.made = 0
    observed(WithConstructor)
    assert WithConstructor.made == 0


def test_a_class_that_only_adds_methods_is_constructed_at_once() -> None:
    class Mine(Request):
        max_content_length = 10

        def is_mobile(self) -> bool:
            return "Mobile" in str(self.user_agent)

    assert observed(Mine).stalecache_is_usual


def patched(more: Callable[[Any], None]) -> Callable[..., None]:
    original = WerkzeugRequest.__init__

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        more(self)

    return construct


def add_attribute(request: Any) -> None:
    request.trace_id = "1"


def change_attribute(request: Any) -> None:
    request.scheme = "https"


def add_variable(request: Any) -> None:
    request.environ["instrumented"] = True


@pytest.mark.parametrize(
    ("more", "read", "value"),
    [
        (add_attribute, lambda request: request.trace_id, "1"),
        (change_attribute, lambda request: request.scheme, "https"),
        (add_variable, lambda request: request.environ["instrumented"], True),
    ],
    ids=["another attribute", "another value", "a variable"],
)
def test_another_constructor_of_werkzeug_is_called(
    more: Callable[[Any], None], read: Callable[[Any], object], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version may set more, and so may a library that instruments it."""
    monkeypatch.setattr(WerkzeugRequest, "__init__", patched(more))
    kind = observed()
    assert not kind.stalecache_is_usual
    environ = create_environ("/")
    request = kind(environ)
    assert read(request) == value
    assert environ["werkzeug.request"] is request


def test_an_app_gets_requests_that_are_made_at_once(tmp_path: Any) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    StaleCache(app)

    @app.get("/<name>")
    def show(name: str) -> str:
        return f"{name} {current.url} {current.remote_addr} {current.method}"

    assert app.request_class.stalecache_is_usual  # type: ignore[attr-defined]
    answer = app.test_client().get("/caf\xe9?a=b", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert answer.text == "caf\xe9 http://localhost/caf\xe9?a=b 192.0.2.7 GET"


@pytest.mark.parametrize("after_a_read", [False, True])
def test_cookies_that_the_app_puts_in_place_of_those_that_came_are_read(after_a_read: bool) -> None:
    request = observed()(create_environ("/", headers={"Cookie": "user=ann"}))
    if after_a_read:
        assert request.cookies["user"] == "ann"
    request.cookies = {"user": "bob"}
    assert request.cookies["user"] == "bob"
    assert "user" in request.stalecache_reads.cookies
