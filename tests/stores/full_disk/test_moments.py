"""A disk that becomes full or read-only in the middle of a request: live pages, and no restart."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
import time_machine
from flask import Flask

from flask_stalecache import FileStore, StaleCache, StoreError
from flask_stalecache.engine.flights.singleflight import Flight, Flights
from flask_stalecache.stores.folders import Folders, Listed
from flask_stalecache.stores.purges.purge_record import PurgeRecord
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from support.client import settle, visit
from support.clock import NOON
from support.engine import make_entry
from support.file_store import reached
from support.processes import Worker, workers
from support.threads import PATIENCE, results, wait_until
from support.threads import crowd as crowd_of

# -- disks -----------------------------------------------------------------------------------------------------------


_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000

_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


class Disk(Protocol):
    """A disk that gets full or read-only, and well again."""

    def full(self) -> None:
        """Let nothing more be written."""

    def readonly(self) -> None:
        """Let nothing be changed."""

    def well(self) -> None:
        """Let everything be done again."""


def _done(outcome: int) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _enter_namespace() -> None:
    """Enter a namespace, so that only this process sees what it mounts."""
    uid, gid = os.geteuid(), os.getegid()
    _done(_libc.unshare(_CLONE_NEWNS if uid == 0 else _CLONE_NEWNS | _CLONE_NEWUSER))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _done(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


class MountedDisk:
    """A file system of its own.

    :param place: where it is mounted.
    """

    #: Enough for the table and some pages.
    SIZE = 1024 * 1024

    def __init__(self, place: Path) -> None:
        self.place = place
        # A file system with a mapped table can't be made read-only, and open descriptors bypass a read-only mount on top of it.
        self._patched = PatchedDisk(place)
        _done(_libc.mount(b"tmpfs", self._name, b"tmpfs", 0, b"size=%d,mode=0700" % self.SIZE))

    @property
    def _name(self) -> bytes:
        return os.fsencode(self.place)

    def full(self) -> None:
        for size in (4096, 1):
            with suppress(OSError), (self.place / f"ballast-{size}").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(size))

    def readonly(self) -> None:
        self._patched.readonly()

    def well(self) -> None:
        self._patched.well()
        for ballast in self.place.glob("ballast-*"):
            ballast.unlink()


class PatchedDisk:
    """A disk whose trouble is patched into the functions of Python.

    :param place: where it would be.
    """

    #: Functions that fail on a read-only disk, and how many of their first arguments are paths.
    CHANGES: ClassVar[dict[str, int]] = {
        "mkdir": 1, "rename": 2, "replace": 2, "unlink": 1, "link": 2, "utime": 1, "chmod": 1, "rmdir": 1, "truncate": 1,
    }  # fmt: skip

    def __init__(self, place: Path) -> None:
        self.place = place
        self.trouble = 0
        for name, paths in self.CHANGES.items():
            self._patch(os, name, lambda *args, paths=paths, **_: any(map(self._is_here, args[:paths])) and errno.EROFS)
        for name in ("mkdir", "unlink", "chmod", "rename"):
            # Before Python 3.11 pathlib keeps functions of its own.
            self._patch(Path, name, lambda path, *_, **__: self._is_here(path) and errno.EROFS)
        self._patch(os, "open", lambda path, flags, *_, **__: self._is_here(path) and self._opening(path, flags))
        self._patch(os, "write", lambda descriptor, _: self._is_here(descriptor) and errno.ENOSPC)
        self._patch(os, "posix_fallocate", lambda descriptor, *_: self._is_here(descriptor) and errno.ENOSPC)

    def _patch(self, where: Any, name: str, fails: Callable[..., int]) -> None:
        real = getattr(where, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            whole = [reached(arg, **kwargs) if isinstance(arg, str) else arg for arg in args]
            number = self.trouble and fails(*whole, **kwargs)
            if number and number == self.trouble and not (name == "mkdir" and os.path.isdir(whole[0])):
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        setattr(where, name, patched)

    def _is_here(self, file: int | str | Path) -> bool:
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)
            return path.startswith(f"{self.place}/")
        return False

    def _opening(self, path: str | Path, flags: int) -> int:
        if flags & os.O_EXCL and os.path.lexists(path):
            return 0
        creates = flags & os.O_CREAT and not os.path.lexists(path)
        return errno.EROFS if creates or flags & (os.O_WRONLY | os.O_RDWR) else 0

    def full(self) -> None:
        self.trouble = errno.ENOSPC

    def readonly(self) -> None:
        self.trouble = errno.EROFS

    def well(self) -> None:
        self.trouble = 0


#: Whether this process may mount disks. Tried at the first disk, before the process has threads, since it forks.
_MAY_MOUNT: list[bool] = []


def _may_mount(place: Path) -> bool:
    """Say whether disks can be mounted, and if so enter the namespace for them. Tried in a fork, since there is no way back."""
    if not _MAY_MOUNT:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _enter_namespace()
                disk = MountedDisk(place)
                (place / "file").touch()
                disk.readonly()
                disk.well()
                status = 0
            finally:
                os._exit(status)
        _MAY_MOUNT.append(os.waitpid(pid, 0)[1] == 0)
        if _MAY_MOUNT[0]:
            _enter_namespace()
    return _MAY_MOUNT[0]


def make_disk(kind: str, place: Path) -> Disk:
    place.mkdir(exist_ok=True)
    return MountedDisk(place) if kind == "mounted" and _may_mount(place) else PatchedDisk(place)


# -- a site on a disk ------------------------------------------------------------------------------------------------


CROWD = 6


class Site:
    """An app on a disk, in a worker.

    :ivar during: done once, while the next view runs.
    :ivar lines: what was logged.
    :ivar shift: how far the monotonic clock was moved on.
    """

    def __init__(self, kind: str, place: Path, trouble: str, clock: time_machine.Traveller) -> None:
        self.disk, self.clock = make_disk(kind, place), clock
        self.directory = place / "cache"
        self.trouble: Callable[[], None] = getattr(self.disk, trouble)
        self.during: list[Callable[[], None]] = []
        self.runs, self.lines, self.joined, self.shift = Counter[str](), list[str](), 0, 0.0
        self.app = Flask("shop")
        self.app.config["STALECACHE_DIR"] = self.directory
        # So that the sweep takes nothing that is asked for.
        self.app.config["STALECACHE_INACTIVE"] = 10**7
        self.cache = StaleCache(self.app)

        @self.app.get("/<page>")
        @self.cache.cached(60, 600, 86400, tags=["news"], jitter=0)
        def show(page: str) -> str:
            self.runs[page] += 1
            run = self.runs[page]
            while self.during:
                self.during.pop()()
            if page == "crowd":
                wait_until(lambda: self.joined >= CROWD)
            return f"{page} {run}"

        state = self.app.extensions["stalecache"]
        self.engine, self.counters = state.engine, state.counters

    def page(self, path: str) -> tuple[str, str]:
        """Visit a page, which has to be good whatever is the matter, and return how it was answered and with what."""
        seen = visit(self.app, path)
        assert seen.status == 200, seen
        return seen.page

    def purge(self) -> bool:
        """Purge all pages, and say whether that was possible."""
        with self.app.app_context():
            try:
                self.cache.purge(tag="news")
            except StoreError:
                return False
            return True

    @property
    def is_full(self) -> bool:
        """Whether the trouble is that nothing more can be written; things can be removed then."""
        return self.trouble.__name__ == "full"

    @property
    def failures(self) -> int:
        return int(self.counters["store_failures"])

    @property
    def complaints(self) -> int:
        return len([line for line in self.lines if "the cache store failed" in line])

    def settle(self) -> None:
        settle(self.app, self.cache, PATIENCE)


class _Listener(logging.Handler):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def emit(self, record: logging.LogRecord) -> None:
        self.site.lines.append(record.getMessage())


# -- moments at which a disk gets bad --------------------------------------------------------------------------------


def before_anything(site: Site) -> None:
    site.trouble()


def before_the_first_folder(site: Site) -> None:
    site.engine.store.load("anything")
    site.trouble()


def while_a_first_view_runs(site: Site) -> None:
    site.during.append(site.trouble)
    assert site.page("/first") == ("MISS", "first 1")
    assert site.page("/first") == ("MISS", "first 2")


def while_a_stale_page_is_renewed(site: Site) -> None:
    assert site.page("/first") == ("MISS", "first 1")
    site.clock.shift(61)
    site.during.append(site.trouble)
    assert site.page("/first") == ("STALE", "first 1")
    site.settle()
    assert site.runs["first"] == 2
    # It can't be stored; nor is it tried again and again.
    assert [site.page("/first")[1] for _ in range(3)] == ["first 1"] * 3
    site.settle()
    assert site.runs["first"] <= 3


def while_an_expired_page_is_renewed(site: Site) -> None:
    assert site.page("/first") == ("MISS", "first 1")
    site.clock.shift(1000)
    site.during.append(site.trouble)
    assert site.page("/first") == ("EXPIRED", "first 2")
    assert site.page("/first") == ("EXPIRED", "first 3")


def while_pages_are_hit(site: Site) -> None:
    assert site.page("/first") == ("MISS", "first 1")
    assert site.page("/first") == ("HIT", "first 1")
    site.trouble()
    assert [site.page("/first") for _ in range(3)] == [("HIT", "first 1")] * 3
    assert site.failures == 0


def while_other_processes_pages_are_read(site: Site) -> None:
    assert site.page("/first") == ("MISS", "first 1")
    site.engine.store.forget()
    site.trouble()
    assert [site.page("/first") for _ in range(2)] == [("HIT", "first 1")] * 2
    assert site.failures == 0


def in_the_middle_of_a_purge(site: Site) -> None:
    """The number is given, and the record can't be written."""
    assert site.page("/first") == ("MISS", "first 1")
    write = PurgeRecords.write

    def failing(names: PurgeRecords, record: PurgeRecord) -> None:
        site.trouble()
        write(names, record)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PurgeRecords, "write", failing)
        assert not site.purge() or site.is_full
    assert site.page("/first")[1] in ("first 1", "first 2")


def in_the_middle_of_a_sweep(site: Site) -> None:
    assert site.page("/first") == ("MISS", "first 1")
    look, met = Folders.listed, list[int]()

    def failing(folders: Folders, number: int) -> Listed:
        if number == 100 and folders.directory.path == site.directory and not met:
            met.append(number)
            site.trouble()
        return look(folders, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Folders, "listed", failing)
        for _ in range(100):
            site.engine.runtime.tick()
    assert met
    assert site.failures > 0
    assert site.page("/first") == ("HIT", "first 1")


MOMENTS: dict[str, Callable[[Site], None]] = {
    moment.__name__: moment
    for moment in (
        before_anything,
        before_the_first_folder,
        while_a_first_view_runs,
        while_a_stale_page_is_renewed,
        while_an_expired_page_is_renewed,
        while_pages_are_hit,
        while_other_processes_pages_are_read,
        in_the_middle_of_a_purge,
        in_the_middle_of_a_sweep,
    )
}


def play(kind: str, place: Path, trouble: str, moment: str) -> str:
    """Let a disk get bad at a moment, visit its pages, mend it, and visit them again; return which disk it was."""
    real, logger = time.monotonic, logging.getLogger("flask_stalecache")
    logger.propagate = False
    with time_machine.travel(NOON, tick=False) as clock:
        site = Site(kind, place, trouble, clock)
        listener = _Listener(site)
        logger.addHandler(listener)
        time.monotonic = lambda: real() + site.shift
        try:
            MOMENTS[moment](site)
            live_through(site)
            site.disk.well()
            recover(site)
        finally:
            time.monotonic = real
            logger.removeHandler(listener)
            site.disk.well()
    return type(site.disk).__name__


def live_through(site: Site) -> None:
    """Nothing can be stored: pages are live, and the log has one line a minute about it."""
    assert [site.page("/cold") for _ in range(2)] == [("MISS", "cold 1"), ("MISS", "cold 2")]
    assert site.failures > 0
    assert site.complaints == 1
    site.shift += 61
    site.page("/cold")
    assert site.complaints == 2
    crowd(site)
    # On a full disk, a purge can still remove the entries that it names.
    assert not site.purge() or site.is_full
    assert not list(site.directory.rglob("*.tmp"))


def crowd(site: Site) -> None:
    """Many come at once to a page that can't be stored now: they share one run of the view."""
    join = Flights.join

    def counting(flights: Flights, key: str, *lead: Any) -> tuple[Flight, bool]:
        joined = join(flights, key, *lead)
        site.joined += 1
        return joined

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Flights, "join", counting)
        pages = results(crowd_of(CROWD, lambda: site.page("/crowd")))
    assert {text for _, text in pages} == {"crowd 1"}
    assert site.runs["crowd"] == 1


def recover(site: Site) -> None:
    """The disk is well: everything works again, at once or after the next tick."""
    site.engine.runtime.tick()
    # A stale page whose refresh failed may still be backing off.
    site.clock.shift(10**6)
    site.shift += 600
    failures = site.failures
    run = site.runs["cold"] + 1
    assert [site.page("/cold") for _ in range(2)] == [("MISS", f"cold {run}"), ("HIT", f"cold {run}")]
    first = site.page("/first")
    assert first[1] == f"first {site.runs['first']}"
    assert site.page("/first") == ("HIT", first[1])
    assert site.purge()
    assert site.page("/cold") == ("MISS", f"cold {run + 1}")
    for _ in range(100):
        site.engine.runtime.tick()
    assert site.failures == failures
    # The table is there: a write of another store moves the stamp of a copy.
    other = FileStore(site.directory)
    copy = other.load("page")
    other.write(make_entry("page", seq=other.seq()))
    assert other.moved(copy)
    # What was purged may have been swept away.
    assert len([path for path in site.directory.glob("??/*") if not path.suffix]) in (2, 3)
    assert not list(site.directory.rglob("*.tmp"))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A process for disks; SIGBUS would end it."""
    with workers(1) as made:
        yield made[0]


@pytest.mark.grid
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("trouble", ["full", "readonly"])
def test_a_disk_that_gets_bad_costs_no_page(tmp_path: Path, worker: Worker, trouble: str, moment: str) -> None:
    worker.run(play, "mounted", tmp_path / "disk", trouble, moment)


def test_what_is_patched_in_its_place_is_as_bad_as_a_real_disk(tmp_path: Path) -> None:
    """Where no disk may be mounted, the test above plays these."""
    with workers(1) as made:
        for trouble in ("full", "readonly"):
            for moment in ("before_anything", "while_a_first_view_runs", "in_the_middle_of_a_sweep"):
                place = tmp_path / f"{trouble}-{moment}"
                assert made[0].run(play, "patched", place, trouble, moment) == "PatchedDisk"
