"""The thread that does what no request should do."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask import Flask, Request, Response, g, request, session
from flask.ctx import _AppCtxGlobals
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.datastructures import ImmutableMultiDict

from flask_stalecache import StaleCache
from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.engine.scheduling import housekeeper, thread_pool, threads
from flask_stalecache.engine.scheduling.housekeeper import Housekeeper
from flask_stalecache.errors import StoreError
from support.engine import FakeOrigin, make_engine
from support.processes import forked, workers
from support.threads import PATIENCE, crowd, no_threads, results, wait_until


@dataclass(eq=False)
class Subject:
    """A subject of the housekeeper. It records the thread of each round."""

    action: Callable[[], object] = lambda: None
    rounds: list[threading.Thread] = field(default_factory=list)

    def tick(self) -> None:
        self.rounds.append(threading.current_thread())
        self.action()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeper, "INTERVAL", 0.005)


def test_the_subject_is_looked_after_again_and_again() -> None:
    subject = Subject()
    Housekeeper(subject).ensure_running()
    wait_until(lambda: len(subject.rounds) >= 3)
    thread = subject.rounds[0]
    assert set(subject.rounds) == {thread}
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_no_thread_before_it_is_asked_for() -> None:
    subject = Subject()
    keeper, busy = Housekeeper(subject), Subject()
    Housekeeper(busy).ensure_running()
    wait_until(lambda: len(busy.rounds) >= 3)
    assert subject.rounds == []
    keeper.ensure_running()
    wait_until(lambda: subject.rounds)


def test_one_thread_however_many_ask() -> None:
    subject = Subject()
    keeper = Housekeeper(subject)
    results(crowd(20, keeper.ensure_running))
    keeper.ensure_running()
    wait_until(lambda: len(subject.rounds) >= 10)
    assert len(set(subject.rounds)) == 1


def test_an_error_is_logged_and_the_rounds_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("a broken broom")

    subject = Subject(fail)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        Housekeeper(subject).ensure_running()
        wait_until(lambda: len(subject.rounds) >= 3)
    assert "a broken broom" in caplog.text
    assert subject.rounds[0].is_alive()


def test_the_thread_ends_with_its_subject() -> None:
    subjects = [Subject()]
    Housekeeper(subjects[0]).ensure_running()
    wait_until(lambda: subjects[0].rounds)
    thread, reference = subjects[0].rounds[0], weakref.ref(subjects[0])
    subjects.clear()
    wait_until(lambda: (gc.collect(), reference())[1] is None, "the end of the subject")
    wait_until(lambda: not thread.is_alive(), "the end of the thread")


def test_a_thread_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject()
    keeper = Housekeeper(subject)
    monkeypatch.setattr(threads, "_complaints", RateLimitedLog())
    with no_threads(), caplog.at_level(logging.WARNING, "flask_stalecache"):
        keeper.ensure_running()
    assert "housekeeping" in caplog.text
    keeper.ensure_running()
    wait_until(lambda: subject.rounds)


def look_after_in_two_processes() -> tuple[int, int, bool]:
    """Fork a process with a housekeeper.

    :returns: the process ids of parent and child, from their rounds, and whether a child has no rounds unless it asks for them.
    """
    housekeeper.INTERVAL = 0.005
    pids: list[int] = []
    subject = Subject(lambda: pids.append(os.getpid()))
    keeper = Housekeeper(subject)
    keeper.ensure_running()
    wait_until(lambda: pids)

    def idle() -> bool:
        pids.clear()
        busy = Subject()
        Housekeeper(busy).ensure_running()
        wait_until(lambda: len(busy.rounds) >= 3)
        return not pids

    def child() -> int:
        pids.clear()
        keeper.ensure_running()
        wait_until(lambda: pids)
        return pids[0]

    idles = forked(idle)
    of_child = forked(child)
    pids.clear()
    wait_until(lambda: pids)
    return pids[0], of_child, idles


def test_a_forked_process_has_a_thread_of_its_own_once_it_asks() -> None:
    with workers(1) as made:
        parent, child, idles = made[0].run(look_after_in_two_processes)
        assert parent == made[0].process.pid
    assert child != parent
    assert idles


def test_an_engine_is_looked_after_from_its_first_slow_path_on(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rounds = make_engine(directory), []
    monkeypatch.setattr(engine.store, "tick", lambda: rounds.append(threading.current_thread()))
    engine.serve(FakeOrigin())
    wait_until(lambda: len(rounds) >= 2)
    assert threading.current_thread() not in rounds


def test_an_engine_that_is_gone_leaves_no_thread(directory: Path) -> None:
    before = set(threading.enumerate())
    engine = make_engine(directory)
    engine.serve(FakeOrigin())
    threads = set(threading.enumerate()) - before
    assert threads
    reference = weakref.ref(engine)
    del engine
    wait_until(lambda: (gc.collect(), reference())[1] is None, "the end of the engine")
    wait_until(lambda: not any(thread.is_alive() for thread in threads), "the end of its threads")


def load_user() -> None:
    g.user = None


def define_classes(app: Flask) -> None:
    """Give an app classes as an app factory may define them: they refer to the app."""

    class AppResponse(Response):
        default_mimetype = app.config.get("MIMETYPE", "text/html")

    class AppCookies(ImmutableMultiDict[str, str]):
        owner = app

    class AppRequest(Request):
        dict_storage_class = AppCookies

    class AppGlobals(_AppCtxGlobals):
        owner = app

    class AppSession(SecureCookieSession):
        owner = app

    class AppSessions(SecureCookieSessionInterface):
        session_class = AppSession

    app.response_class, app.request_class, app.app_ctx_globals_class = AppResponse, AppRequest, AppGlobals
    app.session_interface = AppSessions()


def test_an_app_that_is_dropped_is_gone_although_its_views_and_classes_know_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Threads without work hold their app no longer than that.
    monkeypatch.setattr(thread_pool, "IDLE", 0.1)

    def used() -> weakref.ref[Flask]:
        app = Flask("shop")
        app.secret_key = "not a secret"
        app.config |= {"STALECACHE_DIR": directory, "STALECACHE_HOOKS_SET_G": [f"{__name__}.load_user"]}
        define_classes(app)
        cache = StaleCache(app)

        @cache.memoize(60)
        def name() -> str:
            return str(app.name)

        @app.get("/")
        @cache.cached(60)
        def front() -> str:
            return name() + session.get("lang", "en") + request.cookies.get("lang", "en")

        @app.get("/form")
        @cache.cached(60)
        def form() -> str:
            session["seen"] = True
            return "a form"

        app.before_request(load_user)
        app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
        for path in ("/", "/", "/form", "/stalecache/"):
            assert app.test_client().get(path).status_code == 200
        with app.app_context():
            assert cache.refresh(all=True).wait(PATIENCE)
            assert cache.stats()["requests"]["HIT"] == 1
        return weakref.ref(app)

    reference = used()
    wait_until(lambda: (gc.collect(), reference())[1] is None, "the end of the app")


def test_a_store_that_fails_in_a_round_is_counted_and_told_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise StoreError("the disk is gone")

    engine = make_engine(directory)
    monkeypatch.setattr(engine.store, "tick", fail)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for _ in range(3):
            engine.runtime.tick()
    assert engine.counters["store_failures"] == 3
    assert [record.getMessage() for record in caplog.records if "the disk is gone" in record.getMessage()] != []
    assert len(caplog.records) == 1


# -- the parts of a round --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["refreshes", "flights", "statistics", "batches", "store", ""])
def test_no_part_of_a_round_keeps_another_from_its_turn(
    directory: Path, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime, done = make_engine(directory).runtime, list[str]()

    def part(name: str) -> Callable[[], list[object]]:
        def do() -> list[object]:
            if name == broken:
                raise ValueError(f"{name} has a wrong value")
            done.append(name)
            return []

        return do

    monkeypatch.setattr(runtime.process.refreshes, "tick", part("refreshes"))
    monkeypatch.setattr(runtime.process.flights, "slow", part("flights"))
    monkeypatch.setattr(runtime.registry, "tick", part("statistics"))
    runtime.watched.append(part("batches"))
    monkeypatch.setattr(runtime.store, "tick", part("store"))
    parts = ["refreshes", "flights", "statistics", "batches", "store"]
    for _ in range(3):
        runtime.tick()
    assert done == [name for name in parts if name != broken] * 3
    # Once a minute, not in each round.
    assert caplog.text.count("housekeeping failed") == bool(broken)
