"""Which fields of a response are stored, and what ``Vary`` names. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.http.fields import end_to_end, is_event_stream, listed, stored_fields, unsendable, vary_names

HOP_BY_HOP = (
    "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "Proxy-Authentication-Info",
    "Proxy-Authorization", "Proxy-Connection", "Proxy-Status", "Proxy-Foo",
)  # fmt: skip
STORED = (
    "Content-Type", "Content-Encoding", "Content-Language", "Content-Location", "Content-Disposition", "ETag", "Last-Modified",
    "Cache-Control", "CDN-Cache-Control", "Expires", "Date", "Vary", "Location", "Link", "X-Unknown", "Connections", "X-TE",
    "Content-MD5", "Content-Range", "Content-Security-Policy", "Content-Foo", "X-Content-Foo", "Clear-Site-Data", "Public-Key-Pins",
    "X-Frame-Options", "X-XSS-Protection", "X-Proxy-Foo", "Proxy",
)  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, id=f"rule5-{name}") for name in STORED])
def test_any_other_field_is_stored_as_it_is(name: str) -> None:
    assert stored_fields([(name, " Value, x ")]) == ((name, " Value, x "),)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"rule5-{name}") for name in HOP_BY_HOP])
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_hop_by_hop_fields_are_not_stored(name: str, change: type[str]) -> None:
    assert stored_fields([("X-A", "1"), (change(name), "x"), ("X-B", "2")]) == (("X-A", "1"), ("X-B", "2"))


def test_the_length_is_computed_anew() -> None:
    assert stored_fields([("Content-Length", "5"), ("content-length", "6")]) == ()


@pytest.mark.parametrize(
    ("connection", "kept"),
    [
        pytest.param(["X-A"], ["X-B", "X-C"], id="rule5-named-by-connection"),
        pytest.param(["close, x-a ,X-B"], ["X-C"], id="rule5-several-in-any-case"),
        pytest.param(["x-a", "x-c"], ["X-B"], id="rule5-several-lines"),
        pytest.param(["X"], ["X-A", "X-B", "X-C"], id="rule5-no-substrings"),
        pytest.param([""], ["X-A", "X-B", "X-C"], id="rule5-empty"),
    ],
)
def test_fields_that_connection_names_are_not_stored(connection: list[str], kept: list[str]) -> None:
    fields = [("X-A", "1"), *(("connection", value) for value in connection), ("X-B", "2"), ("X-C", "3")]
    assert [name for name, _ in stored_fields(fields)] == kept


def test_rule31_what_is_for_one_hop_does_not_go_on() -> None:
    kept = [("Content-Length", "5"), ("X-B", "2"), ("Proxy-Status", "a"), ("X-B", "3")]
    assert end_to_end([("Connection", "x-a, close"), ("X-A", "1"), ("Keep-Alive", "1"), ("Upgrade", "h2c"), *kept]) == kept


def test_rule5_repeated_fields_keep_their_number_and_order() -> None:
    fields = (("Link", "<a>"), ("X", "1"), ("Link", "<b>"), ("link", "<a>"))
    assert stored_fields(fields) == fields
    assert stored_fields(iter(fields)) == fields


@given(st.lists(st.tuples(st.sampled_from([*STORED, *HOP_BY_HOP]), st.text("abXT-,E ", max_size=8))))
def test_rule5_what_is_stored_can_be_stored_again(fields: list[tuple[str, str]]) -> None:
    stored = stored_fields(fields)
    assert stored_fields(stored) == stored
    assert not {name for name, _ in stored} & set(HOP_BY_HOP)


@pytest.mark.parametrize(
    ("value", "members"),
    [("", []), ("a", ["a"]), (" A , b,,C ,", ["a", "b", "c"]), ("*", ["*"]), ("a b", ["a b"]), ("a,a", ["a", "a"]), (" , ", [])],
)
def test_a_list_is_split_at_commas_and_put_in_lower_case(value: str, members: list[str]) -> None:
    assert listed(value) == members


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        pytest.param([], set(), id="rule9-none"),
        pytest.param([("Vary", "Accept-Language")], {"accept-language"}, id="rule9-one"),
        pytest.param([("vary", "Accept,COOKIE , x")], {"accept", "cookie", "x"}, id="rule9-several-in-any-case"),
        pytest.param([("Vary", "Accept"), ("X", "y"), ("Vary", "Cookie")], {"accept", "cookie"}, id="rule9-several-lines"),
        pytest.param([("Vary", "*")], {"*"}, id="rule9-star"),
        pytest.param([("Vary", "Accept, *")], {"accept", "*"}, id="rule9-star-among-others"),
        pytest.param([("Vary", "")], set(), id="rule9-empty"),
        pytest.param([("X-Vary", "Accept")], set(), id="rule9-another-field"),
    ],
)
def test_vary_names_are_those_of_all_lines(fields: list[tuple[str, str]], names: set[str]) -> None:
    assert vary_names(fields) == names


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([("Content-Type", "text/html")], False),
        ([("content-type", "Text/Event-Stream; charset=utf-8")], True),
        ([("X-Type", "text/event-stream")], False),
    ],
)
def test_which_response_is_a_stream_of_events(headers: list[tuple[str, str]], expected: bool) -> None:
    assert is_event_stream(headers) is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X-A", "", None),
        ("X-A", "grün, \tgelb", None),
        ("X-A", "a\nb", "'X-A'"),
        ("X-A", "a\rb", "'X-A'"),
        ("X-A", "a\0", "'X-A'"),
        ("X-A", "\x7f", "'X-A'"),
        ("X-A", "\u20ac", "'X-A'"),
        ("", "1", "''"),
        ("X-A:", "1", "'X-A:'"),
        ("X-A\r\nX-B", "1", "'X-A\\r\\nX-B'"),
    ],
)
def test_which_field_can_not_be_sent(name: str, value: str, expected: str | None) -> None:
    assert unsendable([("Content-Type", "text/html"), (name, value)]) == expected
