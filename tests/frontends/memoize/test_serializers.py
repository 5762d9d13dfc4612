"""Values of fetch functions: they come back as they went in, or are not stored."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_stalecache.errors import BrokenValue, ConfigError, UnstorableValue
from flask_stalecache.frontends.memoize.serializers import Codec, check_serializer, codec_of, is_immutable
from support.engine import named
from support.unpicklable import Bomb


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Row(TypedDict):
    id: int
    at: datetime


@dataclass
class Article:
    title: str
    tags: list[str] = field(default_factory=list)
    price: Decimal = Decimal("1.10")


@dataclass(frozen=True)
class Fixed:
    numbers: tuple[int, ...]


def codec(hint: Any = Any) -> Codec:
    """The codec of a function with a return annotation."""

    def function() -> None: ...

    function.__annotations__["return"] = hint
    return codec_of("json", function, [], 10**6)


def back(codec: Codec, value: Any, key: str = "key") -> Any:
    """Encode a value, decode it again, and return it."""
    return codec.decode(*codec.encode(value, key), key)()


NOW = datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        *((value, Any) for value in (None, True, 0, -(2**70), 1.5, "", "é\U0001f600")),
        *((value, Any) for value in ([], {}, [1, [2, {"a": None}]], {"a": {"b": [1.0]}})),
        *((value, Any) for value in (Markup("<b>"), b"\0\xff", NOW, date(2026, 1, 2), time(1, 2), timedelta(days=-1, seconds=3))),
        *((value, Any) for value in (Decimal("1.10"), UUID(int=7), (1, "a"), {1, 2}, frozenset({"a"}))),
        (Article("a", ["b"]), Article),
        ([Article("a"), Article("b", ["c"])], list[Article]),
        ({1: Article("a")}, dict[int, Article]),
        ({"id": 1, "at": NOW}, Row),
        (Point(1, 2), Point),
        ((1, "a"), tuple[int, str]),
        (Colour.RED, Colour),
        (None, Article | None),
        ([Markup("<b>")], list[Markup]),
        ({"a": Path("/x")}, dict[str, Path]),
        (Fixed((1, 2)), Fixed),
        ({"at": NOW}, dict[str, datetime]),
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_went_in(value: Any, hint: Any) -> None:
    got = back(codec(hint), value)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, (list, dict)) and value:
        assert type(next(iter(got))) is type(next(iter(value)))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(json_like)
def test_whatever_json_has_comes_back(value: Any) -> None:
    try:
        got = back(codec(), value)
    except UnstorableValue:
        # A text with a lone surrogate can't be encoded.
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
    else:
        assert got == value
        assert repr(got) == repr(value)


@given(
    st.lists(
        st.builds(Article, st.text("aé<", max_size=3), st.lists(st.text("b", max_size=3), max_size=3), st.decimals(-9, 9)),
        max_size=4,
    )
)
def test_dataclasses_come_back(articles: list[Article]) -> None:
    got = back(codec(list[Article]), articles)
    assert got == articles
    assert [str(article.price) for article in got] == [str(article.price) for article in articles]


@given(
    st.dictionaries(
        st.integers(-(2**63), 2**63 - 1),
        st.tuples(st.uuids(), st.dates(), st.frozensets(st.text("ab", max_size=3), max_size=3)),
        max_size=4,
    )
)
def test_nested_containers_come_back(value: dict[int, tuple[UUID, date, frozenset[str]]]) -> None:
    got = back(codec(dict[int, tuple[UUID, date, frozenset[str]]]), value)
    assert got == value
    assert {type(part) for row in got.values() for part in row} <= {UUID, date, frozenset}


class Own:
    pass


class Measure(msgspec.Struct, eq=False):
    metres: float


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RuntimeError("negative")


NEGATIVE = Positive(1)
NEGATIVE.number = -1


def test_a_struct_needs_no_equality_of_its_own() -> None:
    assert back(codec(Measure), Measure(1.5)).metres == 1.5


class Sub(list[int]):
    pass


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "hint", "reason"),
    [
        (Own(), Any, "Own"),
        ([Own()], Any, "Own"),
        (float("nan"), Any, "float"),
        ({1: "a"}, Any, "annotate"),
        ([(1, 2)], Any, "annotate"),
        ([NOW], Any, "annotate"),
        (Sub([1]), Any, "annotate"),
        (CYCLE, Any, "annotate"),
        ("\ud800", Any, "annotate"),
        ([{"title": "a"}], list[Article], r"annotation says .*Article.* and list came"),
        ("one", int, "annotation says .*int.* and str came"),
        ({"id": 1, "at": NOW, "more": 1}, Row, "annotation"),
        (Own(), Own, "Own"),
        ([(1, 2)], Any, "tuple would come back as list"),
        (Measure(1), Measure, "int would come back as float"),
        ({(1,)}, set[tuple[float]], "int would come back as float"),
        (datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin")), Any, "another datetime"),
        (datetime(2026, 3, 1, fold=1), datetime, "another datetime"),
        (Decimal("sNaN"), Any, "annotate"),
        (NEGATIVE, Positive, "negative"),
    ],
    ids=lambda value: "cycle" if value is CYCLE else named(value),
)
def test_what_would_not_come_back_is_not_stored(value: Any, hint: Any, reason: str) -> None:
    with pytest.raises(UnstorableValue, match=reason):
        codec(hint).encode(value, "key")


def test_an_annotation_that_can_not_be_resolved_is_told() -> None:
    def function() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        ...

    codec = codec_of("json", function, [], 10**6)
    assert back(codec, {"a": 1}) == {"a": 1}
    with pytest.raises(UnstorableValue, match="Nowhere"):
        codec.encode(Own(), "key")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json; type=Own", b"1"),
        ("application/json; type=UUID", b'"x"'),
        ("application/x-python-pickle", b"1"),
        ("application/x-requests-response", b"{}\n"),
        ("application/x-requests-response", b"\xff\n"),
        ("", b"1"),
    ],
)
def test_broken_bytes_are_no_value(kind: str, data: bytes) -> None:
    with pytest.raises(BrokenValue):
        codec().decode(kind, data, "key")


def test_another_annotation_does_not_fit() -> None:
    stored = codec(str).encode("one", "key")
    with pytest.raises(BrokenValue):
        codec(int).decode(*stored, "key")


def test_a_type_that_was_told_does_not_fit_an_annotation() -> None:
    for value in ((1, 2), response()):
        with pytest.raises(BrokenValue):
            codec(int).decode(*codec().encode(value, "key"), "key")


@pytest.mark.parametrize(("value", "hint"), [([1], Any), ({"a": []}, Any), (Article("a"), Article), (([1],), tuple[list[int]])])
def test_what_can_be_changed_is_everybodys_own(value: Any, hint: Any) -> None:
    read = codec(hint).decode(*codec(hint).encode(value, "key"), "key")
    assert read() == read() == value
    assert read() is not read()


@pytest.mark.parametrize(("value", "hint"), [("a", Any), (Fixed((1,)), Fixed), ((1, "a"), Any), (NOW, Any), (None, Any)])
def test_what_can_not_be_changed_is_shared(value: Any, hint: Any) -> None:
    assert is_immutable(value)
    read = codec(hint).decode(*codec(hint).encode(value, "key"), "key")
    assert read() is read()


@pytest.mark.parametrize("value", [[], {}, set(), Article("a"), ([],), Own(), bytearray(), Fixed([1])])  # type: ignore[arg-type]
def test_what_can_be_changed(value: Any) -> None:
    assert not is_immutable(value)


class Labelled(tuple[int, ...]):
    pass


class Loose(Fixed):
    pass


@pytest.mark.parametrize("value", [Labelled(), Loose((1,)), Fixed, (Labelled(),)])
def test_what_can_be_given_attributes_can_be_changed(value: Any) -> None:
    assert not is_immutable(value)


def test_a_path_can_not_be_changed() -> None:
    assert is_immutable(PurePosixPath("/a"))
    assert is_immutable((Path("a"), Colour.RED, frozenset({UUID(int=1)})))


# -- responses -------------------------------------------------------------------------------------------------------


def response(**attributes: Any) -> requests.Response:
    made = requests.Response()
    made.status_code, made.reason, made.url, made.encoding = 404, "Not Found", "https://shop.example/a?b", "latin-1"
    made.headers.update({"Content-Type": "text/plain; charset=latin-1", "X-One": "1"})
    made.cookies.set("who", "ada")
    made._content = "é".encode("latin-1")
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("hint", [Any, requests.Response, requests.Response | None])
def test_a_response_comes_back_without_its_cookies(hint: Any) -> None:
    original = response()
    read = codec(hint).decode(*codec(hint).encode(original, "key"), "key")
    got = read()
    for name in ("status_code", "reason", "url", "encoding", "content", "text", "headers", "ok"):
        assert getattr(got, name) == getattr(original, name), name
    assert got.headers["x-ONE"] == "1"
    assert not got.cookies
    assert list(got.iter_content(1)) == [b"\xe9"]
    got.headers["X-One"] = "2"
    assert read().headers["X-One"] == "1"


def test_a_response_without_a_body_comes_back() -> None:
    assert back(codec(), response(_content=None, encoding=None)).content == b""


def test_a_stream_is_not_stored() -> None:
    with pytest.raises(UnstorableValue, match="stream=True"):
        codec().encode(response(_content=False), "key")


def test_a_response_that_was_not_announced_is_not_stored() -> None:
    with pytest.raises(UnstorableValue, match=r"annotation says .*int.* and Response came"):
        codec(int).encode(response(), "key")


def test_a_response_with_a_head_of_something_else_is_not_stored() -> None:
    with pytest.raises(UnstorableValue, match="head"):
        codec().encode(response(headers=None), "key")


# -- pickle and others -----------------------------------------------------------------------------------------------


def pickles(*keys: str | bytes) -> Codec:
    return codec_of("pickle", Own, keys, 10**6)


def test_pickle_comes_back() -> None:
    assert back(pickles("secret"), {1: (Article("a"), NOW)}) == {1: (Article("a"), NOW)}


@pytest.mark.parametrize(
    ("change", "keys", "key"),
    [
        (lambda data: data, ("other",), "key"),
        (lambda data: data, ("secret",), "another key"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), ("secret",), "key"),
        (lambda data: b"A" + data[1:], ("secret",), "key"),
        (lambda data: data.partition(b".")[2], ("secret",), "key"),
        (lambda data: b"." + data.partition(b".")[2], ("secret",), "key"),
        (lambda data: b"", ("secret",), "key"),
        (lambda data: pickle.dumps(Bomb()), ("secret",), "key"),
    ],
)
def test_what_is_not_signed_by_us_is_never_unpickled(change: Callable[[bytes], bytes], keys: tuple[str, ...], key: str) -> None:
    kind, data = pickles("secret").encode(Bomb(), "key")
    before = Bomb.gone_off
    with pytest.raises(BrokenValue, match="signed"):
        pickles(*keys).decode(kind, change(data), key)
    assert Bomb.gone_off == before


def test_secret_keys_can_be_rotated() -> None:
    stored = pickles("old").encode([1], "key")
    assert pickles("old", b"new").decode(*stored, "key")() == [1]
    with pytest.raises(BrokenValue):
        pickles("old").decode(*pickles("old", "new").encode([1], "key"), "key")


def test_what_can_not_be_pickled_is_not_stored() -> None:
    with pytest.raises(UnstorableValue, match="pickled"):
        pickles("secret").encode(lambda: 1, "key")


def test_pickle_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        pickles()


class Plain:
    """A custom serializer of integers. If ``dumped`` is given, ``dumps`` returns or raises it."""

    def __init__(self, dumped: Any = None) -> None:
        self.dumped = dumped

    def dumps(self, value: Any) -> bytes:
        if isinstance(self.dumped, Exception):
            raise self.dumped
        return repr(value).encode() if self.dumped is None else self.dumped  # type: ignore[no-any-return]

    def loads(self, data: bytes) -> Any:
        return int(data)


def test_a_serializer_of_ones_own() -> None:
    own = codec_of(Plain(), Own, [], 10**6)
    assert back(own, 5) == 5
    with pytest.raises(BrokenValue, match="ValueError"):
        own.decode("application/octet-stream", b"x", "key")
    with pytest.raises(BrokenValue):
        own.decode("application/json", b"1", "key")
    for dumped, reason in ((OSError("full"), "full"), ("text", "str")):
        with pytest.raises(UnstorableValue, match=reason):
            codec_of(Plain(dumped), Own, [], 10**6).encode(1, "key")


@pytest.mark.parametrize("serializer", ["yaml", None, 5, Own()])
def test_another_serializer_is_refused(serializer: Any) -> None:
    with pytest.raises(ConfigError, match="serializer="):
        check_serializer(serializer)


def test_what_is_too_large_is_not_compared() -> None:
    def function() -> list[int]:
        return []

    codec = codec_of("json", function, [], 10)
    with pytest.raises(UnstorableValue, match="tuple"):
        codec.encode((1,), "key")
    kind, data = codec.encode((1,) * 10, "key")
    assert (kind, len(data)) == ("application/json", 21)
