"""The address that refreshes come from: nobody's, so that no page that an app shows to some addresses only is stored for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, request

from flask_stalecache import GatewayCache, StaleCache
from support.client import MakeApp, settle, unrecorded_environ, visit

STALE = "max-age=10, stale-while-revalidate=600"


def address() -> Any:
    return unrecorded_environ().get("REMOTE_ADDR")


def by_view(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    app.add_url_rule("/", "page", cache.cached(10, 600)(show))


def by_coded(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    app.add_url_rule("/", "page", cache.cached(10, 600, gateway=True)(show))


def by_gateway(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    app.add_url_rule("/", "page", lambda: Response(show(), headers={"Cache-Control": STALE}))


FRONTS = [
    pytest.param(by_view, {}, id="view"),
    pytest.param(by_coded, {}, id="coded"),
    pytest.param(by_gateway, {"GATEWAY": True}, id="gateway"),
]


@pytest.mark.parametrize(("front", "config"), FRONTS)
@pytest.mark.parametrize("address_of", ["192.0.2.1", "198.51.100.77"])
def test_refreshes_and_warming_come_from_the_address_that_is_set(
    make_app: MakeApp, clock: time_machine.Traveller, front: Callable[..., None], config: dict[str, Any], address_of: str
) -> None:
    seen: list[str] = []
    more = {} if address_of == "192.0.2.1" else {"REFRESH_REMOTE_ADDR": address_of}
    app, cache = make_app(BASE_URL="http://localhost", **config, **more)

    def show() -> str:
        seen.append(address())
        return "page"

    front(app, cache, show)
    with app.app_context():
        cache.warm(["/"]).wait(10)
    clock.shift(20)
    assert visit(app).word == "STALE"
    settle(app, cache)
    assert seen == [address_of] * 2


@pytest.mark.parametrize(("front", "config"), FRONTS)
def test_a_page_for_localhost_alone_is_not_refreshed_for_all(
    make_app: MakeApp, clock: time_machine.Traveller, front: Callable[..., None], config: dict[str, Any]
) -> None:
    """Also if reads of the address are ignored."""
    app, cache = make_app(IGNORED_READERS={__name__: ["REMOTE_ADDR"]}, **config)
    front(app, cache, lambda: "secret" if request.remote_addr == "127.0.0.1" else "public")
    assert visit(app).page == ("MISS", "public")
    clock.shift(20)
    assert visit(app).page == ("STALE", "public")
    settle(app, cache)
    assert visit(app).page == ("HIT", "public")


def test_a_gateway_in_front_of_any_app_refreshes_from_there_too(directory: Path, clock: time_machine.Traveller) -> None:
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ["REMOTE_ADDR"])
        start_response("200 OK", [("Cache-Control", STALE), ("Content-Length", "4")])
        return [b"page"]

    for number, more in enumerate([{}, {"refresh_remote_addr": "198.51.100.77"}]):
        cached: Any = GatewayCache(app, dir=directory / str(number), **more)
        client = Flask("client")
        client.wsgi_app = cached  # type: ignore[method-assign]
        assert visit(client).word == "MISS"
        clock.shift(20)
        assert visit(client).word == "STALE"
        assert cached.drain(10)
    assert seen == ["192.0.2.7", "192.0.2.1", "192.0.2.7", "198.51.100.77"]


def test_the_refresh_of_a_page_whose_key_reads_the_address_has_its_visitors(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    nets: list[str] = []

    def net() -> str:
        return str(request.remote_addr).rpartition(".")[0]

    def show() -> str:
        nets.append(net())
        return f"for {net()}, {len(nets)}"

    app.add_url_rule("/", "page", cache.cached(10, 600, key=net)(show))
    carol = {"REMOTE_ADDR": "198.51.100.4"}
    assert visit(app, environ=carol).page == ("MISS", "for 198.51.100, 1")
    clock.shift(20)
    assert visit(app, environ=carol).page == ("STALE", "for 198.51.100, 1")
    settle(app, cache)
    assert visit(app, environ=carol).page == ("HIT", "for 198.51.100, 2")
    assert visit(app, environ={"REMOTE_ADDR": "203.0.113.9"}).page == ("MISS", "for 203.0.113, 3")
