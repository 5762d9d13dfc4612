"""Files in which processes count: each its own, none lost, none shared by two. Covers ``stats.counter_file``."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.model.reasons import BypassReason
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.filesystem import shared_memory
from flask_stalecache.stats import counter_file
from flask_stalecache.stats import registry as ledger_module
from flask_stalecache.stats.counter_file import LABELS, OTHERS, SIZE, read_files
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stats.schema import Stats
from flask_stalecache.stats.tally import KINDS, PLAIN, STATUSES, Tally
from support.processes import Worker, forked, workers

NOTHING = dict.fromkeys(STATUSES, 0)
HOUR = 3600


def make_ledger(directory: Path) -> Registry:
    return Registry(Counters(), directory)


def read(registry: Registry) -> Stats:
    return registry.read(0, 0, None)


def hits(stats: Stats, label: str = "news") -> int:
    return stats["endpoints"][label]["requests"]["HIT"]


def hit(registry: Registry, times: int = 1, label: str = "news") -> Tally:
    tally = registry.tally("endpoint", label)
    for _ in range(times):
        tally.cells[PLAIN] += 1
    return tally


def files(directory: Path) -> list[str]:
    folder = directory / "stats"
    beside = {"history", "history.lock", "totals"}
    return sorted({path.name for path in folder.iterdir()} - beside) if folder.is_dir() else []


# -- a file of its own -----------------------------------------------------------------------------------------------


def test_nothing_is_made_before_something_is_counted(directory: Path) -> None:
    registry = make_ledger(directory)
    registry.tick()
    stats = read(registry)
    assert not directory.exists()
    assert (stats["workers"], stats["requests"], stats["endpoints"]) == (0, NOTHING, {})


def test_a_file_is_whole_and_ours_alone(directory: Path) -> None:
    hit(make_ledger(directory))
    folder = directory / "stats"
    status = (folder / "0").stat()
    assert files(directory) == ["0"]
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (SIZE, 0o600)
    assert status.st_blocks * 512 >= SIZE
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, folder)] == [0o700, 0o700]


def test_each_app_has_its_own_and_all_are_added_up(directory: Path) -> None:
    one, other = make_ledger(directory), make_ledger(directory)
    hit(one, 2)
    hit(other, 3)
    hit(other, 1, "shop")
    assert files(directory) == ["0", "1"]
    for registry in (one, other):
        stats = read(registry)
        assert (hits(stats), hits(stats, "shop"), stats["requests"]["HIT"], stats["workers"]) == (5, 1, 6, 2)


def test_two_threads_that_are_first_at_a_label_count_it_once(directory: Path) -> None:
    registry = make_ledger(directory)
    hit(registry, 1, "another")
    # The second thread has found no tally either, and makes one, although the first has made it meanwhile.
    one, other = hit(registry, 5), registry._new_tally("endpoint", "news")
    assert one is other
    assert hits(read(registry)) == 5


def test_without_a_directory_the_numbers_are_those_of_this_process() -> None:
    registry = Registry(Counters())
    hit(registry, 3)
    registry.counters.count("purges")
    stats = read(registry)
    assert (hits(stats), stats["purges"], stats["workers"]) == (3, 1, 1)


def test_named_counts_are_added_up_too(directory: Path) -> None:
    one, other = make_ledger(directory), make_ledger(directory)
    one.counters.count("purges")
    other.counters.count("purges", 2)
    other.counters.count("evicted_for_size")
    other.counters.count("of no meaning")
    stats = read(one)
    assert (stats["purges"], stats["evictions"]["size"]) == (3, 1)
    assert (one.counters["purges"], other.counters["purges"], other.counters["of no meaning"]) == (1, 2, 1)


# -- processes -------------------------------------------------------------------------------------------------------

_ledgers: dict[Path, Registry] = {}


def count_there(directory: Path, times: int, pending: int | None = None) -> list[str]:
    """Count in this process, which stays alive, and return the names of the files."""
    registry = _ledgers.setdefault(directory, make_ledger(directory))
    hit(registry, times)
    registry.counters.count("purges")
    if pending is not None:
        registry.gauge("refreshes_pending", pending)
    return files(directory)


def test_what_a_killed_process_has_counted_stays_and_the_next_one_goes_on(directory: Path) -> None:
    reader = make_ledger(directory)
    with workers(2) as (one, other):
        one.run(count_there, directory, 5, 7)
        assert other.run(count_there, directory, 10, 1) == ["0", "1"]
        stats = read(reader)
        assert (hits(stats), stats["purges"], stats["workers"], stats["refreshes"]["pending"]) == (15, 2, 2, 8)
        one.kill()
        stats = read(reader)
        assert (hits(stats), stats["purges"], stats["workers"], stats["refreshes"]["pending"]) == (15, 2, 1, 1)
        with workers(1) as (third,):
            assert third.run(count_there, directory, 100) == ["0", "1"]
            stats = read(reader)
            assert (hits(stats), stats["purges"], stats["workers"], stats["refreshes"]["pending"]) == (115, 3, 2, 1)
    assert hits(read(reader)) == 115


def count_in_a_fork(directory: Path) -> tuple[int, int, int, list[str], int]:
    """Count before a fork, in the child, and afterwards in the parent, always through the tally that the parent has made.

    :returns: the child's hits before it has a file; all hits as read by the child, before and after it has a file; the files; ten
        times all hits at the end, plus the number of workers after the child has ended.
    """
    registry = make_ledger(directory)
    tally = hit(registry, 5)

    def child() -> tuple[int, int, int]:
        tally.cells[PLAIN] += 1
        alone, before = tally.cells[PLAIN], hits(read(registry))
        registry.open()
        tally.cells[PLAIN] += 1
        return alone, before, hits(read(registry))

    alone, before, after = forked(child)
    # The child has closed its descriptor of the parent's file, and the parent still holds the lock.
    workers_left = read(registry)["workers"]
    tally.cells[PLAIN] += 1
    return alone, before, after, files(directory), hits(read(registry)) * 10 + workers_left


def test_a_fork_counts_in_its_own(directory: Path) -> None:
    with workers(1) as (worker,):
        # The parent's 5; the child's hits, first in memory, then in its own file; one more of the parent: 8 hits, and 1 worker.
        assert worker.run(count_in_a_fork, directory) == (1, 6, 7, ["0", "1"], 81)


def see_fork_by_pid(directory: Path) -> tuple[int, list[str]]:
    """Count in the child of a fork for which Python's hooks did not run, as in a server in C."""
    registry = make_ledger(directory)
    tally = hit(registry, 5)
    ledger_module._registries.discard(registry)

    def child() -> tuple[int, list[str]]:
        registry.open()
        tally.cells[PLAIN] += 1
        return tally.cells[PLAIN], files(directory)

    return forked(child)


def test_a_fork_is_seen_by_the_pid_too(directory: Path) -> None:
    with workers(1) as (worker,):
        assert worker.run(see_fork_by_pid, directory) == (1, ["0", "1"])


def hammer(directory: Path, times: int) -> int:
    registry = make_ledger(directory)
    hit(registry, times)
    return times


def test_processes_that_come_and_go_lose_nothing(directory: Path) -> None:
    total, reader = 0, make_ledger(directory)
    for _ in range(2):
        with workers(2) as made:
            for worker in made:
                worker.start(hammer, directory, 1000)
            while not all(worker._pipe.poll(0.001) for worker in made):
                # A reader locks each file for a moment, which must not make the workers use ever more files.
                read(reader)
            total += sum(worker.result() for worker in made)
    assert hits(read(reader)) == total == 4000
    assert len(files(directory)) <= 3


def test_who_only_looks_whether_a_file_is_held_makes_nobody_take_a_new_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_ledger(directory)
    hit(registry, 5)
    registry._reset()
    with (directory / "stats" / "0").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(file, fcntl.LOCK_UN))
        hit(make_ledger(directory))
    assert files(directory) == ["0"]


def leave_half_a_file(directory: Path) -> None:
    """Get killed after a new file is made and before it has its name."""
    registry = make_ledger(directory)
    os.link = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
    hit(registry)


def test_what_a_killed_maker_has_left_is_removed(directory: Path) -> None:
    worker = Worker()
    worker.start(leave_half_a_file, directory)
    worker.process.wait(30)
    worker.close()
    assert [name[-4:] for name in files(directory)] == [".tmp"]
    hit(make_ledger(directory))
    assert files(directory) == ["0"]


def test_a_maker_whose_file_another_one_takes_for_left_behind_makes_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, takes = fcntl.flock, [1, 1, 1]

    def flock(descriptor: int, operation: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.suffix == ".tmp" and takes:
            takes.pop()
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    hit(make_ledger(directory), 2)
    assert takes == []
    assert files(directory) == ["0"]
    assert hits(read(make_ledger(directory))) == 2


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_bounded(directory: Path) -> None:
    registry = make_ledger(directory)
    for number in range(LABELS + 30):
        registry.tally("host", f"host-{number}.example").asked(0.0, failed=False)
    hit(registry)
    stats = read(registry)
    assert len(stats["hosts"]) == LABELS + 1
    assert stats["hosts"][OTHERS]["origin_calls"] == 30
    assert hits(stats, OTHERS) == 1
    assert stats["origin_calls"] == LABELS + 30


def test_labels_of_those_before_count_too(directory: Path) -> None:
    registry = make_ledger(directory)
    for number in range(LABELS):
        hit(registry, 1, f"old-{number}")
    registry._reset()
    del registry
    another = make_ledger(directory)
    hit(another, 1, "old-7")
    hit(another, 1, "new")
    stats = read(another)
    assert files(directory) == ["0"]
    assert (hits(stats, "old-7"), hits(stats, OTHERS), "new" in stats["endpoints"]) == (2, 1, False)


@pytest.mark.parametrize("label", ["", "shop.rates", "straße.münze", "x" * 120, "(others)"])
def test_a_label_is_found_again(directory: Path, label: str) -> None:
    hit(make_ledger(directory), 1, label)
    assert [*read(make_ledger(directory))["endpoints"]] == [label]


@pytest.mark.parametrize("label", ["a" * 10 + "x" * 120, "ü" * 100])
def test_a_label_that_is_too_long_keeps_its_end(directory: Path, label: str) -> None:
    registry = make_ledger(directory)
    hit(registry, 1, label)
    [known] = read(registry)["endpoints"]
    assert label.endswith(known)
    assert 100 < len(known.encode()) <= 120


def test_one_name_of_three_kinds_is_three(directory: Path) -> None:
    registry = make_ledger(directory)
    for count, kind in enumerate(KINDS, 1):
        for _ in range(count):
            registry.tally(kind, "shop").asked(0.0, failed=False)
    stats = read(registry)
    assert [stats[part]["shop"]["origin_calls"] for part in ("endpoints", "functions", "hosts")] == [1, 2, 3]


# -- files that can't be made, and files that are not what they should be -------------------------------------------


def fill_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let each write end half-way, until the returned function is called."""
    full = [True]
    real = os.pwrite

    def write(descriptor: int, data: bytes, offset: int) -> int:
        return real(descriptor, data[: len(data) // 2] if full else data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    return full.clear


def test_on_a_full_disk_it_counts_in_memory_and_goes_on_in_a_file_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, monotonic: Callable[[float], None]
) -> None:
    monkeypatch.setattr(ledger_module, "_PAUSE", HOUR)
    free = fill_up(monkeypatch)
    registry = make_ledger(directory)
    with caplog.at_level(logging.WARNING):
        tally = hit(registry, 3)
        registry.counters.count("purges")
        for _ in range(3):
            monotonic(HOUR)
            registry.tick()
    stats = read(registry)
    assert (hits(stats), stats["purges"], stats["workers"], files(directory)) == (3, 1, 1, [])
    assert stats["store_failures"] == 4
    assert [record.getMessage()[:44] for record in caplog.records] == ["requests are counted in this process alone, "]
    free()
    registry.open()
    assert files(directory) == []
    monotonic(HOUR)
    registry.tick()
    tally.cells[PLAIN] += 1
    assert files(directory) == ["0"]
    stats = read(make_ledger(directory))
    assert (hits(stats), stats["purges"], stats["store_failures"], stats["workers"]) == (4, 1, 4, 1)


def no_memory(size: int) -> Any:
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def test_without_shared_memory_the_files_have_the_counts_once_they_were_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "make", no_memory)
    one, other = make_ledger(directory), make_ledger(directory)
    hit(one, 5)
    hit(other, 10)
    assert [hits(read(registry)) for registry in (one, other)] == [15, 15]
    hit(one, 1)
    one.tick()
    one._reset()
    assert hits(read(other)) == 16


def test_a_file_that_is_emptied_ends_nobody(directory: Path) -> None:
    registry = make_ledger(directory)
    hit(registry, 5)
    os.truncate(directory / "stats" / "0", 0)
    hit(registry, 5)
    registry.tick()
    hit(registry, 2)
    assert hits(read(registry)) == 2


def test_a_directory_that_is_refused_is_not_touched(directory: Path) -> None:
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    from flask_stalecache import FileStore
    from flask_stalecache.frontends.setup.engine_setup import make_registry

    registry = make_registry(FileStore(directory), Counters())
    hit(registry)
    assert [*directory.iterdir()] == []
    assert hits(read(registry)) == 1


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def of_another_version(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x63")


def a_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("damage", [cut, of_another_version, a_link])
def test_a_file_that_is_not_whole_is_left_alone(directory: Path, damage: Callable[[Path], None]) -> None:
    registry = make_ledger(directory)
    hit(registry, 2)
    registry._reset()
    path = directory / "stats" / "0"
    damage(path)
    before = path.read_bytes(), path.is_symlink()
    another = make_ledger(directory)
    hit(another)
    assert files(directory) == ["0", "1"]
    assert (path.read_bytes(), path.is_symlink()) == before
    assert hits(read(another)) == 1


def test_what_is_none_of_ours_is_passed_over(directory: Path) -> None:
    folder = directory / "stats"
    folder.mkdir(parents=True)
    (folder / "0").write_text("a note", encoding="ascii")
    (folder / "1").mkdir()
    (folder / "readme").write_text("another", encoding="ascii")
    os.mkfifo(folder / "2")
    registry = make_ledger(directory)
    hit(registry)
    assert files(directory) == ["0", "1", "2", "3", "readme"]
    assert (hits(read(registry)), (folder / "0").read_text()) == (1, "a note")


def delete(directory: Path) -> None:
    for path in (directory / "stats").iterdir():
        path.unlink()
    (directory / "stats").rmdir()
    directory.rmdir()


def replace_by_another(directory: Path) -> None:
    path = directory / "stats" / "0"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(data)))


@pytest.mark.parametrize(("damage", "left"), [(delete, ["0"]), (replace_by_another, ["0", "1"])])
def test_a_file_that_was_deleted_or_replaced_is_followed_by_another(
    directory: Path, damage: Callable[[Path], None], left: list[str]
) -> None:
    registry = make_ledger(directory)
    tally = hit(registry, 5)
    registry.gauge("refreshes_pending", 2)
    damage(directory)
    registry.tick()
    tally.cells[PLAIN] += 1
    stats = read(make_ledger(directory))
    assert files(directory) == left
    assert (hits(stats), stats["refreshes"]["pending"], stats["workers"]) == (1, 2, 1)


def test_readings_say_who_lives(directory: Path) -> None:
    one, other = make_ledger(directory), make_ledger(directory)
    hit(one)
    hit(other)
    other._reset()
    assert [reading.is_held for reading in read_files(directory / "stats")] == [True, False]


def served(registry: Registry) -> Registry:
    registry.tally("endpoint", "news").served(CacheStatus.BYPASS, 0.1, why=BypassReason.METHOD)
    return registry


def test_reasons_of_a_version_with_others_are_not_taken_for_ours(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = served(make_ledger(directory))
    assert read(make_ledger(directory))["reasons"] == {"method": 1}
    monkeypatch.setattr(counter_file, "REASONS_DIGEST", 4711)
    ours = served(make_ledger(directory))
    assert (read(ours)["reasons"], read(ours)["requests"]["BYPASS"]) == ({"method": 1}, 2)
    # The file is taken over once the other version has ended.
    other._reset()
    served(served(make_ledger(directory)))
    assert (read(ours)["reasons"], read(ours)["requests"]["BYPASS"]) == ({"method": 3}, 4)
    assert files(directory) == ["0", "1"]
