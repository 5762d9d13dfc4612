"""Purges while a process that was stopped holds ``purge.lock``: nobody waits for it, and no purge is lost.

Covers ``stores.purges.waiting_purges`` and ``stores.purger``.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import Policy
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.stores import cache_directory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_record import Purge
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.purges.waiting_purges import SEQ_STEPS, WaitingPurges, records_of
from flask_stalecache.stores.table import table_file
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from support.client import MakeApp, visit
from support.engine import make_entry
from support.purging import DAY, NAMES, NEW, NEWS, OLD, SPORT, body_in, fresh_body_in, sweep
from support.stopped_purge import StoppedPurge

WINDOWS = (30 * DAY, 30 * DAY, 0)


def fill(store: FileStore, body: bytes = OLD, names: tuple[str, ...] = NAMES, key: str = "page") -> bool:
    return store.write(make_entry(key, body, windows=WINDOWS, names=names, seq=store.seq()))


#: Where a process is stopped in the middle of its purge.
STEPS: dict[str, tuple[Any, str]] = {
    "before the number": (PurgeRecords, "note_number"),
    "before SEQ is raised": (Stamps, "raise_seq"),
    "before the record is written": (PurgeRecords, "write"),
    "before the stamps are moved": (Stamps, "move"),
}


@contextmanager
def stopped(directory: Path, step: str, *, soft: bool = False) -> Iterator[int]:
    """Run with a process that was stopped in the middle of a purge of the news."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            owner, name = STEPS[step]
            function = getattr(owner, name)

            def stop(*args: Any, **more: Any) -> Any:
                setattr(owner, name, function)
                os.kill(os.getpid(), signal.SIGSTOP)
                return function(*args, **more)

            store = FileStore(directory)
            store.load("page")
            setattr(owner, name, stop)
            store.purge(NEWS, soft=soft)
        os._exit(0)
    try:
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield pid
    finally:
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the stores have slept."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if sys._getframe(1).f_globals["__name__"].startswith(("flask_stalecache.stores", "flask_stalecache.filesystem")):
            slept.append(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    return slept


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_directory, "_TRIES", 1)


@contextmanager
def stopped_at_opening(directory: Path) -> Iterator[int]:
    """Run with a process that was stopped while it had locked the file of the table exclusively."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            joined = table_file._Opening._joined

            def stop(*args: Any, **more: Any) -> Any:
                table_file._Opening._joined = joined  # type: ignore[method-assign]
                os.kill(os.getpid(), signal.SIGSTOP)
                return joined(*args, **more)

            table_file._Opening._joined = stop  # type: ignore[method-assign]
            store = FileStore(directory)
            store.load("page")
            # What it stores now was begun after the purges.
            assert fill(store, b"by the one that was stopped", ("all", SPORT), "late")
            os._exit(0 if body_in(store) is None else 7)
        os._exit(1)
    try:
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield pid
    finally:
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.grid
@pytest.mark.parametrize("how", ["goes on", "is killed"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_while_another_process_was_stopped_as_it_opened_the_table(
    directory: Path, waits: list[float], soft: bool, how: str
) -> None:
    """No process can use the table then, so all look into the records."""
    store = FileStore(directory)
    fill(store)
    fill(store, names=("all", SPORT), key="sport")
    del store
    gc.collect()
    with stopped_at_opening(directory) as pid:
        new = FileStore(directory)
        assert [body_in(new, key) for key in ("page", "sport")] == [OLD] * 2
        new.purge(NEWS, soft=False)
        new.purge(SPORT, soft=soft)
        assert sum(waits) <= 1
        for each in (new, FileStore(directory)):
            assert body_in(each) is None
            assert fresh_body_in(each, "sport") is None
        if how == "goes on":
            go_on(pid)
    for each in (new, FileStore(directory)):
        each.tick()
        assert body_in(each) is None
        assert fresh_body_in(each, "sport") is None
        assert body_in(each, "late") == (b"by the one that was stopped" if how == "goes on" else None)
    assert fill(new, NEW)
    assert [fresh_body_in(each) for each in (new, FileStore(directory))] == [NEW] * 2
    new.purge(NEWS, soft=False)
    assert body_in(FileStore(directory)) is None


@pytest.mark.parametrize("step", STEPS)
def test_a_new_worker_waits_for_nobody(directory: Path, waits: list[float], step: str) -> None:
    store = FileStore(directory)
    fill(store)
    fill(store, names=("all", SPORT), key="sport")
    with stopped(directory, step):
        new = FileStore(directory)
        assert [body_in(new, "sport") for _ in range(3)] == [OLD] * 3
        assert fill(new, NEW, ("all", SPORT), "other")
        assert body_in(store, "other") == NEW
        new.tick()
    assert waits == []


@pytest.mark.grid
@pytest.mark.parametrize("how", ["goes on", "is killed"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("by", ["new worker", "old worker"])
@pytest.mark.parametrize("step", STEPS)
def test_a_purge_waits_for_nobody_and_is_not_lost(
    directory: Path, short: None, waits: list[float], step: str, by: str, soft: bool, how: str
) -> None:
    store, names = FileStore(directory), (*NAMES, SPORT)
    fill(store, names=names)
    assert body_in(store) == OLD
    with stopped(directory, step) as pid:
        purger = FileStore(directory) if by == "new worker" else store
        before = make_entry(body=OLD, windows=WINDOWS, names=names, seq=purger.seq())
        purger.purge(SPORT, soft=soft)
        for each in (store, purger, FileStore(directory)):
            assert fresh_body_in(each) is None
        store.write(before)
        for each in (store, purger, FileStore(directory)):
            assert fresh_body_in(each) is None
        assert fill(purger, NEW, names)
        for each in (store, purger, FileStore(directory)):
            assert fresh_body_in(each) == NEW
        if how == "goes on":
            go_on(pid)
    # The purge that was stopped comes now, or did not take place.
    store.write(before)
    for each in (store, purger, FileStore(directory)):
        each.tick()
        assert body_in(each) != OLD or fresh_body_in(each) is None
    store.write(before)
    assert {path.name for path in (directory / "names").iterdir()}.isdisjoint({"waiting", "adopted"})
    for each in (store, purger, FileStore(directory)):
        assert fresh_body_in(each) != OLD
    assert waits == []


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_of_two_purges_of_one_name_the_one_that_was_stopped_hides_no_other(directory: Path, short: None, soft: bool) -> None:
    """It has read the record before the other one, and writes it afterwards."""
    store = FileStore(directory)
    fill(store)
    with stopped(directory, "before the record is written", soft=soft) as pid:
        between = make_entry(body=OLD, windows=WINDOWS, names=NAMES, seq=store.seq())
        store.purge(NEWS, soft=soft)
        go_on(pid)
    store.write(between)
    assert [fresh_body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    store.tick()
    store.write(between)
    assert [fresh_body_in(each) for each in (store, FileStore(directory))] == [None] * 2


def test_a_post_through_the_gateway(make_app: MakeApp, directory: Path, short: None, waits: list[float]) -> None:
    """In a worker that was there before, and in a new one."""
    pages: list[int] = []

    def shop() -> Any:
        app, _ = make_app(GATEWAY=[("/*", Policy(max_age=60, stale_while_revalidate=600, stale_if_error=600))])

        @app.route("/prices", methods=["GET", "POST"])
        def prices() -> str:
            pages.append(1)
            return f"{len(pages)}"

        return app

    old = shop()
    assert visit(old, "/prices").page == ("MISS", "1")
    with stopped(directory, "before the record is written"):
        new = shop()
        assert [visit(app, "/prices").page for app in (new, old)] == [("HIT", "1")] * 2
        for poster in (old, new):
            number = len(pages)
            visit(poster, "/prices", method="POST")
            seen = [visit(app, "/prices").page for app in (old, new, old, new)]
            assert seen == [("MISS", str(number + 2)), *[("HIT", str(number + 2))] * 3]
    assert waits == []


def test_one_log_line_says_so(
    directory: Path,
    short: None,
    caplog: pytest.LogCaptureFixture,
    monotonic: Callable[[float], None],
) -> None:
    caplog.set_level(logging.WARNING, "flask_stalecache")
    store = FileStore(directory)
    fill(store)
    with stopped(directory, "before the record is written"):
        for _ in range(5):
            store.purge(SPORT, soft=False)
            store.tick()
            monotonic(2.0)
    assert len(caplog.messages) == 1
    assert "it may have been stopped in the middle of a purge" in caplog.messages[0]
    store.tick()
    assert not (directory / "names" / "waiting").exists()


def test_a_purge_waits_for_another_one_that_is_running(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = FileStore(directory), FileStore(directory)
    fill(store)
    lock = other._cache_directory.take_purge_lock()
    assert lock is not None
    held = lock
    monkeypatch.setattr(time, "sleep", lambda seconds: held.release())
    store.purge(NEWS, soft=False)
    assert not (directory / "names" / "waiting").exists()
    assert body_in(other) is None


def test_a_sweep_knows_the_purges_that_wait(directory: Path, short: None, clock: time_machine.Traveller) -> None:
    store = FileStore(directory)
    fill(store)
    with stopped(directory, "before the record is written"):
        store.purge(SPORT, soft=False)
        fill(store, names=("all", SPORT), key="sport")
        assert store.sweep()["bytes"] == 0
        store.purge(SPORT, soft=False)
        assert store.sweep()["removed_purged"] == 1
        sweep(store, clock)


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> WaitingPurges:
    held = Directory(tmp_path)
    held.hold()
    return WaitingPurges(held, 1000)


def purge_of(number: int, *names: str, soft: bool = False) -> Purge:
    return Purge(names, number, soft, 1000.0 + number)


def test_what_was_appended_is_read_until_it_is_adopted(waiting: WaitingPurges) -> None:
    assert (waiting.exist(), waiting.read()) == (False, [])
    purges = [purge_of(1, NEWS), purge_of(2, SPORT, NEWS, soft=True)]
    for purge in purges:
        waiting.append(purge)
    assert (waiting.exist(), waiting.read()) == (True, purges)
    assert waiting.adopt() == purges
    assert (waiting.exist(), waiting.read()) == (True, purges)
    waiting.append(purge_of(3, NEWS))
    # Its adopter was killed.
    assert waiting.adopt() == purges
    waiting.forget_adopted()
    assert waiting.adopt() == [purge_of(3, NEWS)]
    waiting.forget_adopted()
    assert (waiting.exist(), waiting.read()) == (False, [])


def test_a_line_that_comes_while_the_file_is_renamed_is_appended_again(
    waiting: WaitingPurges, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.append(purge_of(1, NEWS))
    write, adopted = os.write, list[Purge]()

    def late(descriptor: int, data: bytes) -> int:
        if not adopted:
            adopted.extend(waiting.adopt())
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", late)
    waiting.append(purge_of(2, SPORT))
    assert adopted == [purge_of(1, NEWS)]
    waiting.forget_adopted()
    assert waiting.read() == [purge_of(2, SPORT)]


@pytest.mark.parametrize(
    "damage",
    [b"nonsense", b"[[[", b'{"names": "all"}', b"[" * 100_000, b"\xff\0"],
    ids=["text", "cut", "of a type", "deep", "binary"],
)
def test_a_line_that_makes_no_sense_purges_everything(waiting: WaitingPurges, tmp_path: Path, damage: bytes) -> None:
    waiting.append(purge_of(7, NEWS))
    with (tmp_path / "names" / "waiting").open("ab") as file:
        file.write(b"\n" + damage + b"\n")
    (record,) = [record for record in records_of(waiting.read(), ("tag:other",)) if record.hard]
    assert record.hard > time.time_ns()


def test_a_line_that_is_being_written_is_none_yet(waiting: WaitingPurges, tmp_path: Path) -> None:
    waiting.append(purge_of(7, NEWS))
    with (tmp_path / "names" / "waiting").open("ab") as file:
        file.write(b'\n{"names": ["tag:')
    assert waiting.read() == [purge_of(7, NEWS)]
    # Nobody goes on writing to a file that was adopted, so half a line counts as a line.
    assert len(waiting.adopt()) == 2


def test_a_file_that_has_become_too_long_purges_everything(waiting: WaitingPurges, tmp_path: Path) -> None:
    for number in range(1, 101):
        waiting.append(purge_of(number, f"url:http://shop.example/{number}"))
        assert (tmp_path / "names" / "waiting").stat().st_size < 1200
    for number in range(1, 101):
        found = records_of(waiting.read(), (f"url:http://shop.example/{number}",))
        assert max(record.hard for record in found) >= number


@pytest.mark.parametrize("purges", [1, 3])
def test_numbers_do_not_go_back_if_the_table_is_lost_before_they_are_records(
    directory: Path, short: None, waits: list[float], clock: time_machine.Traveller, purges: int
) -> None:
    """A purge without the lock raises SEQ by random steps, and an entry that is begun then has that number."""
    store = FileStore(directory)
    fill(store, names=("all", SPORT), key="other")
    with stopped(directory, "before the number"):
        for _ in range(purges):
            store.purge(NEWS, soft=False)
        last = store.seq()
        assert fill(store, NEW)
        (directory / FILE_NAME).unlink()
        # So that the next number is not made from a later time.
        clock.shift(-3600)
        new = FileStore(directory)
        assert body_in(new) == NEW
        new.purge(NEWS, soft=False)
        assert new.seq() > last
        assert [body_in(each) for each in (new, FileStore(directory))] == [None] * 2


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_numbers_do_not_go_back_if_the_table_is_lost_after_they_are_records(
    directory: Path, short: None, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller, when: str
) -> None:
    """A purge without the lock raises SEQ at its end, and another process may make a record of it before that."""
    store, other = FileStore(directory), FileStore(directory)
    fill(store)
    other.load("page")
    lock = other._cache_directory.lock("purge")
    assert lock.acquire()
    append, forget = WaitingPurges.append, WaitingPurges.forget_adopted

    def append_and_adopt(waiting: WaitingPurges, purge: Purge) -> None:
        append(waiting, purge)
        lock.release()
        other.tick()

    def end_purge_and_forget(waiting: WaitingPurges) -> None:
        stamps = other._cache_directory.stamps
        assert stamps is not None
        stamps.raise_seq(store.seq() + SEQ_STEPS)
        forget(waiting)

    if when == "before":
        monkeypatch.setattr(WaitingPurges, "append", append_and_adopt)
    else:
        monkeypatch.setattr(WaitingPurges, "forget_adopted", end_purge_and_forget)
    store.purge(NEWS, soft=False)
    lock.release()
    other.tick()
    monkeypatch.undo()
    last = store.seq()
    assert fill(store, NEW)
    (directory / FILE_NAME).unlink()
    # So that the next number is not made from a later time.
    clock.shift(-3600)
    new = FileStore(directory)
    assert body_in(new) == NEW
    new.purge(NEWS, soft=False)
    assert new.seq() > last
    assert [body_in(each) for each in (new, FileStore(directory))] == [None] * 2


def test_what_waits_becomes_records_in_the_order_of_the_numbers(directory: Path) -> None:
    """A purge with a lower number may come later."""
    store = FileStore(directory)
    store.load("page")
    records = store._records
    records.write(records.read(NEWS).purged(50, 50.0, soft=False).purged(60, 60.0, soft=True))
    for purge in (purge_of(55, NEWS, soft=True), purge_of(40, NEWS)):
        records.waiting.append(purge)
    records.adopt_waiting()
    assert (records.read(NEWS).hard, records.read(NEWS).softs) == (50, ((55, 1055.0), (60, 60.0)))


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])
def test_a_purge_that_was_stopped_at_its_last_step_ends_what_was_begun_meanwhile(directory: Path, soft: bool) -> None:
    """A purge without the lock has raised SEQ in between, so that what is begun then seems to be newer than both."""
    store = FileStore(directory)
    store.load("page")
    one = StoppedPurge(directory, NEWS, "raise_seq", soft=soft)
    store.purge(NEWS, soft=False)
    assert fill(store)
    assert fresh_body_in(store) == OLD
    assert one.end(is_killed=False)
    assert fresh_body_in(store) is None
    assert body_in(store) == (OLD if soft else None)


def test_a_sweep_by_a_worker_without_the_last_purge_reaches_the_copies_of_others(
    directory: Path, clock: time_machine.Traveller
) -> None:
    """Its table is behind as long as a stopped process has the lock, and it removes what is past its stale windows all the same."""
    old = FileStore(directory)
    old.load("page")
    one = StoppedPurge(directory, NEWS, "note_number", soft=False)
    assert fill(old, names=("all",))
    old.load("page")
    old.purge(SPORT, soft=False)
    clock.shift(90 * DAY)
    new = FileStore(directory)
    new.load("another")
    new.sweep()
    assert old.lookup("page") is None
    assert body_in(old) is None
    one.end(is_killed=True)
