"""Entries, fake origins and engines for tests."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flask_stalecache.config import settings as config
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.packets.refresh_data import OriginKind
from flask_stalecache.core.rules.serving import PLAIN, ServeOptions
from flask_stalecache.core.rules.storability import Verdict
from flask_stalecache.core.rules.variant_index import INDEX
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Origin, Start
from flask_stalecache.engine.scheduling.thread_pool import ThreadPool
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.tally import Tally
from flask_stalecache.stores.base import Copy
from flask_stalecache.stores.file_store import FileStore
from support.threads import PATIENCE


def make_entry(
    key: str = "page",
    body: bytes = b"<h1>Prices</h1>",
    *,
    windows: tuple[float, float, float] = (60, 600, 86400),
    serial: str = "",
    started: float | None = None,
    never_stale: bool = False,
    absent: tuple[str, ...] = (),
    names: tuple[str, ...] = ("all", "endpoint:prices", "path:/prices/eur", "url:http://shop.example/prices/eur"),
    seq: int = 0,
    version: str = "",
) -> Entry:
    """Return an entry that was made just now."""
    now = time.time()
    return Entry(
        key=key,
        serial=serial or os.urandom(8).hex(),
        names=names,
        seq=seq,
        version=version,
        started=now if started is None else started,
        answered=now if started is None else started,
        windows=Windows(*windows),
        never_stale=never_stale,
        shared=False,
        absent=RequestInputs(cookies=absent),
        varied=("Cookie",) if absent else (),
        status=200,
        headers=(("Content-Type", "text/html; charset=utf-8"), ("X-Greeting", "ü")),
        body=body,
        recipe={
            "scheme": "http",
            "server": ["127.0.0.1", "80"],
            "script_root": "",
            "path": "/prices/eur",
            "query": "",
            "raw": [],
            "fields": [["HTTP_HOST", "shop.example"]],
            "digests": [],
        },
    )


def make_index(key: str = "index") -> Entry:
    """Return the index of a URL that varies on Accept-Language."""
    entry = make_entry(key, b"", windows=(0, 0, 0), never_stale=True)
    return replace(entry, status=INDEX, headers=(("Vary", "accept-language"),), recipe={})


def storable(start: Start, body: bytes = b"new", **options: Any) -> Answer:
    """Return an answer that may be stored."""
    entry = make_entry(body=body, serial=start.serial, started=start.started, **{"seq": start.seq, **options})
    return Answer(verdict=Verdict.STORABLE, value=body, entry=entry)


def unstorable(value: object = "for nobody else") -> Answer:
    """Return an answer that can't be stored, whoever asks."""
    return Answer(verdict=Verdict.UNSTORABLE, value=value)


def personal(*cookies: str) -> Answer:
    """Return an answer that can't be stored because of the cookies that its request carried."""
    return Answer(verdict=Verdict.PERSONAL, value="one member's", carried=RequestInputs(cookies=cookies), anybodys=False)


def failed(*, anybodys: bool = True) -> Answer:
    """Return the answer of an origin that raised."""
    return Answer(verdict=Verdict.FAILED, error=ConnectionError("the third party is down"), anybodys=anybodys)


@dataclass
class FakeOrigin:
    """An origin that answers as its script says; any number of threads may ask it.

    :ivar script: what a call does.
    :ivar renewal: what its refresh does.
    :ivar cookies: the names of the cookies that its request carries.
    :ivar starts: what each call was given.
    :ivar lives: the thread of each call for one visitor alone.
    :ivar asked: the threads of visitors who may have to queue.
    """

    script: Callable[[Start], Answer] = storable
    key: str = "page"
    label: str = "the page"
    patience: float = PATIENCE
    may_collapse: bool = True
    wait: float | None = None
    min_uses: int = 1
    begun: int | None = None
    tally: Tally = field(default_factory=lambda: Tally("function", "shop.rates"))
    runs_in_own_threads: bool = False
    terms: ServeOptions = PLAIN
    renewal: Callable[[Start], Answer] = storable
    cookies: frozenset[str] = frozenset()
    starts: list[Start] = field(default_factory=list)
    lives: list[int] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.starts)

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's call; the engine asks for it once it has seen what is stored."""
        self.asked.add(threading.get_ident())
        return self.patience

    def call(self, start: Start) -> Answer:
        """Answer as the script says."""
        self.starts.append(start)
        return self.script(start)

    def relocate(self) -> bool:
        """It has one key."""
        return False

    def refused(self, copy: Copy) -> Answer | None:
        """It is never refused."""
        return None

    def call_uncached(self) -> Answer:
        """Answer one visitor alone."""
        self.lives.append(threading.get_ident())
        return Answer(verdict=Verdict.UNSTORABLE, value="live")

    def refresh(self) -> FakeRefresh:
        """Return the renewal."""
        return FakeRefresh(self.renewal, self.key, self.label, self.terms, fills_missing=self.runs_in_own_threads)

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the request carries a cookie that the entry remembers as absent."""
        return not self.cookies.isdisjoint(entry.absent.cookies)

    def barred_by(self, entry: Entry) -> RequestInputs:
        return RequestInputs(cookies=tuple(sorted(self.cookies.intersection(entry.absent.cookies))))

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of the cookies."""
        return not self.cookies.isdisjoint(names.cookies)

    def share_of(self, failure: Answer, *, again: bool) -> Answer | None:
        """Return the failure of another request, if this one may be given it."""
        return Origin.share_of(self, failure, again=again)  # type: ignore[arg-type]


@dataclass
class FakeRefresh:
    """A refresh that answers as its script says."""

    script: Callable[[Start], Answer] = storable
    key: str = "page"
    label: str = "the page"
    terms: ServeOptions = PLAIN
    pool: ThreadPool | None = None
    kind: OriginKind | None = None
    fills_missing: bool = False
    forced: bool = False
    max_wait: float | None = None
    tally: Tally = field(default_factory=lambda: Tally("function", "shop.rates"))
    starts: list[Start] = field(default_factory=list)
    overdue: int = 0

    def is_backing_off(self, copy: Copy) -> bool:
        """It never is."""
        return False

    def refresh_dependencies(self, keys: tuple[str, ...]) -> None:
        """Do nothing: the page is not made of other entries."""

    def names(self) -> tuple[str, ...]:
        """Return the names by which its failures are purged."""
        return ("all",)

    def given_up(self) -> None:
        """Count how often it took too long."""
        self.overdue += 1

    @property
    def calls(self) -> int:
        """How often it was run."""
        return len(self.starts)

    def run(self, start: Start) -> Answer:
        """Answer as the script says."""
        self.starts.append(start)
        return self.script(start)


def make_engine(directory: Path, **settings: Any) -> Engine:
    """Return an engine over files; settings come without ``STALECACHE_``."""
    counters = Counters()
    checked = config.read({f"STALECACHE_{name}": value for name, value in settings.items()})
    store = FileStore(
        directory,
        memory_size=checked.memory_size,
        max_size=checked.max_size,
        min_free=checked.min_free,
        inactive=checked.inactive,
        counters=counters,
    )
    return Engine(store, checked, counters)


def body_of(answered: Any) -> object:
    """Return what a visitor is shown: the body of the copy, or the value of the origin's own answer."""
    return answered.copy.entry.body if answered.answer is None else answered.answer.value


def named(value: object) -> str:
    """Return the ID of a test's parameter: the same in each process that collects the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))
