"""One worker that fills very many keys: what it takes, and how long it keeps house."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import time_machine
from flask import Flask
from werkzeug.test import EnvironBuilder

from flask_stalecache import StaleCache
from support.soak.figures import Samples, Usage

#: How often the worker is looked at.
LOOKS = 16
#: Keys between two rounds of housekeeping, which a busy worker does each second.
ROUND = 500


@dataclass
class Report:
    """What was seen.

    :ivar tick: seconds of the slowest round of housekeeping.
    :ivar sweep: seconds of a whole sweep.
    """

    wrong: list[str] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    filling: float = 0.0
    tick: float = 0.0
    sweep: float = 0.0
    entries: int = 0
    usage: Usage = field(default_factory=Usage)


class Worker:
    """A worker with a cache of a size."""

    def __init__(self, directory: Path, max_size: int | None) -> None:
        self.directory = directory
        self.report = Report()
        self.app = Flask("many", static_folder=None)
        self.app.config.update(STALECACHE_DIR=directory, STALECACHE_MAX_SIZE=max_size, STALECACHE_MAX_ENTRY_SIZE=100_000)
        cache = StaleCache(self.app)

        @self.app.get("/<int:number>")
        @cache.cached(36000)
        def page(number: int) -> str:
            return text_of(number)

        self.engine = self.app.extensions["stalecache"].engine

    def visit(self, number: int) -> str:
        answered: dict[str, str] = {}

        def start_response(status: str, fields: list[tuple[str, str]], error: object = None) -> None:
            answered.update(fields, status=status)

        iterable = self.app(EnvironBuilder(f"/{number}", "http://many.example").get_environ(), start_response)
        body = b"".join(iterable)
        if hasattr(iterable, "close"):
            iterable.close()
        if (answered["status"], body) != ("200 OK", text_of(number).encode()):
            self.report.wrong.append(f"{number}: {answered['status']} {body[:80]!r}")
        return answered["X-Cache-Status"]

    def keep_house(self) -> None:
        start = time.monotonic()
        self.engine.runtime.tick()
        self.report.tick = max(self.report.tick, time.monotonic() - start)

    def sweep(self) -> None:
        start = time.monotonic()
        self.engine.store.sweep()
        self.report.sweep = time.monotonic() - start
        self.report.entries = self.engine.store.usage().entries
        self.report.usage = Usage.of([os.getpid()], self.directory)


def text_of(number: int) -> str:
    return f"page {number}\n" * 30


def fill(directory: Path, max_size: int | None, keys: int) -> Report:
    """Fill keys, and sweep the directory, once lock files are old."""
    worker = Worker(directory, max_size)
    report, start = worker.report, time.monotonic()
    for number in range(keys):
        worker.visit(number)
        if number % ROUND == ROUND - 1:
            worker.keep_house()
        if number % max(1, keys // LOOKS) == 0:
            report.samples.take([os.getpid()], directory)
    report.filling = time.monotonic() - start
    with time_machine.travel(time.time() + 2 * 3600):
        worker.sweep()
    return report


def revisit(directory: Path, max_size: int, numbers: range) -> tuple[Report, dict[str, int]]:
    """Visit keys again in a new worker, whose cache may be smaller; return how often each word came."""
    worker, words = Worker(directory, max_size), dict[str, int]()
    worker.visit(numbers[0])
    worker.sweep()
    for number in numbers:
        word = worker.visit(number)
        words[word] = words.get(word, 0) + 1
    return worker.report, words
