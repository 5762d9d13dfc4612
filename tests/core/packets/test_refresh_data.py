"""A refresh as data: its form, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from flask_stalecache.core.packets.refresh_data import OriginKind, RefreshData, is_repeatable

DATA = RefreshData(
    app="shop", version="7", kind=OriginKind.PAGE, address="0f" * 20, serial="a1b2c3d4e5f60718", expires=1764410400.5
)


def test_it_survives_a_queue() -> None:
    assert RefreshData.from_json(json.loads(json.dumps(DATA.to_json()))) == DATA


def test_its_form() -> None:
    assert DATA.to_json() == {
        "v": 1,
        "app": "shop",
        "version": "7",
        "kind": "page",
        "key": "0f" * 20,
        "serial": "a1b2c3d4e5f60718",
        "expires": 1764410400.5,
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"v": 2}, "the form v=2"),
        ({"v": None}, "the form v=None"),
        ({"app": None}, "app=None is not a short string"),
        ({"app": "x" * 501}, "is not a short string"),
        ({"version": 7}, "version=7 is not a short string"),
        ({"kind": "session"}, "kind='session' is not one of page, call, gateway"),
        ({"kind": []}, r"kind=\[\] is not one of"),
        ({"key": "page"}, "key='page' is not the digest of a key"),
        ({"key": "0f" * 19 + "../"}, "is not the digest of a key"),
        ({"key": "0f" * 20 + "\n"}, "is not the digest of a key"),
        ({"serial": 5}, "serial=5 is not a short string"),
        ({"expires": "soon"}, "expires='soon' is not a time"),
        ({"expires": True}, "expires=True is not a time"),
        ({"expires": math.nan}, "expires=nan is not a time"),
        ({"expires": math.inf}, "expires=inf is not a time"),
    ],
    ids=ascii,
)
def test_what_is_no_refresh_is_told(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RefreshData.from_json(DATA.to_json() | change)


@pytest.mark.parametrize("other", [None, "page", 5, [], [("v", 1)], b"{}"], ids=ascii)
def test_what_is_no_dictionary_is_told(other: object) -> None:
    with pytest.raises(ValueError, match="a refresh is a dictionary, not"):
        RefreshData.from_json(other)


PAGE = {"scheme": "http", "path": "/", "digests": [], "session": []}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (PAGE, True),
        ({"scheme": "http", "path": "/"}, True),
        (PAGE | {"digests": [["HTTP_AUTHORIZATION", "ab"]]}, False),
        (PAGE | {"session": [["group", "ab"]]}, False),
        ({"function": "shop.rates", "arguments": {"args": ["EUR"]}}, True),
        ({"function": "shop.rates", "arguments": {}}, True),
        ({"function": "shop.rates", "arguments": None}, False),
        ({"url": "https://third.example/"}, False),
        ({}, False),
    ],
    ids=ascii,
)
def test_which_recipes_are_whole(recipe: dict[str, Any], expected: bool) -> None:
    assert is_repeatable(recipe) is expected
