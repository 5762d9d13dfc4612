"""Our cache on many hosts beside dogpile.cache and Flask-Caching, on the same server: :func:`rows` yields lines of a table.

Twenty processes, each of which stands for a host, call a cached function at the same moment. Its origin takes 0.3 s.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from flask import Flask

from flask_stalecache import RedisStore, StaleCache
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import NO_NAMES
from flask_stalecache.core.model.policy import Windows

HOSTS = 20
#: Seconds that the origin takes, and for which its value is fresh.
TAKES, FRESH = 0.3, 2.0
TAG = "many"
#: Hits in a round, and rounds.
HITS, ROUNDS = 500, 20
TEXT = "x" * 1000

Ask = Callable[[str], str]


class Cached(NamedTuple):
    """A cache under test.

    :ivar get: the cached function.
    :ivar fill: stores a number of values.
    :ivar purge: purges all of these, by tag or, without tags, by their keys.
    """

    get: Ask
    fill: Callable[[int], object]
    purge: Callable[[int], object]


def names(count: int) -> list[str]:
    """Return the arguments of values that are purged together."""
    return [f"item-{number}" for number in range(count)]


def ours(folder: Path, url: str, ask: Ask) -> Cached:
    app = Flask("ours")
    store = RedisStore(url, folder, name="ours")
    cache = StaleCache(app, store=store)
    app.app_context().push()
    return Cached(
        cache.memoize(FRESH, 600, 600, jitter=0)(ask),
        lambda count: [store.write(entry(store, name, f"tag:{TAG}")) for name in names(count)],
        lambda _: cache.purge(tag=TAG),
    )


def entry(store: RedisStore, key: str, name: str) -> Entry:
    """Return an entry of a page that is begun now, with a name for purging."""
    now = time.time()
    return Entry(
        key=key, serial=os.urandom(8).hex(), names=("all", name), seq=store.seq(), version="", started=now, answered=now,
        windows=Windows(60, 600, 86400), never_stale=False, shared=False, absent=NO_NAMES, varied=(), status=200,
        headers=(("Content-Type", "text/html"),), body=TEXT.encode(), recipe={},
    )  # fmt: skip


def dogpile(folder: Path, url: str, ask: Ask, *, distributed: bool) -> Cached:
    from dogpile.cache import make_region

    settings = {"url": url, "distributed_lock": distributed, "thread_local_lock": not distributed}
    region = make_region().configure("dogpile.cache.redis", expiration_time=FRESH, arguments=settings)
    return Cached(
        region.cache_on_arguments()(ask),
        lambda count: region.set_multi(dict.fromkeys(names(count), TEXT)),
        lambda count: region.delete_multi(names(count)),
    )


def flask_caching(folder: Path, url: str, ask: Ask) -> Cached:
    from flask_caching import Cache

    app = Flask("flask_caching")
    app.app_context().push()
    cache = Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url, "CACHE_KEY_PREFIX": "theirs"})
    return Cached(
        cache.memoize(timeout=int(FRESH))(ask),
        lambda count: cache.set_many(dict.fromkeys(names(count), TEXT)),
        lambda count: cache.delete_many(*names(count)),
    )


OURS = "ours"
PEERS: dict[str, Callable[[Path, str, Ask], Cached]] = {
    OURS: ours,
    "dogpile.cache": partial(dogpile, distributed=False),
    "dogpile.cache, distributed_lock": partial(dogpile, distributed=True),
    "Flask-Caching": flask_caching,
}
HAS_TAGS = {OURS}


# -- the processes -------------------------------------------------------------------------------------------------------


def serve(pipe: Connection, peer: str, folder: Path, url: str, calls: Path) -> None:
    """Carry out the orders from the pipe. Send the seconds that each took, and the value if the order was ``get``."""

    def ask(name: str) -> str:
        with calls.open("ab", buffering=0) as file:
            file.write(b".")
        time.sleep(TAKES)
        return f"{name} {time.time_ns()}"

    cached = PEERS[peer](folder, url, ask)
    deeds: dict[str, Callable[[Any], Any]] = {
        "get": cached.get,
        "fill": cached.fill,
        "purge": cached.purge,
        "hits": lambda count: [cached.get("hit") for _ in range(count)],
    }
    while (order := pipe.recv()) is not None:
        deed, what, at = order
        time.sleep(max(0.0, at - time.time()))
        began = time.perf_counter()
        result = deeds[deed](what)
        pipe.send((time.perf_counter() - began, result if deed == "get" else None))


class Crew:
    """The processes of one cache.

    :param peer: its name.
    :param folder: a new folder.
    :param url: the server's.
    """

    def __init__(self, peer: str, folder: Path, url: str) -> None:
        self._calls = folder / "calls"
        folder.mkdir()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["hosts_peers"])
        self.pipes: list[Connection] = []
        self._processes = []
        for number in range(HOSTS):
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, peer, folder / str(number), url, self._calls), daemon=True)
            process.start()
            # Closed in this process, so that the pipe ends with the other process.
            theirs.close()
            self.pipes.append(mine)
            self._processes.append(process)

    def close(self, *, rest: int = 0) -> None:
        """End all processes but the first ``rest``."""
        for pipe in self.pipes[rest:]:
            pipe.send(None)
        for process in self._processes[rest:]:
            process.join(10)
        del self.pipes[rest:], self._processes[rest:]

    def do(self, deed: str, what: object, *, hosts: int = HOSTS) -> list[tuple[float, Any]]:
        """Let the first of the processes do something at the same moment."""
        at = time.time() + (0.5 if hosts > 1 else 0.0)
        for pipe in self.pipes[:hosts]:
            pipe.send((deed, what, at))
        return [pipe.recv() for pipe in self.pipes[:hosts]]

    def calls(self) -> int:
        """Return how often the origin was called."""
        return self._calls.stat().st_size if self._calls.exists() else 0


class Found(NamedTuple):
    """The measurements with one cache.

    :ivar waited: visitors of the stale value who waited for the origin.
    :ivar purge: seconds for the purge.
    """

    cold: int
    slowest: float
    stale: int
    waited: int
    purge: float


def measure(crew: Crew, entries: int) -> Found:
    """Ask for something that nobody has, then for something stale; then purge."""
    # Connections and directories are made at first use, which is not what is compared.
    crew.do("get", "first use")
    before = crew.calls()
    answers = crew.do("get", "page")
    cold, slowest = crew.calls() - before, max(seconds for seconds, _ in answers)
    time.sleep(FRESH + 0.5)
    before = crew.calls()
    answers = crew.do("get", "page")
    waited = sum(seconds >= TAKES for seconds, _ in answers)
    time.sleep(2 * TAKES + 1)
    stale = crew.calls() - before
    crew.do("fill", entries, hosts=1)
    [(purge, _)] = crew.do("purge", entries, hosts=1)
    crew.close(rest=1)
    return Found(cold, slowest, stale, waited, purge)


def hits(crews: dict[str, Crew]) -> dict[str, float]:
    """Return what a hit costs, divided by ours, as the median of the rounds."""
    ratios: dict[str, list[float]] = {peer: [] for peer in crews}
    for _ in range(ROUNDS):
        times = {}
        for peer, crew in crews.items():
            # The value is fresh for two seconds, so it is asked for anew first.
            crew.do("get", "hit", hosts=1)
            [(times[peer], _)] = crew.do("hits", HITS, hosts=1)
        for peer, seconds in times.items():
            ratios[peer].append(seconds / times[OURS])
    return {peer: median(found) for peer, found in ratios.items()}


def rows(folder: Path, url: str, entries: int) -> Iterator[str]:
    """Yield the lines of the table.

    :param folder: a folder for directories of caches.
    :param url: the server's.
    :param entries: how many entries are purged.
    """
    crews, found = {}, {}
    with ExitStack() as stack:
        for number, peer in enumerate(PEERS):
            crews[peer] = Crew(peer, folder / f"peer-{number}", url)
            stack.callback(crews[peer].close)
            found[peer] = measure(crews[peer], entries)
        costs = hits(crews)
    yield f"| {HOSTS} processes at once, on one server | {' | '.join(PEERS)} |"
    yield f"|---|{'---:|' * len(PEERS)}"
    yield _line("nothing stored: calls of the origin", [str(each.cold) for each in found.values()])
    yield _line(f"the slowest of them (the origin takes {TAKES} s)", [f"{each.slowest:.2f} s" for each in found.values()])
    yield _line("stale or expired: calls of the origin", [str(each.stale) for each in found.values()])
    yield _line("visitors who waited for it", [str(each.waited) for each in found.values()])
    yield _line("a hit ÷ ours", [f"{costs[peer]:.1f}" for peer in PEERS])
    yield _line(
        f"purge of {entries:,} entries by tag; ours waits until all have heard",
        [_purge(peer, each, found[OURS]) for peer, each in found.items()],
    )


def _purge(peer: str, found: Found, ours: Found) -> str:
    text = f"{1000 * found.purge:.0f} ms, {found.purge / ours.purge:.1f} times ours"
    return f"{1000 * found.purge:.0f} ms" if peer in HAS_TAGS else f"no tags; by known keys {text}"


def _line(what: str, values: Sequence[str]) -> str:
    return f"| {what} | {' | '.join(values)} |"
