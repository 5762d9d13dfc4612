"""Hit ratio beside a flood: ``python benchmarks/min_uses.py [--reads 1000]`` prints two tables as Markdown.

Readers ask for 2,000 pages by Zipf's law: the most-read page twice as often as the second one, three times as often as the third
one, and so on. The store has room for 200 pages and evicts the one that was used least recently. Beside each read, a flood asks for
made-up URLs, none of them twice. With ``min_uses`` these are not stored, and evict nothing. The second half of the reads is
measured. All runs in this process, with a store in memory: it is not about times.

The second table has no ``min_uses``. Its flood is answered with ``no-store``, or with 500, so that each made-up URL leaves a note.
"""

from __future__ import annotations

import argparse
import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

from flask_stalecache import GatewayCache, Policy
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.stores.base import Checked, Copy, Stored, Usage
from flask_stalecache.stores.in_memory.memory_store import MemoryStore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PAGES, ROOM = 2000, 200


class LruStore:
    """Entries in memory, of which the least recently used one is evicted first. For one thread, and without purges.

    :param room: how many entries it holds.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._copies: OrderedDict[str, Copy] = OrderedDict()

    def lookup(self, key: str) -> Copy | None:
        """Return the stored copy, and mark it as used just now."""
        copy = self._copies.get(key)
        if copy is not None:
            self._copies.move_to_end(key)
        return copy

    def load(self, key: str) -> Copy:
        """Return what is stored, or an empty copy."""
        return self.lookup(key) or Copy(key, None, NOTHING, 0, 0)

    def write(self, entry: Entry) -> bool:
        """Store an entry, and evict others if there are too many."""
        self._copies[entry.key] = Copy(entry.key, entry, NOTHING, 0, 0)
        self._copies.move_to_end(entry.key)
        while len(self._copies) > self._room:
            self._copies.popitem(last=False)
        return True

    def remove(self, key: str) -> None:
        """Remove an entry."""
        self._copies.pop(key, None)

    def lock(self, key: str) -> LruStore:
        """Return a lock, which is always free, since there is one thread."""
        return self

    def acquire(self) -> bool:
        """Take the lock."""
        return True

    def release(self) -> None:
        """Release the lock."""

    def touch(self, copy: Copy) -> None:
        """Do nothing: a look-up has marked it as used."""

    def moved(self, copy: Copy) -> bool:
        """Whether something else is stored by now."""
        return self._copies.get(copy.key) is not copy

    def write_note(self, key: str, note: Note) -> None:
        """Do nothing: no page fails here."""

    def seq(self) -> int:
        """Return the number of the last purge: there is none."""
        return 0

    def purge(self, *names: str, soft: bool) -> None:
        """Remove everything."""
        self._copies.clear()

    def walk(self) -> Iterator[Stored]:
        """Yield all entries."""
        for copy in self._copies.values():
            if copy.entry is not None:
                yield Stored(copy.entry, copy.entry.length, copy.size, 0.0, NOTHING)

    def usage(self) -> Usage:
        """Return how much is stored."""
        return Usage(len(self._copies), sum(copy.size for copy in self._copies.values()))

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Yield nothing: there are no files."""
        yield from ()

    def check(self) -> None:
        """Do nothing: nothing can be wrong."""

    def tick(self) -> None:
        """Do nothing: each write evicts."""

    def sweep(self) -> Mapping[str, int]:
        """Remove nothing."""
        return {"bytes": 0}

    def forget(self) -> None:
        """Drop everything."""
        self._copies.clear()


def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer any URL with a page; those below ``/no-store`` and ``/error`` with one that may not be stored."""
    kind = environ["PATH_INFO"].split("/")[1]
    fields = [("Content-Type", "text/html"), ("Content-Length", "1000")]
    start_response(
        "500 Internal Server Error" if kind == "error" else "200 OK",
        [*fields, ("Cache-Control", "no-store")] if kind == "no-store" else fields,
    )
    return [bytes(1000)]


def visit(app: GatewayCache, path: str) -> bool:
    """Ask for a path, and return whether that was a hit."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "", "HTTP_HOST": "shop.example"}
    setup_testing_defaults(environ)
    seen: list[str] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        seen.append(dict(fields)["X-Cache-Status"])
        return None

    body = app(environ, start_response)
    for _ in body:
        pass
    if close := getattr(body, "close", None):
        close()
    return seen == ["HIT"]


def store_for(pages: int) -> MemoryStore:
    """Return a real store with room for this many pages."""
    probe = MemoryStore()
    visit(GatewayCache(page, store=probe, rules={"/*": Policy(max_age=86400)}), "/1000")
    return MemoryStore(max_size=pages * probe.usage().bytes)


def hit_ratio(reads: int, flood: int, min_uses: int, kind: str = "") -> float:
    """Return the hit ratio of the readers in the second half.

    :param reads: how often readers ask.
    :param flood: made-up URLs beside each read.
    :param kind: how the app answers these. Default: with pages.
    """
    dice = random.Random(reads)
    rules = {"/*": Policy(max_age=86400, min_uses=min_uses)}
    app = GatewayCache(page, store=store_for(ROOM) if kind else LruStore(ROOM), rules=rules)
    weights = list(accumulate(1 / rank for rank in range(1, PAGES + 1)))
    hits = 0
    for number, read in enumerate(dice.choices(range(PAGES), cum_weights=weights, k=reads)):
        hits += visit(app, f"/{read}") and number >= reads // 2
        for other in range(flood):
            visit(app, f"/{kind}/{number}/{other}")
    return hits / (reads - reads // 2)


def main() -> None:
    """Print the hit ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=1000)
    reads = parser.parse_args().reads
    print("| made-up URLs beside a read | min_uses=1 | min_uses=2 | min_uses=3 |\n| ---: | ---: | ---: | ---: |")
    for flood in (0, 1, 4):
        print(f"| {flood} | {' | '.join(f'{hit_ratio(reads, flood, least):.0%}' for least in (1, 2, 3))} |", flush=True)
    print("\n| made-up URLs beside a read | pages | no-store | 500 |\n| ---: | ---: | ---: | ---: |")
    for flood in (0, 1, 4):
        ratios = " | ".join(f"{hit_ratio(reads, flood, 1, kind):.0%}" for kind in ("page", "no-store", "error"))
        print(f"| {flood} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
