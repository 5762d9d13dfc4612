"""Signals: what each passes, who sends it, and that a receiver's exception fails no request. Covers ``engine.instrumentation``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import time_machine
from blinker import NamedSignal, Signal
from flask import Flask
from werkzeug.test import Client

import flask_stalecache
from flask_stalecache import (
    CacheStatus,
    Entry,
    GatewayCache,
    StaleCache,
    entry_evicted,
    entry_stored,
    origin_failed,
    purged,
    refresh_done,
    refresh_failed,
    scan_moved,
    stale_served,
)
from flask_stalecache.engine import signals
from support.clock import NOON
from support.threads import PATIENCE

MakeApp = Callable[..., tuple[Flask, StaleCache]]


@contextmanager
def heard(signal: Signal, sender: Any = None) -> Iterator[list[dict[str, Any]]]:
    """Collect what a signal passes."""
    told: list[dict[str, Any]] = []

    def hear(sender: object, **passed: Any) -> None:
        told.append({"sender": sender, **passed})

    with signal.connected_to(hear, sender) if sender is not None else signal.connected_to(hear):
        yield told


class Shop:
    """An app with a page that returns ``word``, or raises it."""

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app, self.cache = app, cache
        self.word: str | Exception = "good"
        self.client = app.test_client()

        @app.route("/<name>", methods=["GET", "POST"], endpoint="news")
        @cache.cached(60, 600, 86400, jitter=0)
        def news(name: str) -> str:
            if isinstance(self.word, Exception):
                raise self.word
            return self.word

    def get(self, path: str = "/a", method: str = "GET") -> str | None:
        """Visit a page, and wait for its refresh. Return the cache status."""
        with self.client.open(path, method=method) as response:
            word = response.headers.get("X-Cache-Status")
        with self.app.app_context():
            assert self.cache.drain(PATIENCE)
        return word


@pytest.fixture
def shop(make_app: MakeApp, clock: time_machine.Traveller) -> Shop:
    return Shop(*make_app())


def test_an_entry_that_is_stored(shop: Shop) -> None:
    with heard(entry_stored) as told:
        shop.get()
        shop.get()
    [one] = told
    assert one.keys() == {"sender", "entry"}
    assert one["sender"] is shop.app
    assert isinstance(one["entry"], Entry)
    assert one["entry"].body == b"good"


def test_a_stale_copy_that_is_served(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.get()
    shop.word = ValueError("no")
    clock.shift(61)
    with heard(stale_served, shop.app) as told:
        assert [shop.get(), shop.get()] == ["STALE", "UPDATING"]
    assert [(one["status"], one["label"], one["entry"].body) for one in told] == [
        (CacheStatus.STALE, "news", b"good"),
        (CacheStatus.UPDATING, "news", b"good"),
    ]
    assert all("/a" in one["key"] for one in told)


def test_a_hit_tells_nobody(shop: Shop) -> None:
    shop.get()
    with heard(stale_served) as stale, heard(entry_stored) as stored, heard(refresh_done) as done:
        assert shop.get() == "HIT"
    assert stale + stored + done == []


@pytest.mark.parametrize(("method", "has_key"), [("GET", True), ("POST", False)])
def test_an_origin_that_fails(shop: Shop, method: str, has_key: bool) -> None:
    shop.word = ValueError("no")
    with heard(origin_failed) as told:
        shop.get(method=method)
    [one] = told
    assert (one["label"], one["error"], bool(one["key"])) == ("news", shop.word, has_key)


def test_a_refresh_that_ends_well(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.get()
    clock.shift(61)
    with heard(refresh_done) as told, heard(refresh_failed) as failures:
        shop.get()
    [one] = told
    assert (one["label"], one["sender"], failures) == ("news", shop.app, [])
    assert one["seconds"] > 0


def test_a_refresh_that_fails(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.get()
    shop.word = ValueError("no")
    clock.shift(61)
    with heard(refresh_failed) as told, heard(origin_failed) as failures:
        shop.get()
    [one], [failure] = told, failures
    assert (one["label"], one["error"], failure["error"]) == ("news", shop.word, shop.word)
    assert one["key"] == failure["key"]
    assert 61 < one["retry_at"] - NOON <= 61 + 2 * 1.25


@pytest.mark.parametrize(
    ("selector", "name"),
    [({"tag": "shoes"}, "tag:shoes"), ({"url": "/a"}, "path:/a"), ({"endpoint": "news"}, "endpoint:news"), ({"all": True}, "all")],
)
@pytest.mark.parametrize("soft", [False, True])
def test_a_purge(shop: Shop, selector: dict[str, Any], name: str, soft: bool) -> None:
    with heard(purged) as told, shop.app.app_context():
        shop.cache.purge(**selector, soft=soft)
    assert told == [{"sender": shop.app, "names": (name,), "soft": soft}]


def test_a_purge_that_could_not_be_done_tells_nobody(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*names: str, soft: bool) -> None:
        raise flask_stalecache.StoreError("full")

    monkeypatch.setattr(shop.app.extensions["stalecache"].engine.store, "purge", fail)
    with heard(purged) as told, shop.app.app_context(), pytest.raises(flask_stalecache.StoreError):
        shop.cache.purge(tag="shoes")
    assert told == []


def test_an_entry_that_is_evicted(make_app: MakeApp) -> None:
    shop = Shop(*make_app(MAX_SIZE=40_000))
    with heard(entry_evicted, shop.app) as told:
        for number in range(12):
            shop.get(f"/{number}")
    with shop.app.app_context():
        assert sum(one["count"] for one in told) == shop.cache.stats()["evictions"]["size"] > 0
    assert {one["reason"] for one in told} == {"size"}


def test_a_fetch_function_has_its_own_label(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(60)
    def rates(base: str) -> str:
        raise ValueError(base)

    with heard(origin_failed) as told, app.app_context(), pytest.raises(ValueError, match="EUR"):
        rates("EUR")
    with heard(purged) as names, app.app_context():
        rates.purge("EUR")
    assert [one["label"] for one in told] == [rates._definition.name]
    assert names[0]["names"][0].startswith("call:")


def test_a_gateway_sends_for_itself(directory: Path) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"page"]

    gateway = GatewayCache(app, dir=directory)
    with heard(entry_stored, gateway) as stored, heard(purged, gateway) as purges:
        Client(gateway).get("/").close()
        Client(gateway).post("/").close()
        gateway.purge(all=True)
    assert [one["entry"].body for one in stored] == [b"page"]
    assert [one["names"][0] for one in purges] == ["url:http://localhost/", "all"]


def test_a_receiver_that_raises_is_nobodys_error(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def fail(sender: object, **passed: Any) -> None:
        raise ValueError("a receiver")

    with entry_stored.connected_to(fail), heard(entry_stored) as told, caplog.at_level(logging.ERROR):
        assert [shop.get(), shop.get()] == ["MISS", "HIT"]
    assert len(told) == 1
    assert [record.getMessage()[:48] for record in caplog.records] == ["a receiver of the signal entry-stored failed: <f"]


def test_who_listens_to_another_app_hears_nothing(shop: Shop, tmp_path: Path) -> None:
    other = Flask("other")
    other.config["STALECACHE_DIR"] = tmp_path / "other"
    StaleCache(other)
    with heard(entry_stored, other) as told:
        shop.get()
    assert told == []


def test_without_receivers_nobody_is_looked_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked = Signal.receivers_for, []

    def look(signal: Signal, sender: object) -> Any:
        looked.append(getattr(signal, "name", ""))
        return real(signal, sender)

    monkeypatch.setattr(Signal, "receivers_for", look)
    assert [shop.get(), shop.get(), shop.get(method="POST")] == ["MISS", "HIT", "BYPASS"]
    ours = {signal.name for signal in vars(signals).values() if isinstance(signal, NamedSignal)}
    assert ours.isdisjoint(looked)


def test_every_signal_is_exported() -> None:
    named = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert named <= set(flask_stalecache.__all__)
    assert {signal.name for signal in (scan_moved, entry_evicted)} == {"scan-moved", "entry-evicted"}
