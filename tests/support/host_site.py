"""A site on several hosts: each is a process with a directory of its own, all share one server, and one origin."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, Response

from flask_stalecache import StaleCache
from flask_stalecache.stores.shared.store import RedisStore
from support.client import Seen, settle, visit
from support.files import replace_text
from support.processes import Worker
from support.soak.clock import SharedClock
from support.threads import PATIENCE, crowd, wait_until

#: Seconds of the first pause after a failure: many more than a test takes.
PAUSE = 1000
#: Seconds after which a process counts as hung: a hundred share a processor.
HANGS = 20 * PATIENCE


@dataclass(frozen=True)
class Origin:
    """The one origin behind all hosts: a folder, which all processes see."""

    folder: Path

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.log)

    @property
    def log(self) -> list[str]:
        """One line for each call: the process ID, the edition and the time."""
        place = self.folder / "calls"
        return place.read_text().splitlines() if place.exists() else []

    @property
    def edition(self) -> str:
        """What its page says now."""
        place = self.folder / "edition"
        return place.read_text() if place.exists() else "first"

    def publish(self, edition: str) -> None:
        """Let its page say something else."""
        self._put("edition", edition)

    def become(self, mood: str) -> None:
        """Let it be "good", "down", or "private": each answer is for one visitor only."""
        self._put("mood", mood)

    def _put(self, name: str, text: str) -> None:
        replace_text(self.folder / name, text)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no call end before the block does."""
        (self.folder / "held").touch()
        try:
            yield
        finally:
            (self.folder / "held").unlink()

    def answer(self) -> Response:
        """Answer a call, and log it."""
        edition, mood = self.edition, self.folder / "mood"
        with (self.folder / "calls").open("a") as log:
            log.write(f"{os.getpid()} {edition} {time.monotonic():.2f}\n")
        # Long enough for others to come meanwhile.
        time.sleep(0.05)
        wait_until(lambda: not (self.folder / "held").exists(), "the end of a call")
        word = mood.read_text() if mood.exists() else "good"
        response = Response(f"{edition} edition", 503 if word == "down" else 200)
        if word == "private":
            response.cache_control.private = True
        return response


class Answers(Counter[tuple[str, str, int]]):
    """How often visitors were answered with which word, text and status."""

    @property
    def texts(self) -> Counter[str]:
        return Counter(text for _, text, _ in self.elements())

    @property
    def words(self) -> set[str]:
        return {word for word, _, _ in self}


@dataclass
class HostSite:
    """The site on one host, in the process of a :class:`Worker`."""

    app: Flask
    cache: StaleCache
    store: RedisStore
    stack: ExitStack = field(default_factory=ExitStack)


#: The site of this process.
HERE: list[HostSite] = []


def join(url: str, directory: Path, origin: Origin, settings: dict[str, Any]) -> str:
    """Make this process a host, and return the ID that the host has at the server.

    :param settings: those of the store.
    """
    app = Flask("hosts", root_path=str(directory.parent))
    app.config["STALECACHE_REFRESH_BACKOFF"] = (PAUSE, 64 * PAUSE)
    store = RedisStore(url, directory, name="hosts", **settings)
    cache = StaleCache(app, store=store)
    site = HostSite(app, cache, store)
    if origin.clock.exists():
        site.stack.enter_context(SharedClock(origin.clock).running())

    @app.get("/")
    @cache.cached(max_age=600, stale_while_revalidate=10**7, stale_if_error=10**7)
    def page() -> Response:
        return origin.answer()

    @app.get("/strict")
    @cache.cached(max_age=600, stale_while_revalidate=0, stale_if_error=0)
    def strict() -> Response:
        return origin.answer()

    HERE.append(site)
    store.load("first use")
    store.follower.tick()
    return store._known.host_id()


def leave() -> None:
    """Be no host any more."""
    site = HERE.pop()
    site.store.follower.stop()
    site.stack.close()


def look(path: str, visitors: int) -> list[tuple[str, str, int]]:
    """Let some visitors come at once; return how each was answered: word, text and status."""
    seen: list[Seen] = [future.result(HANGS) for future in crowd(visitors, lambda: visit(HERE[0].app, path))]
    return [(one.word, one.text, one.status) for one in seen]


def rest() -> None:
    """Wait for the refreshes of this host."""
    settle(HERE[0].app, HERE[0].cache, PATIENCE)


def purge(path: str, soft: bool) -> int:
    """Purge, and return the number at the server."""
    site = HERE[0]
    with site.app.app_context():
        heard = site.cache.purge(path, soft=soft).acknowledged
    assert heard is not None
    assert not heard.late
    return site.store._known.applied


def hear(number: int) -> None:
    """Wait until a purge was applied here."""
    wait_until(lambda: HERE[0].store._known.applied >= number, "a purge")


@dataclass(frozen=True)
class Hosts:
    """All hosts of a site, from outside.

    :param crew: their processes.
    :param editor: the process of one more, where everything is purged.
    :param visitors: how many come to each of the crew at once.
    """

    crew: Sequence[Worker]
    editor: Worker
    origin: Origin
    visitors: int = 2

    @property
    def everybody(self) -> int:
        """How many visitors come to all hosts at once."""
        return len(self.crew) * self.visitors

    def all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Run a function on all at once, and return what each returned."""
        for worker in self.crew:
            worker.start(function, *args)
        return [worker.result(HANGS) for worker in self.crew]

    def start(self, path: str = "/") -> None:
        """Let visitors come to all hosts at once."""
        for worker in self.crew:
            worker.start(look, path, self.visitors)

    def answers(self) -> Answers:
        """Return how visitors were answered that have come since :meth:`start`."""
        return Answers(seen for worker in self.crew for seen in worker.result(HANGS))

    def look(self, path: str = "/") -> Answers:
        """Let visitors come to all hosts at once, and return how they were answered."""
        self.start(path)
        return self.answers()

    def purge(self, path: str = "/", *, soft: bool) -> int:
        """Purge, wait until all hosts that count as alive have acknowledged the purge, and return its number."""
        number: int = self.editor.run(purge, path, soft)
        return number

    def hear(self, number: int) -> None:
        """Wait until all hosts have applied a purge, even those that seemed dead because they got no processor for seconds."""
        self.all(hear, number)

    def rest(self) -> None:
        """Wait for the refreshes of all hosts."""
        self.all(rest)
