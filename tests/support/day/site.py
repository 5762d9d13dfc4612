"""A day of a site: the site, its pages, and the script of their runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import time_machine
from flask import Flask, Response, request

from flask_stalecache import StaleCache
from support.day.terms import HALF, HOST, HOUR, MINUTE
from support.threads import PATIENCE


class Outcome(Enum):
    """What a view makes of a page at a moment."""

    GOOD = "good"
    DOWN = "the third party is down"
    GONE = "404"
    PRIVATE = "Cache-Control: private"


@dataclass(frozen=True)
class Kind:
    """The pages of one view.

    :ivar windows: seconds of freshness, stale-while-revalidate and stale-if-error.
    :ivar options: further arguments of ``cached``.
    :ivar said: the freshness that the view itself allows; ``None``: it sets none.
    :ivar never_stale: the view answers with ``must-revalidate``.
    :ivar needs: what the view does while the third party is down: it answers "503", or it "raises"; "": it needs no third party.
    """

    name: str
    windows: tuple[int, int, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    said: int | None = None
    never_stale: bool = False
    needs: str = ""
    path: str = "/{kind}/{number}"
    tags: tuple[str, ...] = ()

    @property
    def wait(self) -> int | None:
        return self.options.get("wait")

    def fresh_for(self, status: int) -> float:
        """How long an answer is fresh, jitter included."""
        statuses = self.options.get("statuses", {})
        coded = statuses.get(status, self.windows[0])
        allowed = coded if self.said is None else min(coded, self.said)
        return allowed * (1 - self.options.get("jitter", 0.1) * HALF)


def article_tags(number: int) -> list[str]:
    return ["articles", f"article:{number}"]


_EXACT: dict[str, Any] = {"jitter": 0}

ARTICLE = Kind("article", (240, 600, 2 * HOUR), {"jitter": 0.25, "tags": article_tags, "statuses": {404: 64}})

PRICES = Kind("prices", (60, HOUR, 2 * HOUR), {**_EXACT, "tags": ["prices"]}, needs="503", tags=("prices",))

QUOTES = Kind("quotes", (60, 0, HOUR), {**_EXACT, "wait": 0}, needs="raises")

WEATHER = Kind("weather", (90, 30, HOUR), {**_EXACT, "wait": 2 * PATIENCE}, needs="raises")

RATES = Kind("rates", (120, 0, 0), _EXACT, needs="raises")

BOARD = Kind("board", (60, 600, 600), _EXACT, never_stale=True, needs="503")

ARCHIVE = Kind("archive", (15 * MINUTE, 0, 0), {**_EXACT, "prefer_stale": True}, needs="503")

TOP = Kind("top", (120, 60, HOUR), {**_EXACT, "refresh_ahead": 30}, needs="503")

DIARY = Kind("diary", (300, 60, HOUR), _EXACT, said=20, tags=("diary",))

KINDS = (ARTICLE, RATES, ARCHIVE, PRICES, QUOTES, WEATHER, BOARD, TOP, DIARY)

SEARCH = Kind("search", (60, 60, 120), _EXACT, path="/{kind}?x={number}")


class Page(NamedTuple):
    """One page of the site."""

    kind: Kind
    number: int

    @property
    def path(self) -> str:
        return self.kind.path.format(kind=self.kind.name, number=self.number)

    @property
    def names(self) -> frozenset[str]:
        """What it can be purged by."""
        own = article_tags(self.number) if self.kind is ARTICLE else self.kind.tags
        where = f"path:{self.path}", f"url:{HOST}{self.path}"
        return frozenset(("all", f"endpoint:{self.kind.name}", *where, *(f"tag:{tag}" for tag in own)))


@dataclass(frozen=True)
class Script:
    """What happens to the site in a day, whoever visits it."""

    start: int
    length: int

    def at(self, share: float) -> int:
        """The moment at which this share of the day is over: a whole second."""
        return self.start + int(self.length * share)

    def outcome(self, page: Page, now: float) -> Outcome:
        """What the page's view makes of it."""
        if page.kind.needs and self.at(0.35) <= now < self.at(0.35) + min(HOUR, self.length // 6):
            return Outcome.DOWN
        if page.kind is ARTICLE and page.number % 5 == 1 and self.at(0.6) <= now < self.at(0.75):
            return Outcome.GONE
        if page.kind is DIARY and page.number % 2 == 1 and self.at(0.2) <= now < self.at(0.3):
            return Outcome.PRIVATE
        return Outcome.GOOD


class ThirdPartyDown(Exception):
    """What a client of the third party raises."""


class Site:
    """The views, and what they share in all apps.

    :ivar runs: how often the view of each page ran.
    :ivar purge_during: pages that are purged (``True``: softly) while their view runs the next time.
    :ivar answered: not set while a visitor must be answered before a background refresh may go on.
    """

    def __init__(self, script: Script, clock: time_machine.Traveller) -> None:
        self.script = script
        self.now = float(script.start)
        self.runs: Counter[str] = Counter()
        self.purge_during: dict[str, bool] = {}
        self.answered = threading.Event()
        self.answered.set()
        self._clock = clock

    def move_to(self, now: float) -> None:
        """Move the clock."""
        self.now = now
        self._clock.move_to(now)

    def add_views(self, app: Flask, cache: StaleCache) -> None:
        """Give an app its views."""
        app.register_error_handler(ThirdPartyDown, lambda error: (str(error), 503))
        for kind in KINDS:
            self._add_view(app, cache, kind, f"/{kind.name}/<int:number>")
        self._add_view(app, cache, SEARCH, f"/{SEARCH.name}")

    def _add_view(self, app: Flask, cache: StaleCache, kind: Kind, rule: str) -> None:
        @app.get(rule, endpoint=kind.name)
        @cache.cached(*kind.windows, **kind.options)
        def page(number: int | None = None) -> Response:
            return self._make(cache, Page(kind, int(request.args["x"]) if number is None else number))

    def _make(self, cache: StaleCache, page: Page) -> Response:
        if cache.refreshing and page.kind.wait == 0:
            assert self.answered.wait(PATIENCE)
        self.runs[page.path] += 1
        text = show(page.path, self.runs[page.path])
        soft = self.purge_during.pop(page.path, None)
        if soft is not None:
            cache.purge(page.path, soft=soft)
        outcome = self.script.outcome(page, self.now)
        if outcome is Outcome.DOWN and page.kind.needs == "raises":
            raise ThirdPartyDown(text)
        response = Response(text, STATUSES[outcome])
        if outcome is Outcome.PRIVATE:
            response.cache_control.private = True
        if page.kind.never_stale:
            response.cache_control.must_revalidate = True
        if page.kind.said is not None:
            cache.max_age(page.kind.said)
            cache.tag(*page.kind.tags)
        return response


STATUSES = {Outcome.GOOD: 200, Outcome.DOWN: 503, Outcome.GONE: 404, Outcome.PRIVATE: 200}


def show(path: str, run: int) -> str:
    """What a run of a view shows."""
    return f"{path} run {run} {'.' * 700}"
