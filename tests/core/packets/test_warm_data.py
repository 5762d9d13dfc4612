"""A warming request as data: its form, what is refused, and the names of its files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from flask_stalecache.core.addressing.base_url import Base, environ_fields
from flask_stalecache.core.packets.warm_data import FILES, WarmData, file_name

BASE = Base("https", "shop.example:8443", "/shop")
ADDRESS = BASE.address("/shop/caf\u00e9?q=\u00e4;b")
DATA = WarmData(
    app="shop",
    version="7",
    url=ADDRESS.url,
    recipe=BASE.recipe(ADDRESS),
    fields=environ_fields({"Accept-Language": "de", "X-Forwarded-Host": "b\u00fccher.example", "X_Odd": ""}),
    force=True,
)


@pytest.mark.parametrize("data", [DATA, replace(DATA, fields={}, force=False, version="")], ids=["fields", "none"])
def test_it_arrives_as_it_was(data: WarmData) -> None:
    arrived = WarmData.from_json(json.loads(json.dumps(data.to_json())))
    assert arrived == data
    sent, other = (each.recipe.to_environ() for each in (data, arrived))
    assert {name: value for name, value in sent.items() if isinstance(value, str)} == {
        name: value for name, value in other.items() if isinstance(value, str)
    }


def with_recipe(**changes: Any) -> dict[str, Any]:
    return {"recipe": DATA.to_json()["recipe"] | changes}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"v": 2}, "the form v=1"),
        ({"v": None}, "the form v=1"),
        ({"app": None}, "app=None is not a string"),
        ({"version": 7}, "version=7 is not a string"),
        ({"url": ["/"]}, "is not a string"),
        ({"force": 1}, "force=1 is neither"),
        ({"force": None}, "force=None is neither"),
        ({"headers": None}, "headers=None is not a mapping"),
        ({"headers": [["Accept", "x"]]}, "is not a mapping"),
        ({"headers": {"Accept": 1}}, "give a string in one line"),
        ({"headers": {"Accept": "a\r\nX: b"}}, "give a string in one line"),
        ({"headers": {"a b": "x"}}, "give names of request fields"),
        ({"headers": {"cookie": "session=x"}}, "visitors without cookies"),
        ({"headers": {"authorization": "x"}}, "whom nobody knows"),
        ({"headers": {"accept": "\ud800"}}, "surrogates not allowed"),
        ({"recipe": None}, "its recipe is invalid"),
        ({"recipe": "x"}, "its recipe is invalid"),
        ({"recipe": {}}, "its recipe is invalid"),
        (with_recipe(path=7), "its recipe is invalid"),
        (with_recipe(server=["x"]), "its recipe is invalid"),
        (with_recipe(raw=[["wsgi.input", "x"]]), "its recipe is invalid"),
        (with_recipe(fields=[["HTTP_COOKIE", "session=x"]]), "is not that of a warming request"),
        (with_recipe(digests=[["HTTP_HOST", "ab"]]), "is not that of a warming request"),
        (with_recipe(session=[["user", "ab"]]), "is not that of a warming request"),
        (with_recipe(scheme="file"), "is not that of a warming request"),
    ],
    ids=ascii,
)
def test_what_is_no_request_is_told(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        WarmData.from_json(DATA.to_json() | change)


@pytest.mark.parametrize("other", [None, "page", 5, [], [("v", 1)], b"{}"], ids=ascii)
def test_what_is_no_dictionary_is_told(other: object) -> None:
    with pytest.raises(ValueError, match="is not of the form v=1"):
        WarmData.from_json(other)


@pytest.mark.parametrize("is_done", [False, True])
def test_the_sweep_knows_the_names_of_its_files(is_done: bool) -> None:
    name = file_name("0f" * 20, is_done=is_done)
    assert FILES.fullmatch(name)
    assert FILES.fullmatch(f"{name}.0123456789abcdef.tmp")


def test_request_and_outcome_have_names_of_their_own() -> None:
    assert file_name("0f" * 20) != file_name("0f" * 20, is_done=True)


@pytest.mark.parametrize("address", ["", "x", "0f" * 19, "../" + "0f" * 20, "0f" * 20 + "\n", "0F" * 20], ids=ascii)
def test_what_is_no_address_names_no_file(address: str) -> None:
    with pytest.raises(ValueError, match="is not a digest"):
        file_name(address)
