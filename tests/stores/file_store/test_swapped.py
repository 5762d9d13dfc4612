"""A parent directory that others can write to: a directory that another user puts in place of the cache is never read.

Covers ``filesystem.directory``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flask_stalecache import ConfigError, FileStore, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.filesystem import directory as module
from flask_stalecache.filesystem.atomic import read_file
from flask_stalecache.filesystem.directory import Directory, HeldDirectory
from flask_stalecache.stores.formats.entry_format import encode
from support.engine import make_entry
from support.file_store import make_site, visit
from support.processes import NOBODY, Worker, workers
from support.threads import wait_until

ROOT = os.geteuid() == 0


@pytest.fixture
def parent(no_housekeeping: None) -> Iterator[Path]:
    """A volume of a container: all can write to it, and it is not sticky."""
    place = Path(tempfile.mkdtemp(prefix="stalecache-test-"))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Give everything below a directory to another user."""

    def give(directory: Path) -> None:
        if ROOT:
            for path in (directory, *directory.rglob("*")):
                os.lchown(path, NOBODY, NOBODY)
            return
        theirs = {path.stat().st_ino for path in (directory, *directory.rglob("*"))}
        real = os.fstat

        def fstat(descriptor: int) -> os.stat_result:
            status = real(descriptor)
            return os.stat_result((*status[:4], NOBODY, *status[5:])) if status.st_ino in theirs else status

        monkeypatch.setattr(os, "fstat", fstat)

    return give


@pytest.fixture(params=["relative to a descriptor", "by paths"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "_RELATIVE", request.param != "by paths")
    return str(request.param)


def planted(parent: Path, key: str, names: tuple[str, ...] = ("all",)) -> Path:
    """Make a directory with a page that is right in every respect but its owner."""
    theirs = parent / "theirs"
    FileStore(theirs).write(make_entry(key, b"planted", windows=(1e6, 1e6, 1e6), names=names, seq=2**62))
    return theirs


def swap(directory: Path, theirs: Path) -> None:
    directory.rename(directory.with_name("away"))
    theirs.rename(directory)


def body_in(store: FileStore, key: str = "page") -> bytes | None:
    with suppress(StoreError):
        entry = (store.lookup(key) or store.load(key)).entry
        return None if entry is None else entry.body
    return None


# -- a directory of somebody else ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("platform")
def test_a_running_worker_never_reads_a_directory_that_was_put_in_place_of_its_own(
    parent: Path, somebody: Callable[[Path], None]
) -> None:
    """Neither at once, nor after its housekeeping has met it; and when the directory is back, all is as before."""
    store = FileStore(parent / "cache")
    store.write(make_entry("other", b"ours", seq=store.seq()))
    theirs = planted(parent, "page")
    somebody(theirs)
    swap(store.directory, theirs)
    for _ in range(3):
        assert body_in(store) is None
        with suppress(StoreError):
            store.tick()
    with pytest.raises(StoreError, match=r"belongs to user|others can write"):
        store.purge("all", soft=False)
    store.directory.rename(parent / "theirs")
    (parent / "away").rename(store.directory)
    store.tick()
    assert (body_in(store), body_in(store, "other")) == (None, b"ours")


def test_a_worker_that_starts_refuses_a_directory_of_somebody_else(parent: Path, somebody: Callable[[Path], None]) -> None:
    theirs = planted(parent, "page")
    somebody(theirs)
    theirs.rename(parent / "cache")
    if ROOT:
        # Without two users, the check by path sees nothing wrong.
        with pytest.raises(ConfigError, match=f"user {NOBODY}"):
            make_site(parent / "cache")
    assert body_in(FileStore(parent / "cache")) is None


def test_a_directory_that_is_swapped_after_its_check_is_refused(
    parent: Path, somebody: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of the path and the opening."""
    store = FileStore(parent / "cache")
    store.directory.mkdir(mode=0o700)
    theirs = planted(parent, "page")
    somebody(theirs)
    check = module.check_directory

    def check_and_swap(directory: Path) -> None:
        check(directory)
        if theirs.exists():
            swap(directory, theirs)

    monkeypatch.setattr(module, "check_directory", check_and_swap)
    with pytest.raises(StoreError, match="belongs to user"):
        store.load("page")


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("suffix", ["", ".note"])
def test_a_file_of_somebody_else_is_never_read(parent: Path, somebody: Callable[[Path], None], suffix: str) -> None:
    """In a folder that was open to others once, say."""
    store = FileStore(parent / "cache")
    store.load("page")
    folder = store.directory / digest("page")[:2]
    folder.mkdir(mode=0o700)
    (folder / (digest("page") + suffix)).write_bytes(encode(make_entry("page", b"planted")))
    somebody(folder)
    assert read_file(folder / (digest("page") + suffix)) == b""
    copy = store.load("page")
    assert copy.entry is None
    assert not copy.note.failures


def test_a_table_of_somebody_else_is_not_used(parent: Path) -> None:
    directory = parent / "cache"
    FileStore(directory).load("page")
    table = directory / "stamps-4"
    if ROOT:
        os.chown(table, NOBODY, NOBODY)
        FileStore(directory).load("page")
    assert table.stat().st_uid == os.geteuid()


# -- as two users, in processes of their own ----------------------------------------------------------------------------


def swap_for_ever(parent: Path, begun: Path, stop: Path) -> int:
    """Put their directory in place of the cache and take it away again, as fast as it goes."""
    if ROOT:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    count = 0
    while not stop.exists():
        with suppress(OSError):
            (parent / "cache").rename(parent / "away")
        with suppress(OSError):
            (parent / "theirs").rename(parent / "cache")
        with suppress(OSError):
            (parent / "cache").rename(parent / "theirs")
        with suppress(OSError):
            (parent / "away").rename(parent / "cache")
        count += 1
        begun.touch()
    return count


@pytest.fixture(scope="module")
def other_user() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


@pytest.mark.soak
def test_swapping_as_fast_as_it_goes_never_gets_a_planted_page_served(
    parent: Path, somebody: Callable[[Path], None], other_user: Worker, soak: Callable[[int, int], int]
) -> None:
    """By workers that run, that are started anew, and that do their housekeeping."""
    app, _ = make_site(parent / "cache")
    key = page_key_of(app, parent / "cache")
    shutil.rmtree(parent / "cache")
    theirs, begun, stop = planted(parent, key), parent / "begun", parent / "stop"
    somebody(theirs)
    other_user.start(swap_for_ever, parent, begun, stop)
    wait_until(begun.exists)
    engine = app.extensions["stalecache"].engine
    for attempt in range(soak(20_000, 300)):
        engine.store.forget()
        assert visit(app)[1].startswith("run ")
        assert body_in(FileStore(parent / "cache"), key) != b"planted"
        if attempt % 10 == 0:
            with suppress(StoreError):
                engine.store.tick()
    stop.touch()
    assert other_user.result() > 0


def page_key_of(app: object, directory: Path) -> str:
    visit(app)  # type: ignore[arg-type]
    return next(FileStore(directory).walk()).entry.key


# -- holding a directory ---------------------------------------------------------------------------------------------


def test_a_held_directory_is_reached_wherever_it_goes(parent: Path) -> None:
    held = Directory(parent / "cache")
    (parent / "cache").mkdir(mode=0o700)
    held.hold()
    (parent / "cache" / "page").write_bytes(b"ours")
    (parent / "cache").rename(parent / "away")
    assert not held.is_current()
    assert read_file(held.at("page")) == b"ours"


def test_a_directory_that_is_not_held_has_no_files(parent: Path) -> None:
    held = Directory(parent / "cache")
    with pytest.raises(FileNotFoundError):
        held.at("page")
    with pytest.raises(FileNotFoundError):
        held.hold()
    assert not held.is_held


def test_a_descriptor_that_was_closed_under_us_is_noticed_and_its_number_left_alone(parent: Path) -> None:
    """A daemon closes all descriptors, for example. The next file that is opened gets the number."""
    store = FileStore(parent / "cache")
    store.write(make_entry("page", b"ours", seq=store.seq()))
    (parent / "cache").chmod(0o700)
    held = HeldDirectory(parent / "cache")
    assert held.descriptor is not None
    os.close(held.descriptor)
    other = os.open(parent, os.O_RDONLY)
    assert other == held.descriptor
    assert not held.is_current()
    del held
    assert os.fstat(other).st_ino == parent.stat().st_ino
    os.close(other)


def test_a_forked_child_uses_the_directory_of_its_parent(parent: Path) -> None:
    store = FileStore(parent / "cache")
    store.write(make_entry("page", b"ours", seq=store.seq()))
    (parent / "cache").rename(parent / "away")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if body_in(store) == b"ours" else 1)
    assert os.waitpid(pid, 0)[1] == 0
