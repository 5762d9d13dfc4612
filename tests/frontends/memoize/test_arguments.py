"""The arguments of fetch functions: equal ones have one form, and they can be rebuilt from data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.local import LocalProxy

from flask_stalecache import ConfigError, UnkeyableArgument
from flask_stalecache.frontends.memoize.arguments import Arguments, canonical


class Colour(Enum):
    RED = 1
    BLUE = 2


class Also(Enum):
    RED = 1


class Rights(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Article:
    title: str
    day: date = date(2026, 1, 1)


class Odd(Enum):
    name = 1  # type: ignore[assignment]
    value = 2


@dataclass
class Rows(list[int]):
    title: str = ""


@dataclass(init=False)
class Unset:
    title: str


class Zone(tzinfo):
    def utcoffset(self, when: datetime | None, /) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, when: datetime | None, /) -> str:
        return "Z"


def form(value: object) -> str:
    return canonical(value, "it", "shop.rates")


#: No two of these are the same argument.
DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 1.0, -0.0, 0.0, "1", b"1", "", "None", [], (), {}, set(), frozenset(), [1], (1,), {1}, frozenset({1}),
    {"a": 1}, {"a": "1"}, {1: "a"}, ["a", "b"], ["a,b"], ["a', 'b"], [["a"], "b"], [["a", "b"]], [[], []], [[[]]],
    Colour.RED, Colour.BLUE, Also.RED, Rights.READ, Rights.READ | Rights.WRITE, Point(1, 2), (1, 2), Article("a"), Article("b"),
    date(2026, 1, 1), datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), datetime(2026, 1, 1, fold=1), time(1), timedelta(1), timedelta(2), "2026-01-01",
    Decimal("1"), Decimal("1.0"), UUID(int=1), str(UUID(int=1)), PurePosixPath("/a"), Path("/b"), "/a", Markup("1"),
    Odd["name"], Odd["value"], 10**5000, -(10**5000), hex(10**5000), time(1, tzinfo=ZoneInfo("Europe/Berlin")),
]  # fmt: skip


def test_different_arguments_have_different_forms() -> None:
    forms = [form(value) for value in DIFFERENT]
    assert len(set(forms)) == len(DIFFERENT)
    assert all(each.isascii() for each in forms)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {1, 2, 3}),
        (Article("a"), Article("a", date(2026, 1, 1))),
        ([Point(1, 2)], [Point(1, 2)]),
    ],
)
def test_equal_arguments_have_one_form(one: object, other: object) -> None:
    assert form(one) == form(other)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_like, json_like)
def test_forms_are_equal_only_where_values_are(one: Any, other: Any) -> None:
    if form(one) == form(other):
        assert one == other
    assert form(one) == form(one)


def test_forms_are_the_same_in_every_process() -> None:
    code = "from flask_stalecache.frontends.memoize.arguments import canonical; print(canonical({'a', 'b', 'c', 'd'}, '', ''))"
    seeds = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(seeds) == 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


class Other(list[int]):
    pass


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "builtins.object"),
        ([object()], "object"),
        (len, "builtin"),
        (CYCLE, "itself"),
        (Other(), "Other"),
        (1j, "complex"),
        (Article, "builtins.type"),
        (Rows(), "Rows"),
        (Unset(), "Unset without its field 'title'"),
        (datetime(2026, 1, 1, tzinfo=Zone()), "zone that is a .*Zone"),
        (LocalProxy(lambda: Colour.RED), "LocalProxy"),
        (LocalProxy(lambda: "a"), "LocalProxy"),
        ({"a": [(b"", {Point(1, object())})]}, "builtins.object"),  # type: ignore[arg-type]
    ],
    ids=[
        "object",
        "inside",
        "function",
        "cycle",
        "list",
        "complex",
        "class",
        "rows",
        "unset",
        "zone",
        "proxy",
        "text-proxy",
        "deep",
    ],
)
def test_what_has_no_form_is_refused_by_name(value: object, what: str) -> None:
    with pytest.raises(UnkeyableArgument, match=rf"'it' of shop\.rates\(\).*{what}.*ignored_args=.*key=") as caught:
        form(value)
    assert "0x" not in str(caught.value)


# -- binding ---------------------------------------------------------------------------------------------------------


def rates(base: str, day: int = 1, *more: int, client: object = None, **rest: Any) -> None: ...


def plain(a: int, b: int = 2) -> None: ...


def by_place(x: int, /, **rest: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "one", "other", "same"),
    [
        (plain, ((1,), {}), ((), {"a": 1, "b": 2}), True),
        (plain, ((1,), {"b": 2}), ((1, 2), {}), True),
        (plain, ((1,), {}), ((2,), {}), False),
        (plain, ((1, 2), {}), ((2, 1), {}), False),
        (rates, (("a", 1, 2), {}), (("a", 1, 3), {}), False),
        (rates, (("a",), {"x": 1, "y": 2}), (("a",), {"y": 2, "x": 1}), True),
        (rates, (("a",), {"x": 1}), (("a",), {"y": 1}), False),
        (rates, (("a",), {"client": object()}), (("a",), {}), True),
        (rates, (("a",), {"trace": object()}), (("a",), {}), True),
        (by_place, ((1,), {"x": 2}), ((1,), {}), False),
        (by_place, ((1,), {"x": 2}), ((2,), {"x": 1}), False),
    ],
)
def test_which_calls_have_one_key(function: Callable[..., None], one: Any, other: Any, same: bool) -> None:
    arguments = Arguments(function, "shop.f", ["client", "trace"] if function is rates else [])
    assert (arguments.key_part(*one) == arguments.key_part(*other)) is same


def test_a_call_that_does_not_fit_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"shop\.plain\(\) missing a required argument: 'a'"):
        Arguments(plain, "shop.plain", []).key_part((), {})


def test_an_ignored_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'bb'.*'b'"):
        Arguments(plain, "shop.plain", ["bb"])


def test_all_other_parameters_may_be_ignored_by_their_name() -> None:
    arguments = Arguments(by_place, "shop.by_place", ["rest"])
    assert arguments.key_part((1,), {"y": object()}) == arguments.key_part((1,), {})


@pytest.mark.parametrize("function", [dict, min, 3])
def test_a_function_that_does_not_tell_its_parameters_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"shop\.f does not tell its parameters"):
        Arguments(function, "shop.f", [])


# -- as data ---------------------------------------------------------------------------------------------------------


def typed(when: datetime, colour: Colour, article: Article, *paths: Path, uid: UUID, amounts: tuple[Decimal, ...] = ()) -> None: ...


def other(ratio: float | None = None, names: dict[int, str] | None = None, pair: tuple[int, int] = (0, 0)) -> None: ...


def untold(a, b=None):  # type: ignore[no-untyped-def]
    """A function without annotations."""


def unresolved(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def exactly(one: object, again: object) -> bool:
    return form(one) == form(again)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (other, (1,), {}),
        (other, (1.0,), {"names": {1: "a"}, "pair": (1, 2)}),
        (unresolved, ("a",), {}),
        (plain, (1,), {"b": 2}),
        (rates, ("a", 1, 2, 3), {"x": [1, {"a": None}]}),
        (
            typed,
            (datetime(2026, 1, 1, tzinfo=timezone.utc), Colour.RED, Article("a"), Path("/a"), Path("/b")),
            {"uid": UUID(int=3), "amounts": (Decimal("1.10"),)},
        ),
    ],
)
def test_arguments_are_made_again(function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    arguments = Arguments(function, "shop.f", [])
    data = arguments.to_json(args, kwargs)
    assert data is not None
    assert json.loads(json.dumps(data)) == data
    assert exactly(arguments.from_json(json.loads(json.dumps(data))), (args, kwargs))


@given(json_like, json_like)
def test_arguments_are_made_again_exactly_or_not_at_all(one: Any, two: Any) -> None:
    arguments = Arguments(untold, "shop.untold", [])
    data = arguments.to_json((one,), {"b": two})
    if data is not None:
        assert exactly(arguments.from_json(json.loads(json.dumps(data))), ((one,), {"b": two}))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_json_is_its_own_data(value: Any) -> None:
    assert Arguments(untold, "shop.untold", []).to_json((value,), {}) == {"args": [value], "kwargs": {}}


def test_data_does_not_change_with_the_argument() -> None:
    rows = [1]
    data = Arguments(untold, "shop.untold", []).to_json((rows,), {})
    rows.append(2)
    assert data == {"args": [[1]], "kwargs": {}}


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (rates, ("a",), {"client": 1}),
        (rates, ("a",), {"x": (1, 2)}),
        (rates, ("a",), {"x": object()}),
        (rates, ("a",), {"x": float("nan")}),
        (rates, ("a",), {"x": {1: 2}}),
        (typed, (datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), Colour.RED, Article("a")), {"uid": UUID(int=3)}),
        (unresolved, (date(2026, 1, 1),), {}),
        (plain, ("1",), {}),
        (plain, (True,), {}),
    ],
)
def test_what_can_not_be_made_again_is_not_told(
    function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert Arguments(function, "shop.f", ["client"] if function is rates else []).to_json(args, kwargs) is None


@pytest.mark.parametrize(
    "data",
    [
        {"args": "ab", "kwargs": {}}, {"args": [], "kwargs": []}, {"args": ["x"], "kwargs": {}}, {}, [], None, {"args": [1]},
        {"args": [], "kwargs": {}}, {"args": [1, 2, 3], "kwargs": {}}, {"args": [1], "kwargs": {"zz": 1}},
    ],
)  # fmt: skip
def test_data_that_is_none_is_an_error(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Arguments(plain, "shop.plain", []).from_json(data)
