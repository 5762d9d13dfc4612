"""What is remembered for values that visitors choose stays within its bytes, whatever they send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_stalecache import Policy
from flask_stalecache.core.addressing.keys import QUOTED, page_key
from flask_stalecache.core.http.vary import normalised
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.core.remembered import MIB, Remembered, size_of
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import ServeOptions
from flask_stalecache.core.rules.variant_index import normal_form
from flask_stalecache.core.rules.variants import VARIANTS, locate
from flask_stalecache.frontends.gateway.rules import Rules
from flask_stalecache.frontends.requests_adapter.url_key import HOSTS, KEY_URLS, host_of_url, key_url
from support.engine import make_index
from support.memory import at_most

Soak = Callable[[int, int], int]
IGNORED = NamePatterns(["utm_*"])
FLOOD, SMALL_FLOOD = 200_000, 1500


def small() -> Remembered[Any, str]:
    return Remembered(most=10, limit=10_000, longest=2000)


def test_an_item_is_remembered_once() -> None:
    table = small()
    for _ in range(3):
        assert table.note(("a", None, "b"), "key") == "key"
    assert dict(table) == {("a", None, "b"): "key"}
    assert 0 < table.size < 1000


def test_what_is_too_long_is_not_remembered_and_forgets_nothing() -> None:
    table = small()
    table.note("hot", "key")
    for number in range(100):
        assert table.note(f"{number}" * 3000, "key") == "key"
    assert dict(table) == {"hot": "key"}


@pytest.mark.parametrize(("length", "most"), [(1, 10), (1500, 6)])
def test_a_full_table_is_emptied(length: int, most: int) -> None:
    table, seen = small(), 0
    for number in range(1000):
        table.note(f"{number:04}" + "x" * length, "key")
        assert table.size <= 10_000
        seen = max(seen, len(table))
    assert most - 1 <= seen <= most
    assert table.size == sum(120 + size_of(key) + size_of(value) for key, value in table.items())


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (None, 0, 0),
        ("", 40, 60),
        ("x" * 1000, 1040, 1060),
        ("\u20ac" * 1000, 2040, 2100),
        (("x", ("y" * 100, None)), 250, 400),
        (IGNORED, 0, 0),
    ],
)
def test_bytes_are_counted(value: Any, least: int, most: int) -> None:
    assert least <= size_of(value) <= most


def made_up(count: int, length: int) -> Iterator[str]:
    for number in range(count):
        yield f"/{number}{'x' * length}"


LENGTHS = [300, 8000]


@pytest.mark.grid
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("where", ["PATH_INFO", "QUERY_STRING", "HTTP_HOST"])
def test_a_flood_of_keys_of_pages(soak: Soak, where: str, length: int) -> None:
    QUOTED.clear()
    with at_most(3 * MIB):
        for value in made_up(soak(FLOOD // 10, SMALL_FLOOD), length):
            page_key("v", {where: value}, {"user-agent": None}, IGNORED)


@pytest.mark.soak
@pytest.mark.parametrize(("urls", "length"), [(1000, 300), (1, 8000)])
def test_a_flood_of_variants(soak: Soak, urls: int, length: int) -> None:
    """Of one URL that varies on Accept-Language, and of many."""

    class Known:
        def __init__(self, key: str) -> None:
            self.entry = make_index(key)
            self.prepared: Any = None

    known = {f"url {number}": Known(f"url {number}") for number in range(urls)}
    VARIANTS.clear()
    with at_most(10 * MIB):
        for number, value in enumerate(made_up(soak(FLOOD, SMALL_FLOOD), length)):
            locate(f"url {number % urls}", {"HTTP_ACCEPT_LANGUAGE": value}, known.__getitem__, 0.0)  # type: ignore[arg-type]


@pytest.mark.soak
@pytest.mark.parametrize("length", LENGTHS)
def test_a_flood_of_normal_forms(soak: Soak, length: int) -> None:
    with at_most(2 * MIB):
        for value in made_up(soak(FLOOD, SMALL_FLOOD), length):
            assert normal_form("x-theme", value) == normalised("x-theme", value)


@pytest.mark.grid
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("where", ["PATH_INFO", "HTTP_HOST"])
def test_a_flood_of_paths_at_the_rules(soak: Soak, where: str, length: int) -> None:
    policy = Policy(max_age=60)
    rules = Rules({"/news/*": policy}, Policy(), IGNORED, ServeOptions(), PreferStale.NO)
    with at_most(2 * MIB):
        for value in made_up(soak(FLOOD // 3, SMALL_FLOOD), length):
            rules.of({"PATH_INFO": "/news/", where: value})


@pytest.mark.soak
@pytest.mark.parametrize("length", LENGTHS)
def test_a_flood_of_urls_of_third_parties(soak: Soak, length: int) -> None:
    for table in (KEY_URLS, HOSTS):
        table.clear()
    with at_most(8 * MIB):
        for value in made_up(soak(FLOOD // 10, SMALL_FLOOD), length):
            url = f"http://{value[1:]}.example{value}"
            key_url(url, IGNORED)
            host_of_url(url)
