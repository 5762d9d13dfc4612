"""What a query parameter is called, as the app sees it, and how a query is sorted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Request

from flask_stalecache.core.model.query import NamePatterns, SortedQuery, parameter_name, query_in_key
from support.client import wire

PARAMETERS: list[tuple[str, str | None, bool]] = [
    ("utm_a", None, False),
    ("utm_a", "", False),
    ("utm_a", "utm_a=1", True),
    ("utm_a", "utm_a", True),
    ("utm_a", "b=2&utm_a=1", True),
    ("utm_a", "%75tm_a=1", True),
    ("utm_a", "utm%5Fa", True),
    ("utm_a", "utm_ab=1", False),
    ("utm_a", "b=utm_a", False),
    ("utm_a", "b=2;utm_a=1", False),
    ("utm_a", "b=2%26utm_a=1", False),
    ("utm_a", "UTM_A=1", False),
    ("my id", "my+id=1", True),
    ("my id", "my%20id=1", True),
    ("my+id", "my%2Bid=1", True),
    ("my+id", "my+id=1", False),
    ("é", "%C3%A9=1", True),
    ("é", wire("é=1"), True),
]


@pytest.mark.parametrize(("name", "query", "carried"), PARAMETERS, ids=repr)
def test_a_parameter_is_carried_if_the_app_would_find_it(name: str, query: str | None, carried: bool) -> None:
    environ = {} if query is None else {"QUERY_STRING": query}
    assert (name in {parameter_name(part) for part in (query or "").split("&")}) is carried
    assert (name in Request(environ).args) is carried, "the table is wrong"


SORTED = [
    ("", ""),
    ("a", "a"),
    ("b=2&a=1", "a=1&b=2"),
    ("a=1&b=2", "a=1&b=2"),
    # The values of one name keep their order.
    ("b=1&a=2&a=1", "a=2&a=1&b=1"),
    ("size=2&colour=red&size=1&colour=blue", "colour=red&colour=blue&size=2&size=1"),
    # A name is what the app sees.
    ("b=0&a=2&%61=1", "a=2&%61=1&b=0"),
    ("b=0&%61=2&a=1", "%61=2&a=1&b=0"),
    ("my%20id=1&a=2", "a=2&my%20id=1"),
    ("my+id=2&a&my%20id=1", "a&my+id=2&my%20id=1"),
    ("%C3%A9=1&z=2", "z=2&%C3%A9=1"),
    ("%ff=1&z=2&%FF=2", "%ff=1&%FF=2&z=2"),
    # Nothing is added, left out or written in another way.
    ("b=&a", "a&b="),
    ("b=1&&a=2&", "&&a=2&b=1"),
    ("&", "&"),
    ("b=x;a=y&a=1", "a=1&b=x;a=y"),
    ("b;c=1&a=%3b", "a=%3b&b;c=1"),
    ("=2&a=1", "=2&a=1"),
    ("a[]=2&a[1]=x&a[]=1", "a[1]=x&a[]=2&a[]=1"),
    ("b==&a=b=c", "a=b=c&b=="),
    ("B=1&a=2", "B=1&a=2"),
    ("q=a b&p=?", "p=?&q=a b"),
]


@pytest.mark.parametrize(("query", "kept"), SORTED, ids=repr)
def test_a_query_is_sorted_by_the_names_of_its_parameters(query: str, kept: str) -> None:
    assert SortedQuery(()).split(query) == (kept, frozenset())
    assert SortedQuery(()).is_in_order(query) is (query == kept)
    assert SortedQuery(()).split(kept)[0] == kept


def test_ignored_parameters_are_left_out_before() -> None:
    query = SortedQuery(["utm_*", "b"])
    assert query.split("z=1&utm_a=1&a=2&%62=3&utm_b=2") == ("a=2&z=1", {"utm_a", "utm_b", "b"})
    assert query.is_in_order("utm_z=1&a=2&b=1&z=1")
    assert not query.is_in_order("z=1&a=2")


def test_without_sort_query_each_order_is_one_of_its_own() -> None:
    plain = query_in_key(["b"], is_sorted=False)
    assert type(plain) is NamePatterns
    assert plain.split("z=1&b=2&a=3") == ("z=1&a=3", {"b"})
    assert plain.is_in_order("z=1&b=2&a=3")
    assert type(query_in_key([], is_sorted=True)) is SortedQuery


@given(st.lists(st.sampled_from(["a=1", "a=2", "b", "b=", "%61=3", "c;a=1", "", "=", "+=1"]), max_size=7))
def test_the_app_finds_the_same_lists_of_values(parts: list[str]) -> None:
    query = "&".join(parts)
    before, after = (Request({"QUERY_STRING": each}).args for each in (query, SortedQuery(()).split(query)[0]))
    assert {name: before.getlist(name) for name in before} == {name: after.getlist(name) for name in after}
