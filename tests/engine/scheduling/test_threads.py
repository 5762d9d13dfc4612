"""A process that may start no more threads: pages are served, and the log says so once a minute."""

from __future__ import annotations

import logging
import math
import os
import resource
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.core.model import work
from flask_stalecache.engine import log
from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.engine.scheduling import thread_pool, threads
from flask_stalecache.engine.scheduling.threads import start_thread
from support.client import MakeApp, visit
from support.processes import become_nobody, workers
from support.threads import no_threads, wait_until


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), record.exc_info is not None))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lines that are logged, each with whether it has a traceback. The limit of one line a minute starts anew."""
    monkeypatch.setattr(threads, "_complaints", RateLimitedLog())
    handler = _Collected()
    logging.getLogger("flask_stalecache").addHandler(handler)
    yield handler.lines
    logging.getLogger("flask_stalecache").removeHandler(handler)


def count_up(app: Flask, cache: StaleCache) -> list[int]:
    made: list[int] = []

    @app.get("/news/<int:number>")
    @cache.cached(0, stale_while_revalidate=600)
    def news(number: int) -> str:
        made.append(number)
        return f"news {number}"

    return made


def test_it_is_said_once_a_minute(said: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    with no_threads():
        for seconds in (0.0, 1.0, 58.0, 2.0, 59.0):
            now += seconds
            assert not start_thread("refresh", lambda: None)
            assert not start_thread("housekeeping", lambda: None)
    assert len(said) == 2
    assert said[0] == said[1]
    message, has_traceback = said[0]
    assert message.startswith("a thread for refresh could not be started (can't start new thread): ")
    assert "ulimit -u" in message
    assert not has_traceback


def test_a_thread_that_starts_is_a_daemon_with_a_name(said: list[tuple[str, bool]]) -> None:
    seen: list[threading.Thread] = []
    assert start_thread("refresh", lambda number: seen.extend([threading.current_thread()] * number), 2)
    wait_until(lambda: len(seen) == 2)
    assert (seen[0].name, seen[0].daemon, said) == ("stalecache-refresh", True, [])


def test_visitors_are_served_and_refreshes_run_in_line(
    make_app: MakeApp, said: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "START_PATIENCE", 0.0)
    # On a busy machine a refresh may seem to compute. It would go to the lane, and wait for the thread of that.
    monkeypatch.setattr(work, "LEAST_SECONDS", math.inf)
    app, cache = make_app()
    made = count_up(app, cache)
    rounds: list[int] = []
    app.extensions["stalecache"].engine.runtime.watched.append(lambda: rounds.append(1))
    with no_threads():
        seen = [visit(app, f"/news/{number % 5}").page for number in range(30)]
    assert [word for word, _ in seen[:5]] == ["MISS"] * 5
    # The first refresh is queued and waits for a thread, so its page stays UPDATING. The others run in line.
    assert {word for word, _ in seen[5:]} == {"STALE", "UPDATING"}
    assert [text for _, text in seen] == [f"news {number % 5}" for number in range(30)]
    assert len(made) >= 5 + 20
    assert [line.split()[0:4] for line, _ in said] == [["a", "thread", "for", "housekeeping"], ["a", "refresh", "was", "not"]]
    # Housekeeping is done too, once a second.
    assert len(rounds) >= 1


def visit_without_threads() -> tuple[set[str], list[str]]:
    """Serve requests in a process whose user may have no more threads."""
    # Import everything now: the user ``nobody`` may be unable to read root's Python.
    visit(Flask("warm"), "/")
    become_nobody()
    handler = _Collected()
    logging.getLogger("flask_stalecache").addHandler(handler)
    with tempfile.TemporaryDirectory() as place:
        app = Flask("shop", root_path=place, static_folder=None)
        app.config["STALECACHE_DIR"] = Path(place) / "cache"
        count_up(app, StaleCache(app))
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        words = {visit(app, f"/news/{number % 3}").word for number in range(60)}
    return words, [line for line, _ in handler.lines]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_under_the_real_limit_of_a_user() -> None:
    with workers(1) as made:
        words, lines = made[0].run(visit_without_threads)
    assert words <= {"MISS", "STALE", "UPDATING"}
    assert len([line for line in lines if "can't start new thread" in line]) == len(lines) == 1
