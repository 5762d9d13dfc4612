"""Purging: processes that are killed, or interrupted by another, between any two steps."""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import time_machine

from flask_stalecache import StoreError
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.filesystem import locks
from flask_stalecache.filesystem.atomic import write_file
from flask_stalecache.stores import cache_directory
from flask_stalecache.stores import file_store as files_module
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_record import PurgeRecord
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from support.engine import make_entry
from support.processes import Worker
from support.purging import BETWEEN, HOUR, NEW, NEWS, OLD, begun, body_in, fresh_body_in, sweep
from support.threads import PATIENCE

# -- killed between any two steps ------------------------------------------------------------------------------------


#: The folders of the modules that are stepped through.
STORES = tuple(str(Path(module.__file__).parent) for module in (files_module, locks))

#: Functions and modules of the stores that change nothing: a kill in one of them is a kill before the next change.
READING = frozenset(
    {
        "check", "is_current", "is_whole", "_decoded", "_files", "_missing", "_path", "_read_file", "size_on_disk", "__init__",
        "__repr__", "files_in", "folder_of", "last", "on_disk", "read", "read_file", "seq", "slot_of", "store_errors", "open_file",
        "ours", "status_of",
        "base.py", "directory.py", "entry_format.py", "head_values.py", "copies.py",
        "_head_of", "decoded", "descriptors.py", "encoded", "where", "held_file.py", "file_numbers.py", "shared_memory.py",
    }
)  # fmt: skip

#: These, and functions whose changes others don't see before they have returned.
UNSEEN = READING | {"_let_go", "_try", "acquire", "held", "make_directories", "make_directory", "make", "release", "write_file"}

#: And the sweep: what it does is played in tests of its own.
NOT_OF_PURGES = UNSEEN | {"count", "listed", "sweep.py"}


#: Functions that run while a temporary file exists.
WRITING = frozenset({"write_file", "_written_beside"})


def test_what_is_passed_over_exists() -> None:
    sources = [Path(place) for folder in STORES for place in Path(folder).rglob("*.py")]
    functions = {name for source in sources for name in re.findall(r"\bdef (\w+)\(", source.read_text())}
    assert functions | {source.name for source in sources} >= NOT_OF_PURGES | WRITING


def is_played(code: CodeType, passed_over: frozenset[str]) -> bool:
    """Tell whether the lines of some code count."""
    is_of_stores = code.co_filename.startswith(STORES)
    return is_of_stores and code.co_name not in passed_over and os.path.basename(code.co_filename) not in passed_over


def is_writing(code: CodeType) -> bool:
    return code.co_filename.startswith(STORES) and code.co_name in WRITING


def dying_before(step: int, is_counted: Callable[[CodeType], bool]) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function under which this process is killed before the ``step``-th line that it runs of the stores.

    :param is_counted: tells whether the lines of some code count.
    """
    left = [step]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return trace if is_counted(frame.f_code) else None

    return enter


def killed_at(step: int, deed: Callable[[], object], is_counted: Callable[[CodeType], bool]) -> bool:
    """Do something in a fork that is killed before its ``step``-th line; return whether it had so many."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(dying_before(step, is_counted))
            deed()
            sys.settrace(None)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def unless_soaking(names: frozenset[str], soak: Callable[[int, int], int]) -> frozenset[str]:
    return names if soak(0, 1) else frozenset()


def steps(soak: Callable[[int, int], int], soft: bool) -> Iterator[int]:
    """Return which steps are played: all under ``make soak``, else every eighth; of hard and soft purges not the same ones."""
    return itertools.count(1 if soak(1, 0) or not soft else 5, soak(1, 8))


def check_no_lock_stays(store: FileStore) -> None:
    for lock in (store.lock("page"), store._cache_directory.lock("purge"), store._cache_directory.lock("sweep")):
        assert lock.acquire(), lock
        lock.release()


def check_a_purge_works(stores: list[FileStore], before: Entry, soft: bool) -> None:
    """A purge by the last store is seen by all, and hides nothing that comes later."""
    stores[-1].purge(NEWS, soft=soft)
    for store in stores:
        assert fresh_body_in(store) is None
        assert soft or body_in(store) is None
    assert stores[0].write(before) is soft
    for store in stores:
        assert fresh_body_in(store) is None
    after = begun(stores[0], OLD)
    assert stores[0].write(after)
    for store in stores:
        assert fresh_body_in(store) == OLD
        assert store.lookup("page") is not None


def play_killed_purges(directory: Path, soft: bool, passed_over: frozenset[str], stride: int) -> int:
    """Kill a purger before each of its lines; return how many there were."""
    stores, played = [FileStore(directory), FileStore(directory)], partial(is_played, passed_over=passed_over)
    killed, step = stores[0], 1
    assert stores[0].write(begun(stores[0], OLD))
    while True:
        before = begun(stores[1], BETWEEN)
        for store in stores:
            store.load("page")
        died = killed_at(step, lambda: killed.purge(NEWS, soft=soft), played)
        check_no_lock_stays(stores[1])
        everybody = [*stores, FileStore(directory)]
        for store in everybody:
            # Not acknowledged: it may have taken place or not. Nothing is torn, and others are not touched.
            assert body_in(store) in ((OLD,) if soft else (OLD, None))
        if not died:
            assert all(fresh_body_in(store) is None for store in everybody)
        check_a_purge_works(everybody, before, soft)
        if not died:
            return step
        step += stride


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purger_killed_at_any_step_harms_nobody(
    worker: Worker, directory: Path, soft: bool, soak: Callable[[int, int], int]
) -> None:
    assert worker.run(play_killed_purges, directory, soft, unless_soaking(READING, soak), soak(1, 17 if soft else 11)) > 50


def play_killed_writes(directory: Path, passed_over: frozenset[str], stride: int) -> int:
    """Kill a writer before each of its lines; return how many there were."""
    stores, step, played = [FileStore(directory), FileStore(directory)], 1, partial(is_played, passed_over=passed_over)
    while True:
        assert stores[0].write(begun(stores[0], OLD))
        for store in stores:
            assert body_in(store) == OLD
        before = begun(stores[1], BETWEEN)
        died = killed_at(step, lambda: stores[0].write(begun(stores[0], NEW)), played)
        check_no_lock_stays(stores[1])
        everybody = [*stores, FileStore(directory)]
        on_disk = {store.load("page").entry.body for store in [FileStore(directory)] if store}  # type: ignore[union-attr]
        assert on_disk <= ({OLD, NEW} if died else {NEW})
        for store in everybody:
            # Killed before the stamp: the copies that others hold live on.
            assert body_in(store) in ((OLD, NEW) if died else (NEW,))
        check_a_purge_works(everybody, before, soft=False)
        if not died:
            return step
        step += stride


@pytest.mark.soak
def test_a_writer_killed_at_any_step_harms_nobody(worker: Worker, directory: Path, soak: Callable[[int, int], int]) -> None:
    assert worker.run(play_killed_writes, directory, unless_soaking(READING, soak), soak(1, 5)) > 30


def play_killed_first_uses(place: Path, passed_over: frozenset[str], stride: int) -> int:
    """Kill a process before each line of its first use, which is a purge; return how many there were."""
    step, played = 1, partial(is_played, passed_over=passed_over)
    while True:
        directory = place / str(step)
        died = killed_at(step, lambda: FileStore(directory).purge(NEWS, soft=False), played)  # noqa: B023
        stores = [FileStore(directory), FileStore(directory)]
        before = begun(stores[0], OLD)
        assert stores[0].write(before)
        assert [body_in(store) for store in stores] == [OLD] * 2
        check_no_lock_stays(stores[1])
        check_a_purge_works(stores, before, soft=False)
        if not died:
            return step
        step += stride


@pytest.mark.soak
def test_a_process_killed_in_its_first_use_leaves_a_directory_that_works(
    worker: Worker, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    worker.start(play_killed_first_uses, tmp_path, unless_soaking(READING, soak), soak(5, 47))
    # Thousands of processes, in a soak test.
    assert worker.result(soak(20, 3) * PATIENCE) > 80


def leave_a_temporary_file(directory: Path, deed: Callable[[FileStore], object]) -> list[str]:
    """Kill a process while it has a temporary file; return the names of the files that it has left."""
    store, step, others = FileStore(directory), 0, set(directory.rglob("*.tmp"))
    while not (left := set(directory.rglob("*.tmp")) - others):
        step += 1
        assert killed_at(step, lambda: deed(store), is_writing), "it left none"
    return [path.name for path in left]


def kill_all_who_write(directory: Path) -> int:
    deeds: list[Callable[[FileStore], object]] = [
        lambda store: store.write(begun(store, NEW)),
        # First it notes its number, and then the record.
        lambda store: store.purge(NEWS, soft=False),
        lambda store: store.load("page") and store._records.write(PurgeRecord(NEWS, hard=1)),
        lambda store: write_file(directory / "sweep", b"{}", 0),
        lambda store: Stamps(directory / FILE_NAME),
    ]
    left = []
    for deed in deeds:
        (directory / FILE_NAME).unlink(missing_ok=True)
        left += leave_a_temporary_file(directory, deed)
    return len(left)


def test_what_killed_processes_left_is_swept_away(worker: Worker, directory: Path, clock: time_machine.Traveller) -> None:
    """The temporary files of writers, of purgers and of sweepers, wherever they are."""
    FileStore(directory).write(make_entry())
    assert worker.run(kill_all_who_write, directory) == 5
    # The files have the real clock's times.
    clock.move_to(max(path.stat().st_mtime for path in directory.rglob("*.tmp")) + 2 * HOUR)
    sweep(FileStore(directory), clock)
    assert list(directory.rglob("*.tmp")) == []


# -- something else between any two steps ------------------------------------------------------------------------------


def interrupted(step: int, deed: Callable[[], object], interloper: Callable[[], object], passed_over: frozenset[str]) -> bool:
    """Do something, and something else before the ``step``-th line of the stores that it runs; return whether it had so many."""
    left, before = [step], sys.gettrace()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                interloper()
        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return trace if is_played(frame.f_code, passed_over) else None

    sys.settrace(enter)
    try:
        deed()
    finally:
        sys.settrace(before)
    return left[0] <= 0


@dataclass
class Scene:
    """Two processes' views of one page; the page is purged in the course of things.

    :ivar before: an entry that was begun before that, and is not yet written.
    """

    mine: FileStore
    other: FileStore
    soft: bool
    before: Entry = field(init=False)

    def set(self) -> None:
        """Let the page be stored, and loaded by both."""
        assert self.mine.write(begun(self.mine, OLD))
        for store in (self.mine, self.other):
            store.load("page")
        self.before = begun(self.mine, BETWEEN)

    def check(self) -> None:
        for store in (self.mine, self.other, FileStore(self.mine.directory)):
            assert fresh_body_in(store) is None
            assert self.soft or body_in(store) is None
        for store in (self.mine, self.other):
            store.load("page")
            assert fresh_body_in(store) is None


def lose_the_table_and_purge(scene: Scene) -> None:
    (scene.other.directory / FILE_NAME).unlink()
    scene.other.purge(NEWS, soft=scene.soft)


def forget_and_load(scene: Scene) -> None:
    scene.other.forget()
    scene.other.load("page")


#: What is done, and what comes between two of its steps; one of them is the purge.
SCENES: dict[str, tuple[Callable[[Scene], object], Callable[[Scene], object]]] = {
    "a purge, and somebody looks": (lambda it: it.mine.purge(NEWS, soft=it.soft), lambda it: body_in(it.other)),
    "a purge, and somebody loads": (lambda it: it.mine.purge(NEWS, soft=it.soft), forget_and_load),
    "a purge, and an older fill is written": (lambda it: it.mine.purge(NEWS, soft=it.soft), lambda it: it.other.write(it.before)),
    "a purge, and a new process opens the directory": (
        lambda it: it.mine.purge(NEWS, soft=it.soft),
        lambda it: FileStore(it.mine.directory).seq(),
    ),
    "a look, and a purge": (lambda it: body_in(it.mine), lambda it: it.other.purge(NEWS, soft=it.soft)),
    "a load, and a purge": (lambda it: it.mine.load("page"), lambda it: it.other.purge(NEWS, soft=it.soft)),
    "a write of an older fill, and a purge": (lambda it: it.mine.write(it.before), lambda it: it.other.purge(NEWS, soft=it.soft)),
}


@pytest.mark.grid
@pytest.mark.parametrize(("deed", "interloper"), SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_whatever_comes_between_any_two_steps_the_purge_wins(
    directory: Path,
    soft: bool,
    deed: Callable[[Scene], object],
    interloper: Callable[[Scene], object],
    soak: Callable[[int, int], int],
) -> None:
    scene, skip = Scene(FileStore(directory), FileStore(directory), soft), unless_soaking(UNSEEN, soak)
    for step in steps(soak, soft):
        scene.set()
        if not interrupted(step, lambda: deed(scene), lambda: interloper(scene), skip):
            break
        scene.check()
    assert step > 5


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("deed", ["load", "tick", "write"])
def test_a_table_that_is_lost_between_any_two_steps_hides_no_purge(
    directory: Path, soft: bool, deed: str, soak: Callable[[int, int], int]
) -> None:
    """A process that has not noticed the loss may serve older copies until it does, and no longer."""
    scene, skip = Scene(FileStore(directory), FileStore(directory), soft), unless_soaking(NOT_OF_PURGES, soak) | {"_sweep"}
    deeds: dict[str, Callable[[], object]] = {
        "load": lambda: scene.mine.load("page"),
        "tick": lambda: scene.mine.tick(),
        "write": lambda: scene.mine.write(scene.before),
    }
    for step in steps(soak, soft):
        scene.set()
        if not interrupted(step, deeds[deed], lambda: lose_the_table_and_purge(scene), skip):
            break
        scene.mine.tick()
        scene.check()
    assert step > 5


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_of_two_purges_of_one_name_both_count(
    directory: Path, monkeypatch: pytest.MonkeyPatch, soft: bool, soak: Callable[[int, int], int]
) -> None:
    """One comes in the middle of the other: what was begun just before it is purged, whether it can have the lock or not."""
    monkeypatch.setattr(cache_directory, "_TRIES", 1)
    mine, other = FileStore(directory), FileStore(directory)
    skip = unless_soaking(UNSEEN, soak)
    for step in steps(soak, soft):
        both: list[Entry] = []

        def purge(both: list[Entry] = both) -> None:
            both.append(begun(other, BETWEEN))
            other.purge(NEWS, soft=soft)

        if not interrupted(step, lambda: mine.purge(NEWS, soft=soft), purge, skip):
            break
        for entry in both:
            assert mine.write(entry) is soft
            assert [fresh_body_in(store) for store in (mine, other, FileStore(directory))] == [None] * 3
    assert step > 10


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_while_a_process_maps_a_new_table_is_not_missed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, soft: bool, soak: Callable[[int, int], int]
) -> None:
    monkeypatch.setattr(cache_directory, "_TRIES", 1)
    scene, skip = Scene(FileStore(directory), FileStore(directory), soft), unless_soaking(NOT_OF_PURGES, soak) | {"_sweep"}
    purged: list[bool] = []

    def purge() -> None:
        with suppress(StoreError):
            # It fails while the other process is joining the table; such a step is not checked.
            scene.other.purge(NEWS, soft=soft)
            purged.append(True)

    for step in steps(soak, soft):
        scene.set()
        (directory / FILE_NAME).unlink()
        purged.clear()
        if not interrupted(step, scene.mine.tick, purge, skip):
            break
        if purged:
            scene.check()
    assert step > 10
