"""The file store: a disk that fails, and one that is really full."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import CacheStatus, FileStore
from flask_stalecache.engine.flights.singleflight import Flight, Flights
from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, make_engine, make_entry, storable
from support.file_store import LOGGER, counted, entries_in, make_site, reached, temporary_files, visit
from support.processes import workers
from support.threads import PATIENCE, crowd, results, wait_until

# -- a disk that fails -----------------------------------------------------------------------------------------------


class Failing:
    """An operating system call that fails on the files of one directory."""

    def __init__(self, real: Callable[..., Any], number: int, fails: Callable[..., bool]) -> None:
        self.real, self.number, self.fails = real, number, fails

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fails(*args, **kwargs):
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*args, **kwargs)


def is_below(directory: Path, suffix: str) -> Callable[..., bool]:
    def fails(path: Any, *args: Any, **kwargs: Any) -> bool:
        whole = reached(path, **kwargs)
        return whole.startswith(str(directory)) and whole.endswith(suffix)

    return fails


def is_open_below(directory: Path) -> Callable[..., bool]:
    def fails(descriptor: int, *args: Any, **kwargs: Any) -> bool:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(directory))

    return fails


def breaking_open(suffix: str) -> Callable[[pytest.MonkeyPatch, Path, int], None]:
    def break_it(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
        monkeypatch.setattr(os, "open", Failing(os.open, number, is_below(directory, suffix)))

    return break_it


def breaking_write(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    monkeypatch.setattr(os, "write", Failing(os.write, number, is_open_below(directory)))


def breaking_second_write(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    """The disk gets full in the middle: one byte is written, the rest is not."""
    real, below, calls = os.write, is_open_below(directory), count()

    def write(descriptor: int, data: bytes) -> int:
        if not below(descriptor):
            return real(descriptor, data)
        if next(calls) % 2:
            raise OSError(number, os.strerror(number))
        return real(descriptor, bytes(data[:1]))

    monkeypatch.setattr(os, "write", write)


def breaking_rename(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    monkeypatch.setattr(os, "rename", Failing(os.rename, number, is_below(directory, "")))


def breaking_mkdir(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    # Before Python 3.11 pathlib keeps an os.mkdir of its own.
    os_mkdir, path_mkdir = (Failing(real, number, is_below(directory, "")) for real in (os.mkdir, Path.mkdir))
    monkeypatch.setattr(os, "mkdir", os_mkdir)
    monkeypatch.setattr(Path, "mkdir", lambda path, *args, **kwargs: path_mkdir(path, *args, **kwargs))


def breaking_close(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    """Network file systems tell of a full disk at close; the descriptor is closed all the same."""
    real = os.close

    def close(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        real(descriptor)
        if name.startswith(str(directory)) and name.endswith(".tmp"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "close", close)


STEPS: dict[str, Callable[[pytest.MonkeyPatch, Path, int], None]] = {
    "making the folder": breaking_mkdir,
    "opening the file beside": breaking_open(".tmp"),
    "opening anything": breaking_open(""),
    "writing": breaking_write,
    "writing the rest": breaking_second_write,
    "closing": breaking_close,
    "renaming": breaking_rename,
}


@pytest.mark.grid
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("break_it", STEPS.values(), ids=STEPS)
def test_a_disk_that_fails_leaves_the_pages_live(
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    monotonic: Callable[[float], None],
    break_it: Callable[[pytest.MonkeyPatch, Path, int], None],
    number: int,
) -> None:
    app, runs = make_site(directory)
    FileStore(directory).load("page")
    with pytest.MonkeyPatch.context() as broken, caplog.at_level(logging.WARNING, LOGGER):
        break_it(broken, directory, number)
        assert [visit(app)[1] for _ in range(2)] == ["run 1", "run 2"]
        assert len(caplog.records) == 1
        assert os.strerror(number) in caplog.records[0].getMessage()
        assert counted(app, "store_failures") >= 2
        monotonic(61)
        assert visit(app)[1] == "run 3"
        assert len(caplog.records) == 2
    assert runs == [1, 2, 3]
    assert temporary_files(directory) == []
    assert [visit(app) for _ in range(2)] == [("MISS", "run 4"), ("HIT", "run 4")]


def test_where_no_lock_can_be_taken_pages_are_stored_without(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = make_site(directory)
    breaking_open(".lock")(monkeypatch, directory, errno.ENOSPC)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert [visit(app) for _ in range(2)] == [("MISS", "run 1"), ("HIT", "run 1")]
        assert visit(app, "/news") == ("MISS", "run 2")
    assert counted(app, "store_failures") == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("break_it", list(STEPS.values())[1:], ids=list(STEPS)[1:])
def test_a_disk_that_fails_later_keeps_what_was_stored(
    directory: Path, clock: time_machine.Traveller, break_it: Callable[[pytest.MonkeyPatch, Path, int], None]
) -> None:
    app, _ = make_site(directory, REFRESH_WORKERS=0)
    visit(app)
    clock.shift(61)
    with pytest.MonkeyPatch.context() as broken:
        break_it(broken, directory, errno.ENOSPC)
        word, page = visit(app)
        assert (word, page) == ("STALE", "run 1")
        assert visit(app)[1] == "run 1"
    assert temporary_files(directory) == []
    assert [path.read_bytes()[-5:] for path in entries_in(directory)] == [b"run 1"]


@pytest.mark.parametrize("break_it", [breaking_write, breaking_rename, breaking_open(".tmp")])
def test_a_refresh_that_cannot_be_stored_backs_off(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    break_it: Callable[[pytest.MonkeyPatch, Path, int], None],
) -> None:
    """A full disk must not turn every stale hit into a call of the origin."""
    engine = make_engine(directory, REFRESH_WORKERS=1, REFRESH_BACKOFF=(2, 300))
    engine.store.write(make_entry(body=b"old"))
    clock.shift(61)
    job, origin = FakeRefresh(), FakeOrigin()
    with pytest.MonkeyPatch.context() as broken:
        break_it(broken, directory, errno.ENOSPC)
        for _ in range(5):
            answered = engine.serve(origin)
            assert body_of(answered) == b"old"
            if answered.refresh:
                engine.runtime.submit(job)
                assert engine.runtime.drain(PATIENCE)
        assert job.calls == 1
    clock.shift(3)
    monotonic(3)
    assert engine.serve(origin).refresh
    engine.runtime.submit(job)
    assert engine.runtime.drain(PATIENCE)
    assert job.calls == 2
    assert engine.serve(origin).status is CacheStatus.HIT
    assert origin.calls == 0


def test_threads_share_one_call_although_nothing_can_be_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, joined, join = make_engine(directory), [], Flights.join

    def counting_join(flights: Flights, key: str, *lead: Any) -> tuple[Flight, bool]:
        flight = join(flights, key, *lead)
        joined.append(key)
        return flight

    def script(start: Start) -> Answer:
        wait_until(lambda: len(joined) == 10)
        return storable(start)

    monkeypatch.setattr(Flights, "join", counting_join)
    breaking_rename(monkeypatch, directory, errno.EROFS)
    origin = FakeOrigin(script)
    answers = results(crowd(10, lambda: engine.serve(origin)))
    assert [body_of(answer) for answer in answers] == [b"new"] * 10
    assert [answer.stored for answer in answers] == [False] * 10
    assert origin.calls == 1


# -- a disk that is really full --------------------------------------------------------------------------------------


_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000


def mounted(place: Path, size: int) -> bool:
    """Mount a small disk that only this process sees, and that goes with it; say whether that was permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(_CLONE_NEWNS):
        return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        return False
    return libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, f"size={size},mode=0700".encode()) == 0


def fill(place: Path) -> None:
    with suppress(OSError), (place / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def live_on_a_small_disk(place: Path, size: int) -> dict[str, object]:
    """Run an app on a full disk, or where no file can be larger than ``size``; return what visitors saw and what was left."""
    directory = place / "cache"
    if mounted(place, size):
        app, runs = make_site(directory)
        FileStore(directory).load("page")
        fill(place)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
        app, runs = make_site(directory)
    seen = [visit(app)[1] for _ in range(3)]
    full = {"seen": seen, "runs": list(runs), "temporary": temporary_files(directory)}
    failures = counted(app, "store_failures")
    (place / "ballast").unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {**full, "failed": failures > 0, "after": [visit(app) for _ in range(2)]}


@pytest.mark.parametrize("size", [256 * 1024, 1024 * 1024], ids=["too small for the table", "full later"])
def test_a_full_disk_leaves_the_pages_live(tmp_path: Path, size: int) -> None:
    with workers(1) as made:
        outcome = made[0].run(live_on_a_small_disk, tmp_path, size)
    assert outcome == {
        "seen": ["run 1", "run 2", "run 3"],
        "runs": [1, 2, 3],
        "temporary": [],
        "failed": True,
        "after": [("MISS", "run 4"), ("HIT", "run 4")],
    }


def test_no_descriptor_is_left_open(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = make_site(directory, REFRESH_WORKERS=0)
    visit(app)

    def descriptors() -> set[str]:
        return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}

    before = {name for name in descriptors() if name.startswith(str(directory))}
    for number, break_it in enumerate(STEPS.values()):
        with pytest.MonkeyPatch.context() as broken:
            break_it(broken, directory, errno.ENOSPC)
            visit(app, f"/broken-{number}")
        visit(app, f"/whole-{number}")
    assert {name for name in descriptors() if name.startswith(str(directory))} == before
    assert subprocess.run(["ls", str(directory)], check=True, capture_output=True).stdout
