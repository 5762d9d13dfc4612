"""Warming by the URLs that visitors type, where a proxy changes them: requests arrive as the visitors' do.

Covers ``batches.fronts``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_stalecache import ConfigError
from support.two_urls import FORWARDED, FRONTS, GATEWAY, VIEW, WAYS, WSGI, Shop

INSIDE = [(name, front, False) for name in ("ProxyFix", "a mount") for front in FRONTS]
OUTSIDE = [("ProxyFix", front, True) for front in FRONTS if front != WSGI]


@pytest.mark.parametrize(("name", "front", "outside"), [*INSIDE, *OUTSIDE])
def test_what_visitors_type_is_warmed_as_it_arrives(directory: Path, name: str, front: str, outside: bool) -> None:
    shop = Shop(directory, WAYS[name], front, outside=outside, STALECACHE_BASE_URL=WAYS[name].public)
    assert shop.visit("/page/9").word == "MISS"
    public = shop.way.public
    path = f"/{public.split('/', 3)[3]}"
    batch = shop.do("warm", [f"{public}/page/1", f"{path}/page/2", f"{public}/page/9"], concurrency=1)
    assert [(outcome.url, outcome.reason) for outcome in batch] == [
        (f"{public}/page/1", ""),
        (f"{public}/page/2", ""),
        (f"{public}/page/9", "it is fresh already"),
    ]
    assert [shop.visit(f"/page/{number}").word for number in (1, 2)] == ["HIT", "HIT"]
    shop.do("warm", f"{public}/page/9", force=True)
    assert shop.visit("/page/9").text == f"4 {public}/page/9"


@pytest.mark.parametrize("front", FRONTS)
def test_the_public_url_is_known_where_the_base_is_that_of_the_server(directory: Path, front: str) -> None:
    way = WAYS["ProxyFix"]
    shop = Shop(directory, way, front, STALECACHE_BASE_URL=way.arrives)
    with pytest.raises(ConfigError, match="is of another host"):
        shop.do("warm", f"{way.public}/page/1")
    assert shop.visit("/page/9").word == "MISS"
    batch = shop.do("warm", [f"{way.public}/page/1", "/page/2"], concurrency=1)
    assert [outcome.stored for outcome in batch] == [True, True]
    assert [shop.visit(f"/page/{number}").word for number in (1, 2)] == ["HIT", "MISS"]
    with pytest.raises(ConfigError, match="is of another host"):
        shop.do("warm", "https://other.example/page/1")


def test_fields_of_the_caller_say_how_requests_arrive(directory: Path) -> None:
    shop = Shop(directory, WAYS["ProxyFix"], VIEW, STALECACHE_BASE_URL="http://app:8000")
    assert shop.visit("/page/9").word == "MISS"
    fields = {name: value for name, value in FORWARDED.items() if name != "X-Forwarded-Prefix"}
    shop.do("warm", "/page/1", headers=fields)
    assert shop.visit("/page/1", fields).page == ("HIT", "2 https://shop.example/page/1")
    assert shop.visit("/page/1").word == "MISS"


def test_most_visitors_decide(directory: Path) -> None:
    """One visitor may have sent anything."""
    shop = Shop(directory, WAYS["ProxyFix"], GATEWAY, STALECACHE_BASE_URL="https://shop.example/shop")
    shop.visit("/page/9", {**FORWARDED, "X-Forwarded-Port": "1"})
    for number in (7, 8):
        shop.visit(f"/page/{number}")
    shop.do("warm", "/shop/page/1")
    assert shop.visit("/page/1").word == "HIT"


def test_a_field_that_is_not_in_the_key_can_not_be_learned(directory: Path) -> None:
    """Then a request is sent to the public URL, and Flask sees that URL although the field is missing."""
    shop = Shop(directory, WAYS["ReverseProxied"], VIEW, STALECACHE_BASE_URL="https://app:8000/shop")
    assert shop.visit("/page/9").word == "MISS"
    shop.do("warm", "/shop/page/1")
    assert shop.visit("/page/1").page == ("HIT", "2 https://app:8000/shop/page/1")
