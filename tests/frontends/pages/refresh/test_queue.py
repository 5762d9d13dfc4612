"""Waiting refreshes, of views and of the gateway: endpoints take turns, and the most requested page comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from flask import Response

from flask_stalecache import Policy
from flask_stalecache.engine.scheduling.lane import Lane
from support.client import MakeApp, visit
from support.threads import PATIENCE, wait_until

SLOW = 30
RULE = ("/*", Policy(max_age=60, stale_while_revalidate=600))


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event on which refreshes hang; set at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def _no_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the lane: on a busy machine, a page that by chance takes the processor for long would wait there."""
    monkeypatch.setattr(Lane, "is_open", False)


@pytest.mark.parametrize("kind", ["view", "gateway", "coded"])
def test_many_slow_stale_pages_do_not_delay_the_hot_page(
    make_app: MakeApp, clock: time_machine.Traveller, held: threading.Event, kind: str
) -> None:
    settings: dict[str, Any] = {"gateway": {"GATEWAY": [RULE]}}.get(kind, {})
    app, cache = make_app(REFRESH_WORKERS=1, **settings)
    order = list[str]()

    def page(path: str) -> str:
        if cache.refreshing:
            order.append(path)
            assert held.wait(PATIENCE)
        return path

    def slow(number: int) -> Response:
        return Response(page(f"/slow/{number}"))

    def hot(name: str) -> Response:
        return Response(page(f"/{name}"))

    for rule, view in (("/slow/<int:number>", slow), ("/<name>", hot)):
        options = {"jitter": 0, "gateway": kind == "coded"}
        app.add_url_rule(rule, view_func=view if kind == "gateway" else cache.cached(60, 600, **options)(view))
    paths = [*(f"/slow/{number}" for number in range(SLOW)), *(f"/cold{number}" for number in range(5)), "/hot"]
    assert {visit(app, path).word for path in paths} == {"MISS"}
    clock.shift(90)
    assert {visit(app, path).word for path in paths} == {"STALE"}
    assert {visit(app, "/hot").word for _ in range(5)} == {"UPDATING"}
    wait_until(lambda: order)
    held.set()
    assert cache.drain(PATIENCE)
    assert order.index("/hot") <= 2
    assert sorted(order) == sorted(paths)
