"""Fixtures that all tests share."""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask
from hypothesis import HealthCheck, settings
from werkzeug.routing import Rule

from flask_stalecache import StaleCache
from flask_stalecache.engine.scheduling import thread_pool
from flask_stalecache.engine.scheduling.housekeeper import Housekeeper
from flask_stalecache.filesystem import uptime
from support.clock import NOON
from support.endurance import IS_SOAK
from support.grids import left_out_of_grids
from support.soak.figures import PROPERTY
from support.third_party import make_site, party, site  # noqa: F401  Fixtures of all tests of sessions.
from support.threads import let_work_end, own_threads

ROOT = Path(__file__).resolve().parents[1]

# The tests start hundreds of processes, and each would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine is no failure. Each run of ``make soak`` has examples of its own, and ``make test`` always the same.
settings.register_profile(
    "untimed",
    deadline=None,
    max_examples=200 if IS_SOAK else 20,
    derandomize=not IS_SOAK,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


#: The files that take longest, in order. ``make test`` gives whole files to a few workers: with these first, all end at about the
#: same time.
SLOWEST = (
    "live/test_servers.py",
    "live/test_dashboard.py",
    "worker/test_parent.py",
    "real_apps/test_magazine.py",
    "stores/purging/test_interrupted.py",
    "project/test_docs.py",
    "live/test_pages.py",
    "project/test_demo.py",
    "project/test_demo_hosts.py",
    "frontends/test_differ.py",
    "stores/purging/test_model.py",
    "project/test_day.py",
    "frontends/gateway/test_rules.py",
    "frontends/test_two_urls.py",
    "frontends/pages/test_hot_path.py",
    "stores/test_damage_anywhere.py",
    "frontends/gateway/flask_gateway/test_middleware.py",
    "frontends/pages/privacy/test_key.py",
    "frontends/pages/privacy/test_session_keys.py",
    "frontends/gateway/wsgi/test_protocol.py",
    "frontends/pages/privacy/test_inputs.py",
    "frontends/pages/privacy/test_exempt_inputs.py",
    "frontends/test_vary_sent.py",
    "frontends/test_secrets.py",
    "real_apps/test_other_apps.py",
    "frontends/gateway/test_machine.py",
    "live/test_fetch.py",
    "stores/upkeep/eviction/test_memory_size.py",
    "stores/upkeep/eviction/test_flood.py",
    "live/test_gateway.py",
    "project/test_news_site.py",
    "live/test_cli.py",
    "live/test_stats.py",
)

#: Those that take longest with their full counts.
SLOWEST_OF_SOAK = (
    "soak/test_kills.py",
    "soak/test_many_keys.py",
    "stores/purging/test_interrupted.py",
    "live/test_fetch_faults.py",
    "soak/test_hour.py",
    "engine/test_interrupted.py",
    "stores/purging/test_merged.py",
    "stores/purging/test_machine.py",
    "stores/shared/test_machine_of_hosts.py",
    "soak/test_day_of_hosts.py",
    "frontends/gateway/test_machine.py",
    "stores/shared/test_many_hosts.py",
    "soak/test_storm.py",
    "soak/test_holes.py",
    "live/test_floods.py",
    "stores/upkeep/eviction/test_flood.py",
    "stores/formats/test_head_values.py",
    "real_apps/test_magazine.py",
    "project/test_day.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the properties and the grids as tests of endurance too, and put the tests of the slowest files first."""
    for item in items:
        # Properties are played with many examples under ``make soak``, and grids whole.
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) or item.get_closest_marker("grid"):
            item.add_marker(pytest.mark.soak)
    if not IS_SOAK:
        left_out = left_out_of_grids(items)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    slowest = tuple(dict.fromkeys((*SLOWEST_OF_SOAK, *SLOWEST))) if IS_SOAK else SLOWEST
    order = {Path(__file__).parent / name: place for place, name in enumerate(slowest)}
    items.sort(key=lambda item: order.get(item.path, len(slowest)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the collected ids to the other workers of xdist: tests/project/test_tests.py compares them."""
    gc.collect()
    # By its type: isinstance() would make a lazy proxy of Django load its object.
    EXCEPTIONS[:] = [item for item in gc.get_objects() if issubclass(type(item), BaseException)]
    # Thousands of tests, among which no search for garbage has to look.
    gc.freeze()
    gc.enable()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        (factory.getbasetemp().parent / f"{worker}.ids").write_text("\n".join(item.nodeid for item in session.items))


#: The exceptions that modules of tests make when they are imported, for their tests to raise.
EXCEPTIONS: list[BaseException] = []


@pytest.fixture(autouse=True, scope="module")
def _forgotten_frames() -> Iterator[None]:
    """Drop the frames of these exceptions: they hold the apps of their tests, with descriptors and threads."""
    yield
    for exception in EXCEPTIONS:
        exception.__traceback__ = exception.__context__ = None


#: A file system in memory: one on a disk takes ten times as long to replace a file. ``make soak`` plays on the disk.
MEMORY = Path("/dev/shm")
#: Bytes that must be free there; the tests need a tenth.
ENOUGH = 2 << 30


def pytest_configure() -> None:
    """Handle SIGINT, and put temporary files in memory if there is room.

    A shell starts background commands with SIGINT ignored, and the servers of the tests would inherit that.
    """
    # Until all tests are collected, nothing becomes garbage.
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not IS_SOAK and "TMPDIR" not in os.environ and has_room(MEMORY):
        # For pytest, and for the browser and the other programs that tests start.
        tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables of the soak tests. It stands here, since a process that only distributes tests reads no other conftest."""
    if not IS_SOAK:
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    tables = [value for report in reports for name, value in report.user_properties if name == PROPERTY]
    if tables:
        terminalreporter.section("figures")
    for text in tables:
        terminalreporter.write_line(f"{text}\n")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave nothing in memory, unless somebody wants to look at what a test has left."""
    if not hasattr(session.config, "workerinput") and getattr(session.config.option, "numprocesses", None):
        remove_memory_of_tests()
    if exitstatus == 0 and tempfile.tempdir == str(MEMORY) and not hasattr(session.config, "workerinput"):
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        session.config.add_cleanup(lambda: shutil.rmtree(factory.getbasetemp(), ignore_errors=True))


def files_in_memory() -> set[Path]:
    """Return the files of caches in memory: each cache directory has a few, which its next processes would find."""
    return set(MEMORY.glob("stalecache-*"))


def remove_memory_of_tests() -> None:
    """Remove what the caches of all tests have left there, unless a process uses it."""
    for path in files_in_memory() - BEFORE:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


#: What was there when the tests began.
BEFORE = files_in_memory()


def has_room(folder: Path) -> bool:
    """Tell whether the tests may write to a folder, and find room enough there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize > ENOUGH


@pytest.fixture
def soak() -> Callable[[int, int], int]:
    """``soak(full, reduced)``: how often to play something; the full count under ``make soak``."""
    return lambda full, reduced: full if IS_SOAK else reduced


_folders = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own. That of pytest looks through those of all tests before, which are thousands."""
    name = re.sub(r"\W", "_", request.node.name)[:25]
    path = tmp_path_factory.getbasetemp() / f"{name}{next(_folders)}"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cache directory that does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def make_app(directory: Path) -> Callable[..., tuple[Flask, StaleCache]]:
    """``make_app(**config)``: a new app with a secret key and its cache. Config names come without ``STALECACHE_``."""

    def make(**settings: Any) -> tuple[Flask, StaleCache]:
        # Looking for a package of that name, and a route for static files, take longer than all that the cache adds.
        app = Flask("shop", root_path=str(ROOT), instance_path=str(ROOT / "instance"), static_folder=None)
        app.secret_key = "not a secret"
        app.config["STALECACHE_DIR"] = directory
        for name, value in settings.items():
            app.config[f"STALECACHE_{name}"] = value
        cache = StaleCache(app)
        return app, cache

    return make


@pytest.fixture
def clock(no_housekeeping: None) -> Iterator[time_machine.Traveller]:
    """A fake clock that stands still at :data:`support.clock.NOON`; ``clock.shift(seconds)`` moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(autouse=True, scope="module")
def _small_heap(_forgotten_frames: None) -> None:
    """Searches for garbage do not look among all that the tests of earlier modules have left with pytest."""
    # An app that a refresh still uses would never become garbage, and its housekeeping would go on through all tests.
    let_work_end()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_earlier_apps() -> None:
    """The apps of earlier tests are dropped: their threads would write to the log of this test, or meet its clock and its disk."""
    if own_threads():
        let_work_end()
        gc.collect()


@pytest.fixture(autouse=True, scope="session")
def _uptime() -> Iterator[None]:
    """Let the clock that counts from the start of the machine follow the fake clock, except in tests that use :func:`steps`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uptime, "read_clock", time.time)
        yield


@pytest.fixture(autouse=True, scope="session")
def _url_builders() -> Iterator[None]:
    """Werkzeug compiles two functions for each rule: those for a URL without variables are the same in all apps of the tests."""
    known: dict[Any, Any] = {}
    compile_builder = Rule._compile_builder

    def compile_once(rule: Rule, append_unknown: bool = True) -> Any:
        if rule._converters or rule.defaults or type(rule) is not Rule:
            return compile_builder(rule, append_unknown)
        key = (rule.rule, tuple(rule._trace), append_unknown)
        if key not in known:
            known[key] = compile_builder(rule, append_unknown)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compile_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def _idle() -> Iterator[None]:
    """Threads without work end soon: each test has an app of its own, and the threads of a hundred would be there at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thread_pool, "IDLE", 1.0)
        yield


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller) -> Callable[[float], None]:
    """``steps(seconds)`` sets the fake clock on, as an administrator would: the clock since the start of the machine stays."""
    stepped = [0.0]
    monkeypatch.setattr(uptime, "read_clock", lambda: time.time() - stepped[0])

    def step(seconds: float) -> None:
        stepped[0] += seconds
        clock.shift(seconds)

    return step


@pytest.fixture
def no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no housekeeping thread. A test plays hours in a second: to a sweep, all would seem to be left behind long ago."""
    monkeypatch.setattr(Housekeeper, "ensure_running", lambda housekeeper: None)


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``monotonic(seconds)`` moves the monotonic clock on; waits are not shortened by it."""
    real, shift = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + shift[0])

    def move(seconds: float) -> None:
        shift[0] += seconds

    return move
