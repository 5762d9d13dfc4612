"""Where a request for another page of the app would arrive: pure."""

from __future__ import annotations

from typing import Any

import pytest

from flask_stalecache.core.addressing.arrival import name_of_root, place_of_path, root_name, unsent
from flask_stalecache.core.model.environ import ARRIVED, as_arrived, url_variables


def at(root: str, path: str) -> dict[str, Any]:
    return {"SCRIPT_NAME": root, "PATH_INFO": path}


STRIPPED = at("", "/order"), at("/shop", "/order")
MOUNTED = at("", "/shop/order"), at("/shop", "/order")
PLACES: dict[str, tuple[tuple[dict[str, Any], dict[str, Any]], str, tuple[str, str, str | None] | None]] = {
    "nothing changed": ((at("", "/order"), at("", "/order")), "/page", ("/page", "/page", None)),
    "the path alone": ((at("", "/order/"), at("", "/order")), "/page/%C3%A9", ("/page/\xc3\xa9", "/page/%C3%A9", None)),
    "a slash at the end of the root": (
        (at("/shop/", "/order"), at("/shop", "/order")),
        "/shop/page",
        ("/shop/page", "/shop/page", None),
    ),
    "a prefix": (STRIPPED, "/shop/page", ("/page", "/page", "/shop")),
    "a prefix, and bytes": (STRIPPED, "/shop/p%C3%A9%2f", ("/p\xc3\xa9/", "/p%C3%A9%2f", "/shop")),
    "the prefix itself": (STRIPPED, "/shop", ("", "", "/shop")),
    "beside a prefix": (STRIPPED, "/shops/page", ("/shops/page", "/shops/page", None)),
    "a prefix that is quoted": (STRIPPED, "/%73hop/a;b", ("/a;b", "/a;b", "/shop")),
    "another prefix": ((at("", "/in/order"), at("/shop", "/order")), "/shop/page", ("/in/page", "/in/page", "/shop")),
    "a root of the server": ((at("/app", "/order"), at("/shop", "/order")), "/shop/page", ("/app/page", "/app/page", "/shop")),
    "a root taken away": ((at("/app", "/order"), at("", "/order")), "/page", ("/app/page", "/app/page", "")),
    "a mount": (MOUNTED, "/shop/page", ("/shop/page", "/shop/page", "/shop")),
    "outside a mount": (MOUNTED, "/", ("/", "/", None)),
    "the path too": ((at("", "/pay"), at("/shop", "/order")), "/shop/page", None),
    "outside the root of the server": ((at("/app", "/order"), at("/app", "/order")), "/page", ("/page", "/page", None)),
    "a fragment in the root that arrives": ((at("/admin#", "/order"), at("/admin#", "/order")), "/admin", None),
    "a fragment": ((at("", "/order"), at("/admin#", "/order")), "/admin", None),
    "a query": ((at("", "/order"), at("/admin?", "/order")), "/admin", None),
    "dots": ((at("", "/order"), at("/x/../admin", "/order")), "/admin/page", None),
    "a host": ((at("", "/order"), at("//evil.example", "/order")), "/page", None),
    "other bytes": ((at("", "/order"), at("/caf\xe9", "/order")), "/page", None),
}


@pytest.mark.parametrize(("request_", "path", "place"), PLACES.values(), ids=PLACES)
def test_a_path_that_the_app_wrote_arrives_elsewhere(
    request_: tuple[dict[str, Any], dict[str, Any]], path: str, place: tuple[str, str, str | None] | None
) -> None:
    assert place_of_path(path, *request_) == place


@pytest.mark.parametrize(
    ("arrived", "seen", "names"),
    [
        ("", "", ()),
        ("/shop", "/shop/", ()),
        ("", "/shop", ("root:/shop",)),
        ("/app", "", ("root:",)),
        ("/app", "/shop", ("root:/shop",)),
    ],
)
def test_an_entry_is_named_by_a_script_root_that_did_not_arrive(arrived: str, seen: str, names: tuple[str, ...]) -> None:
    assert root_name(at(arrived, "/page"), at(seen, "/page")) == names
    assert all(name == name_of_root(seen) for name in names)


def test_the_url_that_arrived_comes_back() -> None:
    came = {"wsgi.url_scheme": "http", "SERVER_NAME": "app", "SERVER_PORT": "8000", **at("", "/page"), "HTTP_X": "1"}
    seen = {**came, ARRIVED: url_variables(came), "HTTP_HOST": "shop.example", "wsgi.url_scheme": "https", "SCRIPT_NAME": "/shop"}
    assert {name: value for name, value in as_arrived(seen).items() if name != ARRIVED} == came
    assert as_arrived(came) is came


@pytest.mark.parametrize(
    ("root", "path", "sent", "missing"),
    [
        ("/shop", "/page", "/page?a=1", "/shop"),
        ("/shop", "/page", "/shop/page", ""),
        ("", "/page", "/page", ""),
        ("/caf\xc3\xa9", "/p\xc3\xa9", "/p%C3%A9", "/caf%C3%A9"),
        ("/shop", "/p\xc3\xa9", "/p%c3%a9", "/shop"),
        ("/shop", "/page", "/other", ""),
        ("/shop", "/page", "", ""),
    ],
)
def test_a_prefix_may_not_have_been_sent(root: str, path: str, sent: str, missing: str) -> None:
    assert unsent({**at(root, path), "RAW_URI": sent}) == missing
    assert unsent({**at(root, path), "REQUEST_URI": sent}) == missing
