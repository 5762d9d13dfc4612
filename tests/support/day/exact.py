"""A day of a site: replaces what no model can predict in the package."""

from __future__ import annotations

import itertools
import math
import random
import sys
import threading

import pytest

from flask_stalecache.engine import collapsing, timed_calls
from flask_stalecache.engine.scheduling import thread_pool
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.upkeep import sweep
from support.day.terms import HALF


def make_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package predictable.

    Random numbers are constant, a sweep is done in one go and only when the day asks for it, and no two digests share a slot.
    """
    monkeypatch.setattr(random, "random", lambda: HALF)
    monkeypatch.setattr(sweep, "BUDGET", math.inf)
    # Shorter waits in real time.
    for module in (collapsing, timed_calls):
        monkeypatch.setattr(module, "POLL", 0.001)
    monkeypatch.setattr(thread_pool, "IDLE", 0.2)
    tick, this_thread = FileStore.tick, threading.get_ident()

    def tick_if_told(store: FileStore) -> None:
        # The housekeeping threads run on the real clock, and would sweep at any moment of the day.
        if threading.get_ident() == this_thread:
            tick(store)

    monkeypatch.setattr(FileStore, "tick", tick_if_told)
    slots: dict[str, int] = {}
    numbers = itertools.count(1)

    def own_slot(digest: str) -> int:
        return slots.get(digest) or slots.setdefault(digest, next(numbers))

    users = [module for name, module in sys.modules.items() if name.startswith("flask_stalecache.") and hasattr(module, "slot_of")]
    assert len(users) > 1
    for module in users:
        monkeypatch.setattr(module, "slot_of", own_slot)
