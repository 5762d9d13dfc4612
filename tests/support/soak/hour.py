"""An hour of a news site in fast motion: visitors, members, an editor, deploys, and a third party that is down now and then."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask, Response, request, session

from flask_stalecache import OriginSuspended, Policy, StaleCache
from support.soak.clock import SharedClock
from support.soak.figures import Samples
from support.soak.ledger import THINGS, Ledger
from support.soak.storm import ask

MINUTE, HOUR, DAY = 60, 3600, 86400
THREADS, MEMBERS = 6, 10
#: The seconds of freshness, stale-while-revalidate and stale-if-error of all that is stored.
WINDOWS = FRESH, STALE, FAILING = (60, 120, 2 * HOUR)
#: When the third party is down, and when a new version is deployed, as shares of the time.
OUTAGES, DEPLOYS = ((0.2, 0.3), (0.6, 0.63)), (0.1, 0.45, 0.8)
#: Seconds by which an answer may be older than the windows say: a delay on a busy machine is many seconds of the fast clock.
SLACK = 2 * FRESH
#: Seconds for which the refreshes after an outage may be put off.
BACKOFF = 30


@dataclass
class Seen:
    """What the visitors of a worker saw.

    :ivar origins: the calls of views and of the third party.
    :ivar oldest: the greatest age of an answer, outside of outages.
    """

    wrong: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    samples: Samples = field(default_factory=Samples)
    oldest: float = 0.0
    purges: int = 0


class Worker:
    """A worker, its app and its visitors.

    :param hour: how long the hour takes, in seconds of the fast clock.
    """

    def __init__(self, directory: Path, ledger: Ledger, clock: SharedClock, hour: float) -> None:
        self.directory, self.ledger, self.clock, self.hour = directory, ledger, clock, hour
        self.seen = Seen()
        self.deploys = 0
        self.cookies: list[str] = []
        self.app, self.cache = self.deployed()

    @property
    def share(self) -> float:
        """The share of the time that is over."""
        return self.clock.passed() / self.hour

    def is_calm(self) -> bool:
        """Whether the third party has been up for so long that everything has been renewed."""
        rest = (BACKOFF + FRESH + STALE) / self.hour
        return not any(start <= self.share <= end + rest for start, end in OUTAGES)

    def is_down(self) -> bool:
        return any(start <= self.share < end for start, end in OUTAGES)

    def deployed(self) -> tuple[Flask, StaleCache]:
        self.deploys += 1
        app = Flask("news", static_folder=None)
        app.secret_key = "not a secret"
        app.config.update(
            STALECACHE_DIR=self.directory,
            STALECACHE_VERSION=f"release {self.deploys}",
            STALECACHE_MAX_SIZE=8_000_000,
            STALECACHE_MEMORY_SIZE=2_000_000,
            STALECACHE_MAX_AGE=FRESH,
            STALECACHE_STALE_WHILE_REVALIDATE=STALE,
            STALECACHE_STALE_IF_ERROR=FAILING,
            STALECACHE_REFRESH_BACKOFF=(2, BACKOFF),
            STALECACHE_INACTIVE=10 * MINUTE,
            STALECACHE_IGNORED_PARAMETERS=["utm_*"],
            STALECACHE_GATEWAY={"/prices/*": Policy(max_age=FRESH, stale_while_revalidate=STALE, stale_if_error=FAILING)},
            PERMANENT_SESSION_LIFETIME=1000 * DAY,
        )
        cache = StaleCache(app)
        self._add_views(app, cache)
        signing = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
        self.cookies = [f"session={signing.dumps({'user': f'member-{number}'})}" for number in range(MEMBERS)]
        return app, cache

    def _add_views(self, app: Flask, cache: StaleCache) -> None:
        @cache.memoize(*WINDOWS, tags=lambda number: [f"article:{number}"])
        def article_of(number: int) -> list[float]:
            self.seen.origins["third party"] += 1
            version = self.ledger.version(number)
            if self.is_down():
                raise ConnectionError
            return [float(version), time.time()]

        def page(kind: str, number: int) -> str:
            self.seen.origins[kind] += 1
            version, made = article_of(number)
            return f"{kind} {number} {int(version)} {made:.3f} {session.get('user', 'nobody')}\n" * 40

        @app.errorhandler(ConnectionError)
        @app.errorhandler(OriginSuspended)
        def down(error: Exception) -> tuple[str, int]:
            return "down", 503

        @app.get("/article/<int:number>")
        @cache.cached()
        def article(number: int) -> str:
            return page("article", number)

        @app.get("/search")
        @cache.cached()
        def search() -> str:
            return page("search", int(request.args["number"]))

        @app.get("/prices/<int:number>")
        def prices(number: int) -> str:
            return page("prices", number)

        @app.get("/live/<int:number>")
        def live(number: int) -> Response:
            return Response(page("live", number), headers={"Cache-Control": "no-store"})

        @app.post("/prices/<int:number>")
        def comment(number: int) -> str:
            return "thanks"

    # -- visitors ------------------------------------------------------------------------------------------------

    def visit(self, dice: random.Random) -> None:
        number = min(THINGS - 1, int(dice.paretovariate(0.7)) - 1)
        [kind] = dice.choices(("article", "prices", "search", "live"), (60, 25, 10, 5))
        path = f"/{kind}/{number}" if kind != "search" else f"/search?number={number}&x={dice.randrange(100_000)}"
        if dice.random() < 0.1:
            path += f"{'&' if '?' in path else '?'}utm_source={dice.getrandbits(32)}"
        member = dice.randrange(MEMBERS) if dice.random() < 0.1 else None
        headers = {} if member is None else {"Cookie": self.cookies[member]}
        floor, calm, came = self.ledger.floor(("page", number)), self.is_calm(), time.time()
        status, word, body = ask(self.app, path, headers=headers)
        self.seen.words[word or "no word"] += 1
        user = "nobody" if member is None else f"member-{member}"
        self._judge(path, (kind, number, user), (status, body), floor, came if calm and self.is_calm() else None)

    def _judge(self, path: str, about: tuple[str, int, str], answer: tuple[int, bytes], floor: int, came: float | None) -> None:
        """Compare an answer with what is allowed.

        :param came: when the visitor came; ``None``: in an outage or after it, when old answers are right.
        """
        (kind, number, user), (status, body) = about, answer
        if status == 503 and body == b"down" and came is None:
            self.seen.words["down"] += 1
            return
        lines = body.decode().splitlines()
        words = lines[0].split() if lines else []
        is_whole = status == 200 and len(lines) == 40 and len(set(lines)) == 1 and len(words) == 5
        if not is_whole or words[:2] != [kind, str(number)] or words[4] != user:
            self._fail(f"{path} for {user}: {status} {body[:80]!r}")
            return
        version, age = int(words[2]), (came or 0.0) - float(words[3])
        if not floor <= version <= self.ledger.version(number):
            self._fail(f"{path}: version {version}, at least {floor} is allowed")
        if came is not None:
            self.seen.oldest = max(self.seen.oldest, age)
            # A page may be as old as the windows allow, and may have been made of a value that was as old then.
            if age > 2 * (FRESH + STALE) + SLACK:
                self._fail(f"{path}: {age:.0f} s old")

    def _fail(self, what: str) -> None:
        self.seen.wrong.append(f"at {self.share:.3f} {what}"[:500])

    def edit(self, dice: random.Random) -> None:
        """Change an article, and purge what shows it; or comment on prices."""
        number = int(THINGS * dice.random() ** 2)
        if dice.random() < 0.2:
            ask(self.app, f"/prices/{number}", method="POST")
            return
        self.ledger.edit(number)
        versions = self.ledger.versions()
        with self.app.app_context():
            self.cache.purge(tag=f"article:{number}")
        self.ledger.purged([("page", number)], versions)
        self.seen.purges += 1

    # -- an hour -------------------------------------------------------------------------------------------------

    def live(self, seed: int) -> Seen:
        jobs: list[tuple[Callable[[random.Random], None], float]] = [(self.visit, 0.0005)] * THREADS + [(self.edit, 0.3)]
        threads = [
            threading.Thread(target=self._go_on, args=(do, pause, random.Random(seed * 100 + number)), daemon=True)
            for number, (do, pause) in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        self._lead(list(DEPLOYS))
        for thread in threads:
            thread.join(60)
        if any(thread.is_alive() for thread in threads):
            self._fail("visitors hang")
        return self.seen

    def _go_on(self, do: Callable[[random.Random], None], pause: float, dice: random.Random) -> None:
        while self.share < 1:
            try:
                do(dice)
            except Exception as error:
                self._fail(repr(error))
            time.sleep(pause)

    def _lead(self, deploys: Iterable[float]) -> None:
        """Deploy, keep house as often as the fast clock asks, and look at what is used."""
        left, look_at = list(deploys), 0.0
        while self.share < 1:
            if left and self.share >= left[0]:
                left.pop(0)
                self.app, self.cache = self.deployed()
            self.app.extensions["stalecache"].engine.runtime.tick()
            if self.share >= look_at:
                self.seen.samples.take([os.getpid()], self.directory)
                look_at += 0.02
            time.sleep(0.05)


def live(directory: Path, ledger_file: Path, clock_file: Path, writer: int, hour: float) -> Seen:
    """Live through an hour, and return what was seen."""
    # In an outage, a line would be logged for each page.
    logging.disable(logging.CRITICAL)
    clock = SharedClock(clock_file)
    with clock.running():
        return Worker(directory, Ledger(ledger_file, writer), clock, hour).live(writer)
