"""Which requests carry a name, in whatever way a client writes it. Covers ``core.model.environ``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.model.environ import environ_name
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.rules.prefer_stale import RequestFlag
from support.client import wire

COOKIES: list[tuple[str, str | None, bool]] = [
    ("session", None, False),
    ("session", "", False),
    ("session", "session=x", True),
    ("session", "session=", True),
    ("session", "session", True),
    ("session", "a=1; session=x; b=2", True),
    ("session", "a=1;session=x", True),
    ("session", "a=1;   session=x", True),
    ("session", " session=x", True),
    ("session", "session =x", True),
    ("session", "session=x; session=y", True),
    ("session", 'session="quoted; value"', True),
    ("session", 'a="; session=x"', False),
    ("session", "my_session=x", False),
    ("session", "session_id=x", False),
    ("session", "a=session", False),
    ("session", 'a="session=x"', False),
    ("session", "Session=x", False),
    ("session", "my_session=x; session=y", True),
    ("session", "a=session; session_id=b", False),
    ("session", "a=1,session=x", False),
    ("session", ";;; session=x;;", True),
    ("session", "=x; session", True),
    ("sess[0]", "sess[0]=1", True),
    (wire("é"), wire("é=1"), True),
    (wire("é"), wire("a=1; é=2"), True),
    (wire("é"), wire("éa=1"), False),
    (wire("é"), wire("a=é"), False),
    (wire("é"), "a=1", False),
    ("\xe9", "\xe9=1", True),
    ("session", wire("a=é; session=x"), True),
    ("session", wire("a=é; session_id=x"), False),
    ("session", "a=\xe9; session=x", True),
    ("session", "a=\xe9; session_id=x", False),
    ("session", "session=\xff", True),
]


@pytest.mark.parametrize(("name", "field", "carried"), COOKIES, ids=repr)
def test_a_cookie_is_carried_if_the_app_would_find_it(name: str, field: str | None, carried: bool) -> None:
    environ = {} if field is None else {"HTTP_COOKIE": field}
    assert RequestInputs(cookies=(name,)).present_in(environ) is carried
    assert (name in Request(environ).cookies) is carried, "the table is wrong"


cookie_text = st.lists(
    st.sampled_from(["a", "ab", "b", wire("é"), "\xe9", "=", ";", "; ", '"', "\\", " ", ",", "1", "a=1", "; ab=2", "\xa0"]),
    max_size=10,
).map("".join)
cookie_names = st.lists(st.sampled_from(["a", "ab", "b", wire("é"), "\xe9", "1", "a b"]), min_size=1, max_size=3)


@given(cookie_text, cookie_names)
def test_a_cookie_that_the_app_would_find_is_never_missed(field: str, names: list[str]) -> None:
    environ = {"HTTP_COOKIE": field}
    found = any(name in Request(environ).cookies for name in names)
    assert RequestInputs(cookies=tuple(names)).present_in(environ) is found


HEADERS: list[tuple[str, Mapping[str, str], bool]] = [
    ("x-remote-user", {}, False),
    ("x-remote-user", {"HTTP_X_REMOTE_USER": "ada"}, True),
    ("X-Remote-User", {"HTTP_X_REMOTE_USER": "ada"}, True),
    ("x-remote-user", {"HTTP_X_REMOTE_USER": ""}, True),
    ("x-remote-user", {"HTTP_X_REMOTE_USERS": "ada"}, False),
    ("x-remote-user", {"X_REMOTE_USER": "ada"}, False),
    ("remote-user", {"REMOTE_USER": "ada"}, False),
    ("cookie", {"HTTP_COOKIE": "a=1"}, True),
    ("content-type", {}, False),
    ("content-type", {"CONTENT_TYPE": ""}, False),
    ("content-type", {"CONTENT_TYPE": "text/plain"}, True),
    ("content-type", {"HTTP_CONTENT_TYPE": "text/plain"}, False),
    ("content-length", {"CONTENT_LENGTH": ""}, False),
    ("content-length", {"CONTENT_LENGTH": "5"}, True),
]


@pytest.mark.parametrize(("name", "environ", "carried"), HEADERS, ids=repr)
def test_a_field_is_carried_if_it_is_there_even_empty(name: str, environ: dict[str, str], carried: bool) -> None:
    assert RequestInputs(headers=(name,)).present_in(environ) is carried


def test_nothing_read_is_carried_by_nobody() -> None:
    everything = {"HTTP_COOKIE": "a=1", "HTTP_X": "1", "QUERY_STRING": "a=1", "CONTENT_TYPE": "a/b"}
    assert not RequestInputs().present_in(everything)
    assert not RequestInputs()
    assert not RequestInputs().carried_part(everything)


@pytest.mark.parametrize(
    "names", [RequestInputs(cookies=("a",)), RequestInputs(headers=("a",)), RequestInputs(session=("a",))], ids=repr
)
def test_any_name_makes_it_true(names: RequestInputs) -> None:
    assert names


def test_one_name_of_many_is_enough() -> None:
    names = RequestInputs(("a", "b"), ("x-a", "x-b"))
    for environ in ({"HTTP_COOKIE": "b=1"}, {"HTTP_X_B": "1"}):
        assert names.present_in(environ)
    assert not names.present_in({"HTTP_COOKIE": "c=1", "HTTP_X_C": "1", "QUERY_STRING": "r"})


def test_the_carried_part_is_those_names_that_the_request_has() -> None:
    names = RequestInputs(("a", "b"), ("x-a", "x-b"))
    environ = {"HTTP_COOKIE": "b=1; c=2", "HTTP_X_A": "", "QUERY_STRING": "q&r"}
    assert names.carried_part(environ) == RequestInputs(("b",), ("x-a",))


def test_a_union_has_every_name_once_and_in_order() -> None:
    one, other = RequestInputs(("b", "a"), ("x",)), RequestInputs(("c", "a"), ())
    assert one | other == RequestInputs(("a", "b", "c"), ("x",))
    assert (one | other).present_in({"HTTP_X": "1"})


name_lists = st.lists(st.text(max_size=6), max_size=3).map(tuple)


@given(st.builds(RequestInputs, name_lists, name_lists, name_lists, name_lists))
def test_names_are_the_same_after_a_trip_through_data(names: RequestInputs) -> None:
    assert RequestInputs.from_json(names.to_json()) == names


@pytest.mark.parametrize(
    ("keys", "environ", "held", "carried"),
    [
        ((), {"HTTP_COOKIE": "session=x"}, {"a"}, ()),
        (("a",), {}, set(), ()),
        (("a",), {}, {"b"}, ()),
        (("a",), {"HTTP_COOKIE": "session=x"}, {"b"}, ()),
        (("a",), {"HTTP_COOKIE": "session=x"}, {"a"}, ("a",)),
        # Without a cookie, a hook may have put the key into the session.
        (("a",), {}, {"a"}, ("a",)),
        (("a", "b", "c"), {"HTTP_COOKIE": "session=x"}, {"c", "a"}, ("a", "c")),
        # It is unknown what the session holds: any cookie may be that of a session with these keys.
        (("a", "b"), {"HTTP_COOKIE": "theme=dark"}, None, ("a", "b")),
        (("a", "b"), {}, None, ()),
    ],
)
def test_a_session_key_is_carried_if_the_session_holds_it(
    keys: tuple[str, ...], environ: dict[str, str], held: set[str] | None, carried: tuple[str, ...]
) -> None:
    names, holds = RequestInputs(session=keys), None if held is None else lambda asked: not held.isdisjoint(asked)
    assert names.carried_part(environ, holds) == RequestInputs(session=carried)
    assert names.present_in(environ, holds) is bool(carried)


def test_session_keys_are_known_to_other_caches_as_the_cookie_field() -> None:
    names = RequestInputs(headers=("x-user",), variables=("REMOTE_ADDR",), session=("_user_id",))
    assert names.fields == {"x-user", "cookie"}
    assert names.text == "the session key _user_id and the field x-user and the variable REMOTE_ADDR"
    assert names.labels == ("x-user", "session key _user_id", "REMOTE_ADDR")
    assert names.without_fields({"x-user"}) == RequestInputs(variables=("REMOTE_ADDR",), session=("_user_id",))


def test_names_from_data_are_found_as_before() -> None:
    names = RequestInputs.from_json(RequestInputs(("a",), ("x-user",)).to_json())
    assert names.present_in({"HTTP_X_USER": "ada"})


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Accept-Language", "HTTP_ACCEPT_LANGUAGE"),
        ("x", "HTTP_X"),
        ("Content-Type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("Content-Encoding", "HTTP_CONTENT_ENCODING"),
    ],
)
def test_a_field_has_the_name_that_wsgi_gives_it(header: str, name: str) -> None:
    assert environ_name(header) == name


def any_environ() -> st.SearchStrategy[dict[str, Any]]:
    values = st.text("ab=;&% ", max_size=8)
    return st.fixed_dictionaries({}, optional=dict.fromkeys(["HTTP_COOKIE", "HTTP_A", "QUERY_STRING", "CONTENT_TYPE"], values))


@given(st.builds(RequestInputs, *[st.lists(st.sampled_from(["a", "b"]), unique=True).map(tuple)] * 2), any_environ())
def test_a_request_carries_names_if_and_only_if_a_part_of_them_is_carried(names: RequestInputs, environ: dict[str, Any]) -> None:
    assert names.present_in(environ) is bool(names.carried_part(environ))


# -- a value that is asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "environ", "value"),
    [
        ("header", "X-Prefer-Stale", {}, ""),
        ("header", "X-Prefer-Stale", {"HTTP_X_PREFER_STALE": "1"}, "1"),
        ("header", "x-prefer-stale", {"HTTP_X_PREFER_STALE": "yes"}, "yes"),
        ("header", "X-Prefer-Stale", {"HTTP_X_PREFER_STALE": ""}, ""),
        ("header", "X-Prefer-Stale", {"HTTP_X_PREFER_STALE": "0"}, "0"),
        ("header", "X-Prefer-Stale", {"HTTP_X_PREFER": "1", "X_PREFER_STALE": "1", "HTTP_COOKIE": "X-Prefer-Stale=1"}, ""),
        ("header", "a", {"HTTP_COOKIE": "a=1"}, ""),
        ("cookie", "stale", {}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": ""}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": "stale=1"}, "1"),
        ("cookie", "stale", {"HTTP_COOKIE": "a=1; stale=yes; b=2"}, "yes"),
        ("cookie", "stale", {"HTTP_COOKIE": "stale="}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": "stale"}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": "stale=0"}, "0"),
        ("cookie", "stale", {"HTTP_COOKIE": 'stale="1"'}, "1"),
        ("cookie", "stale", {"HTTP_COOKIE": "stale=1; stale=0"}, "1"),
        ("cookie", "stale", {"HTTP_COOKIE": "stales=1; prefer_stale=1; a=stale"}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": 'a="; stale=1"'}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": "Stale=1"}, ""),
        ("cookie", "stale", {"HTTP_STALE": "1"}, ""),
        ("cookie", "stale", {"HTTP_COOKIE": "a=\xff; stale=1"}, "1"),
        ("cookie", "stale", {"HTTP_COOKIE": "stale=\xff"}, "\xff"),
    ],
    ids=repr,
)
def test_a_value_is_what_the_app_would_see(kind: str, name: str, environ: dict[str, str], value: str) -> None:
    assert RequestFlag(kind, name).in_environ(environ) == value
    carried: Mapping[str, str] = Request(environ).cookies if kind == "cookie" else Request(environ).headers
    assert carried.get(name, "") == value, "the table is wrong"


@given(cookie_text, st.sampled_from(["a", "ab", "b", "1"]))
def test_a_cookies_value_is_that_of_the_app(field: str, name: str) -> None:
    environ = {"HTTP_COOKIE": field}
    assert RequestFlag("cookie", name).in_environ(environ) == Request(environ).cookies.get(name, "")
