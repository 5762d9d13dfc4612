"""One page, two URLs: the one that arrives, and the one that Flask sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Response, url_for

from flask_stalecache import FileStore
from support.two_urls import (
    CASES,
    FORWARDED,
    GATEWAY,
    GATEWAY_VIEW,
    VIEW,
    WAYS,
    WSGI,
    Shop,
    Way,
    reverse_proxied,
)

NAMES = ("the public URL", "the public path", "the URL that arrives", "the path that arrives")
STALE, MINUTE = "STALE", 61


def outdated(soft: bool) -> str:
    return STALE if soft else "MISS"


@pytest.mark.grid("name", "front")
@pytest.mark.parametrize(("name", "front"), CASES)
def test_a_page_is_found_by_each_of_its_urls(directory: Path, name: str, front: str) -> None:
    shop = Shop(directory, WAYS[name], front)
    assert [shop.visit(path).word for path in ("/page/1", "/page/2", "/page/1")] == ["MISS", "MISS", "HIT"]
    assert shop.visit().text.endswith(f" {shop.way.public}/page/1")
    for number, (what, url) in enumerate(shop.urls().items()):
        soft = bool(number % 2)
        shop.do("purge", url, soft=soft)
        assert [shop.visit(path).word for path in ("/page/1", "/page/2")] == [outdated(soft), "HIT"], what
        batch = shop.do("purge", prefix=f"{url.partition('/page/')[0]}/page/", soft=not soft)
        assert (batch.found, batch.done, batch.failed) == (2, 2, 0), what
        assert {outcome.url for outcome in batch.outcomes} == {f"{shop.way.public}/page/{page}" for page in (1, 2)}
        assert [shop.visit(path).word for path in ("/page/1", "/page/2")] == [outdated(not soft)] * 2, what
        assert [shop.visit(path).word for path in ("/page/1", "/page/2")] == ["HIT"] * 2


@pytest.mark.grid("name", "front")
@pytest.mark.parametrize(("name", "front"), CASES)
def test_a_page_is_refreshed_by_each_of_its_urls(directory: Path, clock: time_machine.Traveller, name: str, front: str) -> None:
    shop = Shop(directory, WAYS[name], front)
    assert shop.visit().word == "MISS"
    for number, url in enumerate(shop.urls().values(), 1):
        for operation, selected in (("refresh", {"url": url}), ("publish", {"prefix": url})):
            batch = shop.do(operation, **selected)
            assert [(outcome.stored, outcome.reason) for outcome in batch] == [(True, "")], url
        assert shop.visit().page == ("HIT", f"{2 * number + 1} {shop.way.public}/page/1")
    clock.shift(MINUTE)
    assert shop.visit().word == STALE
    assert shop.visit().page == ("HIT", f"{2 * number + 2} {shop.way.public}/page/1")
    # The renewed page has both URLs again.
    for url in shop.urls().values():
        shop.do("purge", url)
        assert shop.visit().word == "MISS", url


@pytest.mark.grid("name", "front")
@pytest.mark.parametrize(("name", "front"), [case for case in CASES if case[1] != VIEW])
@pytest.mark.parametrize("external", [False, True])
def test_after_an_order_the_page_that_it_leads_to_is_new(directory: Path, name: str, front: str, external: bool) -> None:
    shop = Shop(directory, WAYS[name], front)
    shop.location = lambda: url_for("page", number=1, _external=external)
    old = [shop.visit(f"/page/{number}").page for number in (1, 2)]
    assert [word for word, _ in old] == ["MISS", "MISS"]
    assert shop.visit("/order", method="POST").status == 303
    # It may have been made anew behind the redirect by now.
    new = [shop.visit(f"/page/{number}").page for number in (1, 2)]
    assert [now[1] == before[1] for now, before in zip(new, old, strict=True)] == [False, True]
    assert new[1][0] == "HIT"


@pytest.mark.grid
@pytest.mark.parametrize("front", [VIEW, GATEWAY, GATEWAY_VIEW])
@pytest.mark.parametrize("name", ["ProxyFix", "ReverseProxied", "a mount"])
def test_middleware_around_all(directory: Path, clock: time_machine.Traveller, name: str, front: str) -> None:
    """After ``init_app`` there is one URL, the public one."""
    shop = Shop(directory, WAYS[name], front, outside=True)
    assert shop.visit().word == "MISS"
    for url in (f"{shop.way.public}/page/1", f"/{shop.way.public.split('/', 3)[3]}/page/1"):
        shop.do("purge", url)
        assert shop.visit().word == "MISS"
    clock.shift(MINUTE)
    assert shop.visit().word == STALE
    assert shop.visit().word == "HIT"
    if front != VIEW:
        old = shop.visit().page[1]
        assert shop.visit("/order", method="POST").status == 303
        assert shop.visit().page[1] != old


# -- what middleware can be told to do --------------------------------------------------------------------------------


def test_a_refresh_reaches_the_view_of_its_page_and_no_other(directory: Path, clock: time_machine.Traveller) -> None:
    """Without X-Script-Name the path that arrives is that of another view."""
    shop = Shop(directory, WAYS["ReverseProxied"], VIEW)
    shop.app.add_url_rule("/shop/<path:path>", "other", lambda path: f"the other {path}")
    shop.visit()
    clock.shift(MINUTE)
    assert shop.visit().word == STALE
    assert shop.visit().page == ("HIT", "2 https://app:8000/shop/page/1")


@pytest.mark.parametrize("status", [401, 403, 503])
def test_middleware_that_refuses_a_refresh_is_not_passed_by(directory: Path, clock: time_machine.Traveller, status: int) -> None:
    def closing(app: Any) -> Any:
        inner = reverse_proxied(app)
        return lambda environ, start: (
            Response("closed", status)(environ, start) if "flask_stalecache.replay" in environ else inner(environ, start)
        )

    shop = Shop(directory, Way(closing, WAYS["ReverseProxied"].headers, before="/shop", public="https://app:8000/shop"), VIEW)
    shop.visit()
    clock.shift(MINUTE)
    assert shop.visit().word == STALE
    assert shop.visit().word == "UPDATING"
    assert shop.runs == 1


#: Middleware, fields that a visitor may choose, and what stands before the path of the request so that it reaches the app.
FORGED = [
    ("ProxyFix", {"X-Forwarded-Prefix": "/admin"}, ""),
    ("ProxyFix", {"X-Forwarded-Prefix": "/admin#"}, ""),
    ("ProxyFix", {"X-Forwarded-Prefix": "/x/../admin"}, ""),
    ("ProxyFix", {"X-Forwarded-Prefix": "//app:8000/admin"}, ""),
    ("ProxyFix", {"X-Forwarded-Host": "other.example", "X-Forwarded-Prefix": "/admin"}, ""),
    ("ReverseProxied", {"X-Script-Name": "/admin"}, ""),
    ("ReverseProxied", {"X-Script-Name": "/admin"}, "/admin"),
    ("ReverseProxied", {"X-Script-Name": "/admin?"}, ""),
    ("ReverseProxied", {"X-Script-Name": "/admin#"}, "/admin%23"),
]


@pytest.mark.grid
@pytest.mark.parametrize(("name", "fields", "before"), FORGED)
@pytest.mark.parametrize(("front", "outside"), [(GATEWAY, False), (GATEWAY, True), (WSGI, False)])
def test_a_visitor_purges_no_page_elsewhere(
    directory: Path, name: str, fields: dict[str, str], before: str, front: str, outside: bool
) -> None:
    """The page below ``/admin`` can't be changed by whoever sends the orders of the shop somewhere else."""
    shop = Shop(directory, Way(WAYS[name].middleware), front, outside=outside)
    page = shop.app.view_functions["page"]
    shop.app.add_url_rule("/admin/page/<int:number>", "admin", page)
    shop.app.add_url_rule("/admin", "admins", lambda: page(number=0))
    pages = ["/admin/page/1", "/admin"]
    for path in pages:
        assert [shop.visit(path, {}).word for _ in range(2)] == ["MISS", "HIT"]
    for external in (False, True):
        shop.location = lambda external=external: url_for("page", number=1, _external=external)
        for _ in range(2):
            shop.visit("/page/1", fields)
            sent = shop.visit(f"{before}/order", fields, method="POST")
            assert sent.status == 303
    assert [shop.visit(path, {}).word for path in pages] == ["HIT", "HIT"]


def test_a_forged_name_finds_only_its_own_entry(directory: Path) -> None:
    """Who sends X-Forwarded-Host fills an entry of their own. Purging by its name leaves that of the others alone."""
    shop = Shop(directory, WAYS["ProxyFix"], GATEWAY)
    forged = {**FORWARDED, "X-Forwarded-Host": "evil.example"}
    assert [shop.visit(headers=fields).word for fields in (FORWARDED, forged)] == ["MISS", "MISS"]
    shop.do("purge", "https://evil.example/shop/page/1")
    assert [shop.visit(headers=fields).word for fields in (FORWARDED, forged)] == ["HIT", "MISS"]
    assert shop.do("purge", prefix="https://evil.example/").found == 1
    assert [shop.visit(headers=fields).word for fields in (FORWARDED, forged)] == ["HIT", "MISS"]


def test_an_order_outside_the_mount_it_came_from_purges_its_target(directory: Path) -> None:
    shop = Shop(directory, WAYS["a mount"], GATEWAY)
    assert shop.visit().word == "MISS"
    shop.location = lambda: "/elsewhere"
    assert shop.visit("/order", method="POST").status == 303
    assert shop.visit().word == "HIT"


# -- commands and dashboard ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", [VIEW, GATEWAY])
def test_commands_take_each_of_its_urls_and_show_the_public_one(directory: Path, front: str) -> None:
    shop = Shop(directory, WAYS["ProxyFix"], front)
    run = shop.app.test_cli_runner().invoke
    public = f"{shop.way.public}/page/1"
    for url in shop.urls().values():
        assert shop.visit().word == "MISS"
        assert run(args=["stalecache", "show", url]).output.splitlines()[0] == public
        assert public in run(args=["stalecache", "list", "--prefix", url]).output
        assert run(args=["stalecache", "purge", url]).output == "purged\n"
    done = run(args=["stalecache", "purge", public])
    assert (done.exit_code, done.stderr) == (1, "nothing stored matches\n")


@pytest.mark.parametrize("front", [VIEW, GATEWAY])
def test_the_dashboard_finds_it_without_a_walk(directory: Path, monkeypatch: pytest.MonkeyPatch, front: str) -> None:
    shop = Shop(directory, WAYS["ProxyFix"], front, SECRET_KEY="for the forms")
    shop.app.register_blueprint(shop.cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    assert shop.visit().word == "MISS"
    monkeypatch.setattr(FileStore, "walk", lambda store: iter(()))
    for what in ("the public URL", "the public path"):
        found = shop.visit("/stalecache/", query_string={"by": "url", "find": shop.urls()[what]}).text
        assert "1 entry found." in found, what
    assert "Nothing that is stored matches." in shop.visit("/stalecache/", query_string={"by": "url", "find": "/shop/page/2"}).text
