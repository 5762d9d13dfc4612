"""Helpers of the tests of the engine in many processes."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask_stalecache import FileStore
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, make_engine, make_entry
from support.threads import wait_until

PROCESSES, THREADS = 3, 6

#: The engine of this process for each directory: one for all requests, as in a server's worker.
ENGINES: dict[Path, Engine] = {}


@dataclass(frozen=True)
class Board:
    """Where processes tell each other how far they are: one file for each thing said."""

    place: Path

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    def say(self, word: str) -> None:
        (self.place / f"{word}-{os.getpid()}-{os.urandom(8).hex()}").touch()

    def heard(self, word: str) -> int:
        return len(self.speakers(word))

    def speakers(self, word: str) -> list[int]:
        return [int(name.split("-")[1]) for name in os.listdir(self.place) if name.startswith(f"{word}-")]

    def await_(self, word: str, count: int) -> None:
        wait_until(lambda: self.heard(word) >= count, f"{count} times {word}")


@dataclass
class PublicOrigin(FakeOrigin):
    """An origin that tells other processes who is about to queue, and who calls it."""

    board: Board = Board(Path())

    @property
    def lock_timeout(self) -> float:
        if threading.get_ident() not in self.asked:
            self.asked.add(threading.get_ident())
            self.board.say("asked")
        return self.patience

    def call(self, start: Start) -> Answer:
        self.board.say("called")
        return super().call(start)


def engine_of(board: Board, **settings: Any) -> Engine:
    if board.cache not in ENGINES:
        ENGINES[board.cache] = make_engine(board.cache, **settings)
    return ENGINES[board.cache]


def is_free(board: Board, key: str = "page") -> bool:
    lock = FileStore(board.cache).lock(key)
    free = lock.acquire()
    lock.release()
    return free


def store_long_ago(board: Board) -> None:
    FileStore(board.cache).write(make_entry(body=b"old", windows=(60, 600, 3600), started=time.time() - 10**6))


def store_stale(board: Board) -> None:
    FileStore(board.cache).write(make_entry(body=b"old", windows=(60, 10**6, 10**6), started=time.time() - 1000))
