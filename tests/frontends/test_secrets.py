"""Cookies and tokens that tell visitors apart are in clear neither on disk nor on the dashboard, in the shell or in the log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, request

from flask_stalecache import GatewayCache, StaleCache
from flask_stalecache.core.addressing.keys import digest
from support.third_party import Site, ThirdParty
from support.wsgi_apps import App, ask

MakeApp = Callable[..., tuple[Flask, StaleCache]]
#: Two visitors' secrets; they have no characters that HTML, JSON or URLs write in another way.
ANN, BOB = "S3cr3tOfAnn", "S3cr3tOfBob0123456789abcdefghijklmnopqrstuvwxyz"
STALE = "public, max-age=10, stale-while-revalidate=600"
#: How a visitor sends the secret, and the field that the page varies by.
SENT: dict[str, Callable[[str], str]] = {
    "Cookie": lambda secret: f"session={secret}",
    "Authorization": lambda secret: f"Bearer {secret}",
    "Proxy-Authorization": lambda secret: f"Basic {secret}",
    "X-Api-Key": lambda secret: secret,
    "X-Auth-Token": lambda secret: secret,
    "X-Session-Id": lambda secret: secret,
    "X-Forwarded-User": lambda secret: secret,
    "X-Colour": lambda secret: secret + "x" * 30,
}


def environ_of(field: str, secret: str) -> dict[str, str]:
    return {f"HTTP_{field.upper().replace('-', '_')}": SENT[field](secret)}


def asked(environ: dict[str, Any], field: str) -> str:
    """Return the last characters of the secret, so that the page does not contain it."""
    return str(environ.get(f"HTTP_{field.upper().replace('-', '_')}", "")).strip("x")[-3:] or "nobody"


class Shop:
    """A site that varies by a field.

    :ivar visit: returns the status word and the page.
    :ivar calls: how often the page was made.
    """

    def __init__(self, visit: Callable[[dict[str, str]], tuple[str, str]], app: Flask | None, directory: Path, calls: list[str]):
        self.visit = visit
        self.app = app
        self.directory = directory
        self.calls = calls


def view(make_app: MakeApp, directory: Path, field: str) -> Shop:
    """A cached view with ``vary=``. It refuses Cookie and Authorization, which are read by ``key=`` instead."""
    app, cache = make_app(REFRESH_WORKERS=0)
    calls: list[str] = []
    how: dict[str, Any] = {"vary": [field]}
    if field in ("Cookie", "Authorization"):
        how = {"key": lambda: ("page", request.headers.get(field, ""))}

    @app.get("/")
    @cache.cached(max_age=10, stale_while_revalidate=600, **how)
    def page() -> Response:
        calls.append(asked(request.environ, field))
        return Response(calls[-1], headers={"Cache-Control": STALE})

    return _of_flask(app, cache, directory, calls)


def gateway(make_app: MakeApp, directory: Path, field: str) -> Shop:
    app, cache = make_app(REFRESH_WORKERS=0, GATEWAY=True)
    return _varying(app, cache, directory, field, lambda function: function)


def gateway_view(make_app: MakeApp, directory: Path, field: str) -> Shop:
    app, cache = make_app(REFRESH_WORKERS=0)
    return _varying(app, cache, directory, field, cache.cached(gateway=True))


def _varying(app: Flask, cache: StaleCache, directory: Path, field: str, decorate: Callable[[Any], Any]) -> Shop:
    calls: list[str] = []

    def page() -> Response:
        # By the environ: a cookie that is read by its name is an absent name, which is finer than Vary.
        calls.append(asked(request.environ, field))
        return Response(calls[-1], headers={"Cache-Control": STALE, "Vary": field})

    app.add_url_rule("/", "page", decorate(page))
    return _of_flask(app, cache, directory, calls)


def _of_flask(app: Flask, cache: StaleCache, directory: Path, calls: list[str]) -> Shop:
    app.debug = True
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)

    def visit(environ: dict[str, str]) -> tuple[str, str]:
        with app.test_client(use_cookies=False).get("/", environ_overrides=environ) as response:
            assert not [value for _, value in response.headers if ANN in value or BOB in value]
            return response.headers.get("X-Cache-Status", ""), response.text

    return Shop(visit, app, directory, calls)


def plain(make_app: MakeApp, directory: Path, field: str) -> Shop:
    calls: list[str] = []

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(asked(environ, field))
        start_response("200 OK", [("Cache-Control", STALE), ("Vary", field)])
        return [calls[-1].encode()]

    cache = GatewayCache(App(page), dir=directory, refresh_workers=0)

    def visit(environ: dict[str, str]) -> tuple[str, str]:
        got = ask(cache, "/", **environ)
        return got.word, got.body.decode()

    return Shop(visit, None, directory, calls)


KINDS: dict[str, Callable[[MakeApp, Path, str], Shop]] = {
    "view": view,
    "gateway": gateway,
    "gateway=True": gateway_view,
    "GatewayCache": plain,
}


def assert_in_no_file(directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert ANN.encode() not in content
        assert BOB.encode() not in content


def assert_nowhere_shown(shop: Shop) -> None:
    if shop.app is None:
        return
    client, run = shop.app.test_client(), shop.app.test_cli_runner().invoke
    texts = [
        run(args=["stalecache", *args]).output for args in (["list"], ["list", "--json"], ["show", "/"], ["show", "/", "--json"])
    ]
    for path in ("/stalecache/", "/stalecache/?by=url&find=/", "/stalecache/now", *entry_links(shop.app)):
        with client.get(path) as response:
            assert response.status_code == 200
            texts += [response.text, unescape(response.text)]
    for text in texts:
        assert ANN not in text
        assert BOB not in text


def entry_links(app: Flask) -> list[str]:
    with app.test_client().get("/stalecache/") as response:
        return [unescape(link).partition("#")[0] for link in re.findall(r'href="([^"]+by=key[^"]+)"', response.text)]


@pytest.mark.grid
@pytest.mark.usefixtures("no_housekeeping")
@pytest.mark.parametrize("field", SENT)
@pytest.mark.parametrize("kind", KINDS)
def test_secrets_tell_visitors_apart_and_are_nowhere_in_clear(
    make_app: MakeApp, directory: Path, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture, kind: str, field: str
) -> None:
    caplog.set_level(logging.DEBUG, "flask_stalecache")
    shop = KINDS[kind](make_app, directory, field)
    ann, bob = environ_of(field, ANN), environ_of(field, BOB)
    # What an attacker sends who has seen the digest of a secret.
    digests = environ_of(field, digest(SENT[field](ANN)))
    visitors = [ann, bob, {}, digests, ann, bob, {}]
    seen = [shop.visit(visitor) for visitor in visitors]
    assert [page for _, page in seen] == [asked(visitor, field) for visitor in visitors]
    assert [word for word, _ in seen] == ["MISS"] * 4 + ["HIT"] * 3
    assert_in_no_file(directory)
    # The visit that hands over the refresh carries its own secret, which is in memory only.
    clock.shift(60)
    visitors = [ann, bob, {}, ann, bob, {}]
    seen = [shop.visit(visitor) for visitor in visitors]
    assert seen == [*(("STALE", asked(visitor, field)) for visitor in visitors[:3]), *(("HIT", page) for _, page in seen[:3])]
    assert_in_no_file(directory)
    assert_nowhere_shown(shop)
    assert ANN not in caplog.text
    assert BOB not in caplog.text


@pytest.mark.parametrize("kind", ["view", "gateway", "gateway=True"])
def test_without_its_visitor_such_a_page_is_not_refreshed_and_stays(make_app: MakeApp, directory: Path, kind: str) -> None:
    shop = KINDS[kind](make_app, directory, "X-Api-Key")
    assert shop.app is not None
    ann, bob = environ_of("X-Api-Key", ANN), environ_of("X-Api-Key", BOB)
    for visitor in (ann, bob, {}):
        assert shop.visit(visitor)[0] == "MISS"
    told = shop.app.test_cli_runner().invoke(args=["stalecache", "refresh", "--all"]).output
    assert told.count("the value of X-Api-Key is not kept: the next visitor who sends it has it refreshed") == 2
    assert "1 done, 0 failed, 2 skipped" in told
    assert [shop.visit(visitor) for visitor in (ann, bob, {})] == [("HIT", "Ann"), ("HIT", "xyz"), ("HIT", "nobody")]
    assert shop.calls == ["Ann", "xyz", "nobody", "nobody"]


@pytest.mark.parametrize("field", ["Authorization", "Cookie", "X-Api-Key"])
def test_what_a_third_party_varies_by_is_nowhere_in_clear(
    party: ThirdParty, make_site: Callable[..., Site], directory: Path, field: str
) -> None:
    site = make_site()
    party.says(
        "Cache-Control: public, max-age=60", f"Vary: {field}", body=lambda asked, number: asked.headers.get(field, "none")[-3:]
    )
    for calls in (3, 3):
        for secret, page in ((ANN, "Ann"), (BOB, "xyz"), ("", "one")):
            headers = {field: SENT[field](secret)} if secret else {}
            assert site.session().get(party.url(), headers=headers).text == page
        assert party.calls == calls
    for path in directory.rglob("*"):
        assert not path.is_file() or ANN.encode() not in path.read_bytes()


def test_an_entry_is_found_by_the_digest_of_its_key_alone(make_app: MakeApp, directory: Path) -> None:
    shop = gateway(make_app, directory, "X-Api-Key")
    assert shop.app is not None
    shop.visit(environ_of("X-Api-Key", ANN))
    run, client = shop.app.test_cli_runner().invoke, shop.app.test_client()
    listed = json.loads(run(args=["stalecache", "list", "--json"]).stdout)
    assert [digest(item["key"]) == item["address"] for item in listed] == [True]
    [address], [key] = [item["address"] for item in listed], [item["key"] for item in listed]
    assert address in run(args=["stalecache", "show", address]).stdout
    assert "variant    X-Api-Key: (digest " in run(args=["stalecache", "show", address]).stdout
    for value, is_found in ((address, True), (key, False), (f"../{address}", False), (address.upper(), False), ("0" * 40, False)):
        with client.get("/stalecache/", query_string={"by": "key", "find": value}) as response:
            assert ("It is not stored any more." not in response.text) is is_found
