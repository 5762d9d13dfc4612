"""Entries as files: the directory, its modes, its table, and a disk that fails."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import resource
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from flask_stalecache import CacheStatus, ConfigError, FileStore, StaleCache, StoreError
from flask_stalecache.core.model.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.engine.singleflight import Flight, Flights
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.purge_records import PurgeRecords
from flask_stalecache.stores.stamps import FILE_NAME, SIZE, Stamps, slot_of
from support.engine import FakeOrigin, FakeRefresh, body_of, make_engine, make_entry, storable
from support.processes import NOBODY, become_nobody, workers
from support.threads import PATIENCE, crowd, results, wait_until

ROOT = os.geteuid() == 0
LOGGER = "flask_stalecache"


def make_site(directory: Path, **settings: Any) -> tuple[Flask, list[int]]:
    """Return an app whose pages are numbered by their views' runs, and the list of runs."""
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    for name, value in settings.items():
        app.config[f"STALECACHE_{name}"] = value
    cache = StaleCache(app)
    runs: list[int] = []

    @app.get("/<page>")
    @cache.cached(60, 600, 86400)
    def show(page: str) -> str:
        runs.append(len(runs) + 1)
        return f"run {runs[-1]}"

    return app, runs


def visit(app: Flask, path: str = "/page") -> tuple[str, str]:
    """Return what a visitor sees: the status word and the page."""
    with FlaskClient(app, app.response_class).get(path) as response:
        assert response.status_code == 200
        return response.headers["X-Cache-Status"], response.get_data(as_text=True)


def counted(app: Flask, name: str) -> int:
    counters: Counters = app.extensions["stalecache"].counters
    return counters[name]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def temporary_files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.tmp"))


# -- modes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077, 0o177, 0o277], ids=oct)
def test_directories_are_0700_and_files_0600_whatever_the_umask(umask: Callable[[int], int], directory: Path, mask: int) -> None:
    directory.parent.mkdir(exist_ok=True)
    store = FileStore(directory)
    umask(mask)
    with suppress(StoreError):
        store.write(make_entry())
        store.write_note("page", Note(failures=1))
        lock = store.lock("page")
        assert lock.acquire()
        store.load("page")
        lock.release()
    umask(0o022)
    paths = [directory, *directory.rglob("*")]
    wrong = {path.name: oct(mode_of(path)) for path in paths if mode_of(path) != (0o700 if path.is_dir() else 0o600)}
    assert wrong == {}
    assert len(paths) >= 6


def test_nothing_is_made_before_the_first_use(directory: Path) -> None:
    app, _ = make_site(directory)
    assert not directory.exists()
    assert visit(app) == ("MISS", "run 1")
    assert mode_of(directory) == 0o700


# -- purging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("all",), ("all", "tag:news", "tag:sport")], ids=len)
def test_a_purge_goes_through_its_steps_in_the_order_of_the_model(
    directory: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """Each step for all names, before the next one (``tests/stores/purging/test_model.py``)."""
    store, steps = FileStore(directory), list[tuple[object, ...]]()
    store.load("anything")

    def noting(kind: type, method: str, told: Callable[..., object]) -> None:
        real = getattr(kind, method)

        def step(self: object, *arguments: Any) -> Any:
            steps.append((method, told(*arguments)))
            return real(self, *arguments)

        monkeypatch.setattr(kind, method, step)

    noting(PurgeRecords, "note_number", int)
    noting(PurgeRecords, "write", lambda record: (record.name, record.hard))
    noting(Stamps, "raise_seq", int)
    noting(Stamps, "move", int)
    store.purge(*names, soft=False)
    after = store.seq()
    assert steps == [
        ("note_number", after),
        ("raise_seq", after - 1),
        *[("write", (name, after - 1)) for name in names],
        *[("move", slot_of(digest(name))) for name in names],
        ("raise_seq", after),
    ]


# -- a directory that can't be used ----------------------------------------------------------------------------------


def a_file(path: Path) -> None:
    path.write_text("not a directory")


def inside_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("not a directory")


def somebody_elses(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def writable_by(mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        path.chmod(mode)

    return make


def a_link_of_somebody_else(path: Path) -> None:
    target = path.with_name("ours")
    target.mkdir(mode=0o700)
    path.symlink_to(target)
    os.lchown(path, NOBODY, NOBODY)


def a_link_to_somebody_elses(path: Path) -> None:
    target = path.with_name("theirs")
    somebody_elses(target)
    path.symlink_to(target)


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_link_to_a_file(path: Path) -> None:
    path.with_name("file").write_text("not a directory")
    path.symlink_to(path.with_name("file"))


#: How to make it, and what the complaint says of it.
UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file": (a_file, "file"),
    "inside a file": (inside_a_file, "inside a file|Not a directory"),
    "writable by the group": (writable_by(0o770), "0770"),
    "writable by all": (writable_by(0o777), "0777"),
    "writable by all, and sticky": (writable_by(0o1777), "1777"),
    "writable by others only": (writable_by(0o702), "0702"),
    "a link to itself": (a_link_to_itself, "link"),
    "a link to a file": (a_link_to_a_file, "file"),
}
#: Only root can give things away; others find somebody else's things ready.
if ROOT:
    UNUSABLE["somebody else's"] = (somebody_elses, f"user {NOBODY}")
    UNUSABLE["a link of somebody else"] = (a_link_of_somebody_else, f"user {NOBODY}")
    UNUSABLE["a link to somebody else's"] = (a_link_to_somebody_elses, f"user {NOBODY}")
else:
    UNUSABLE["a link to somebody else's"] = (lambda path: path.symlink_to("/usr"), "user 0")


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Where a cache directory can be put in the wrong way; its parent is there."""
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent" / "cache"


@pytest.mark.parametrize(("make", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_directory_is_refused_at_start(nested: Path, make: Callable[[Path], None], said: str) -> None:
    make(nested)
    with pytest.raises(ConfigError) as caught:
        make_site(nested)
    message = str(caught.value)
    assert str(nested) in message
    assert "STALECACHE_DIR" in message
    assert re.search(said, message)


def test_a_name_too_long_for_a_directory_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="STALECACHE_DIR"):
        make_site(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("make", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_directory_that_comes_later_leaves_the_pages_live(
    nested: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], said: str
) -> None:
    app, runs = make_site(nested)
    make(nested)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert [visit(app)[1] for _ in range(3)] == ["run 1", "run 2", "run 3"]
    assert runs == [1, 2, 3]
    assert counted(app, "store_failures") >= 3
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert str(nested) in lines[0] or str(nested.parent) in lines[0]


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_of_our_own_is_followed(tmp_path: Path, directory: Path, dangling: bool) -> None:
    target = tmp_path / "disk"
    if not dangling:
        target.mkdir(mode=0o700)
    directory.symlink_to(target)
    app, _ = make_site(directory)
    target.mkdir(mode=0o700, exist_ok=True)
    assert [visit(app) for _ in range(2)] == [("MISS", "run 1"), ("HIT", "run 1")]


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory below which any user can look, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="stalecache-test-"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


def refusal_of(directory: Path) -> str:
    """Return what an app of somebody who is not root says of a directory, or ""."""
    if os.geteuid() == 0:
        become_nobody()
    try:
        make_site(directory)
    except ConfigError as error:
        return str(error)
    return ""


def pages_of(directory: Path) -> tuple[list[tuple[str, str]], int]:
    """Return what visitors of an app of somebody who is not root see, and the count of failures."""
    with tempfile.TemporaryDirectory() as place:
        # Imports all that is imported late: nobody may be unable to read it.
        visit(make_site(Path(place) / "cache")[0])
    if os.geteuid() == 0:
        become_nobody()
    app, _ = make_site(directory)
    return [visit(app) for _ in range(2)], counted(app, "store_failures")


def give_away(*paths: Path) -> None:
    if ROOT:
        for path in paths:
            os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("mode", [0o500, 0o600, 0o300, 0o000])
def test_a_directory_of_ours_that_we_cannot_use_is_refused(open_place: Path, mode: int) -> None:
    directory = open_place / "cache"
    directory.mkdir()
    give_away(directory)
    directory.chmod(mode)
    with workers(1) as made:
        message = made[0].run(refusal_of, directory)
    directory.chmod(0o700)
    assert str(directory) in message
    assert "not writable" in message
    assert "STALECACHE_DIR" in message


def test_a_directory_that_we_cannot_reach_is_refused(open_place: Path) -> None:
    closed = open_place / "closed"
    directory = closed / "cache"
    directory.mkdir(parents=True)
    closed.chmod(0o000)
    with workers(1) as made:
        message = made[0].run(refusal_of, directory)
    closed.chmod(0o700)
    assert str(directory) in message
    assert "STALECACHE_DIR" in message


def test_pages_are_live_where_no_directory_can_be_made(open_place: Path) -> None:
    readonly = open_place / "readonly"
    readonly.mkdir()
    readonly.chmod(0o555)
    with workers(1) as made:
        pages, failures = made[0].run(pages_of, readonly / "cache")
    assert [page for _, page in pages] == ["run 1", "run 2"]
    assert failures >= 2


# -- what is planted in the directory --------------------------------------------------------------------------------


def file_of(directory: Path, key: str = "page", suffix: str = "") -> Path:
    return directory / digest(key)[:2] / (digest(key) + suffix)


@pytest.mark.parametrize("suffix", ["", ".note", ".lock"])
def test_a_link_in_place_of_a_file_is_never_followed(tmp_path: Path, directory: Path, suffix: str) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"do not touch")
    engine = make_engine(directory)
    engine.store.write(make_entry(body=b"ours"))
    path = file_of(directory, suffix=suffix)
    path.unlink(missing_ok=True)
    path.symlink_to(precious)
    origin = FakeOrigin()
    assert [body_of(engine.serve(origin)) for _ in range(2)] in ([b"new"] * 2, [b"ours"] * 2)
    assert precious.read_bytes() == b"do not touch"
    assert mode_of(precious) != 0o600


def test_an_entry_behind_a_link_is_never_served(tmp_path: Path, directory: Path) -> None:
    """Whoever could plant a link still can't make us serve what is elsewhere."""
    theirs = FileStore(tmp_path / "theirs")
    theirs.write(make_entry(body=b"planted"))
    store = FileStore(directory)
    store.write(make_entry(body=b"ours"))
    file_of(directory).unlink()
    file_of(directory).symlink_to(file_of(theirs.directory))
    with suppress(StoreError):
        assert FileStore(directory).load("page").entry is None
    planted = theirs.load("page").entry
    assert planted is not None
    assert planted.body == b"planted"


@pytest.mark.parametrize("suffix", ["", ".note"])
def test_a_file_that_cannot_be_read_is_replaced_by_the_next_fill(directory: Path, suffix: str) -> None:
    """Anything wrong is a miss: it does not keep its page live for ever."""
    engine = make_engine(directory)
    engine.store.write(make_entry("news"))
    path = file_of(directory, suffix=suffix)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to("nowhere")
    origin = FakeOrigin()
    answers = [engine.serve(origin) for _ in range(3)]
    assert [body_of(answer) for answer in answers] == [b"new"] * 3
    assert answers[-1].status is CacheStatus.HIT
    assert origin.calls <= 2


def test_files_that_are_not_ours_are_left_alone(directory: Path) -> None:
    store = FileStore(directory)
    store.write(make_entry())
    strangers = [directory / "README", directory / "ab" / "notes.txt", file_of(directory).with_name("x.tmp")]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("a stranger's")
    store.write(make_entry())
    store.load("page")
    store.remove("page")
    store.tick()
    assert [path.read_text() for path in strangers] == ["a stranger's"] * 3


# -- a directory that goes away --------------------------------------------------------------------------------------


def test_a_directory_deleted_under_us_comes_back(directory: Path) -> None:
    app, _ = make_site(directory)
    assert [visit(app) for _ in range(2)] == [("MISS", "run 1"), ("HIT", "run 1")]
    shutil.rmtree(directory)
    app.extensions["stalecache"].engine.tick()
    assert [visit(app) for _ in range(2)] == [("MISS", "run 2"), ("HIT", "run 2")]
    assert mode_of(directory) == 0o700
    assert len(entries_in(directory)) == 1
    assert counted(app, "store_failures") == 0


def entries_in(directory: Path) -> list[Path]:
    """Return the entries that another process would find."""
    return [path for path in directory.glob("??/*") if not path.suffix]


def test_a_directory_deleted_under_us_takes_new_pages_before_the_next_tick(directory: Path) -> None:
    app, _ = make_site(directory)
    visit(app)
    shutil.rmtree(directory)
    assert [visit(app, "/news") for _ in range(2)] == [("MISS", "run 2"), ("HIT", "run 2")]
    assert len(entries_in(directory)) == 1
    assert counted(app, "store_failures") == 0


@pytest.mark.parametrize("step", ["lock", "write", "write_note"])
def test_every_step_survives_the_deletion_of_the_directory(directory: Path, step: str) -> None:
    store = FileStore(directory)
    store.write(make_entry("news"))
    shutil.rmtree(directory)
    match step:
        case "lock":
            assert store.lock("page").acquire()
        case "write":
            store.write(make_entry())
        case "write_note":
            store.write_note("page", Note(failures=2))
    other = FileStore(directory)
    copy = other.load("page")
    assert (copy.entry is not None, copy.note.failures) == (step == "write", 2 if step == "write_note" else 0)
    store.load("page")
    other.write(make_entry(body=b"another process's"))
    assert store.lookup("page") is None


def test_a_directory_that_became_a_file_is_told_once_a_minute(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_site(directory)
    visit(app)
    shutil.rmtree(directory)
    directory.write_text("not a directory")
    engine = app.extensions["stalecache"].engine
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(5):
            engine.tick()
        assert visit(app, "/news") == ("MISS", "run 2")
    assert len(caplog.records) == 1
    directory.unlink()
    engine.tick()
    assert [visit(app, "/news")[1] for _ in range(2)] == ["run 3", "run 3"]


# -- the table of stamps ---------------------------------------------------------------------------------------------


def table_of(directory: Path) -> Path:
    return directory / FILE_NAME


def is_whole(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == SIZE and status.st_blocks * 512 >= SIZE


def deleted(path: Path) -> None:
    path.unlink()


def replaced_by_another(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def replaced_by_a_sparse_one(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(SIZE)


def replaced_by_a_short_one(path: Path) -> None:
    path.unlink()
    path.write_bytes(bytes(4096))


def replaced_by_an_empty_one(path: Path) -> None:
    path.unlink()
    path.touch()


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def cut_in_place(path: Path) -> None:
    os.truncate(path, 4096)


def emptied_in_place(path: Path) -> None:
    os.truncate(path, 0)


def cut_and_grown_in_place(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(path, SIZE)


DAMAGES = [
    deleted,
    replaced_by_another,
    replaced_by_a_sparse_one,
    replaced_by_a_short_one,
    replaced_by_an_empty_one,
    replaced_by_a_link,
    cut_in_place,
    emptied_in_place,
    cut_and_grown_in_place,
]


def live_through(directory: Path, damage: Callable[[Path], None]) -> list[object]:
    """Use a store whose table is damaged, in a process that SIGBUS would kill; return what is left to compare."""
    store = FileStore(directory)
    keys = [f"page-{number}" for number in range(50)]
    for key in keys:
        store.write(make_entry(key, b"old"))
        store.load(key)
    damage(table_of(directory))
    store.tick()
    for key in keys:
        store.lookup(key)
        store.load(key)
        store.write(make_entry(key, b"new"))
        copy = store.load(key)
        assert copy.entry is not None
        assert copy.entry.body == b"new"
        assert store.lookup(key) is copy
    other = FileStore(directory)
    for key in keys:
        other.write(make_entry(key, b"another process's"))
    assert [store.lookup(key) for key in keys] == [None] * len(keys)
    return [is_whole(directory / FILE_NAME), temporary_files(directory)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_mapped_anew(directory: Path, damage: Callable[[Path], None]) -> None:
    with workers(1) as made:
        assert made[0].run(live_through, directory, damage) == [True, []]


@pytest.mark.parametrize("damage", [replaced_by_a_sparse_one, replaced_by_a_short_one, replaced_by_an_empty_one])
def test_a_table_that_is_not_whole_is_made_anew_at_first_use(directory: Path, damage: Callable[[Path], None]) -> None:
    FileStore(directory).load("page")
    damage(table_of(directory))
    store, other = FileStore(directory), FileStore(directory)
    store.write(make_entry())
    assert is_whole(table_of(directory))
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.write(make_entry())
    assert store.lookup("page") is None


def test_a_new_table_ends_all_copies(directory: Path) -> None:
    """A stamp of the old table says nothing in the new one, where all are zero again."""
    FileStore(directory).write(make_entry(body=b"old"))
    table_of(directory).unlink()
    store, other = FileStore(directory), FileStore(directory)
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.write(make_entry(body=b"new"))
    table_of(directory).unlink()
    store.tick()
    assert store.lookup("page") is None


def test_of_two_makers_of_a_table_the_first_wins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FileStore(directory), FileStore(directory)
    allocate, made = os.posix_fallocate, []

    def allocate_while_another_does(descriptor: int, offset: int, size: int) -> None:
        allocate(descriptor, offset, size)
        if not made:
            made.append(True)
            first.write(make_entry(body=b"old"))
            first.load("page")

    monkeypatch.setattr(os, "posix_fallocate", allocate_while_another_does)
    second.write(make_entry(body=b"new"))
    assert made
    assert first.lookup("page") is None
    copy = second.load("page")
    first.write(make_entry())
    assert second.moved(copy)
    assert temporary_files(directory) == []


def test_tick_leaves_a_good_table_and_its_copies_alone(directory: Path) -> None:
    store = FileStore(directory)
    store.write(make_entry())
    copy = store.load("page")
    inode = table_of(directory).stat().st_ino
    store.tick()
    assert store.lookup("page") is copy
    assert table_of(directory).stat().st_ino == inode


def open_and_write(directory: Path, name: str) -> None:
    store = FileStore(directory)
    store.write(make_entry(name))
    store.load(name)


def test_processes_that_open_at_once_share_one_table(directory: Path) -> None:
    with workers(3) as made:
        for number, worker in enumerate(made):
            worker.start(open_and_write, directory, str(number))
        for worker in made:
            worker.result()
    store, other = FileStore(directory), FileStore(directory)
    assert is_whole(table_of(directory))
    assert temporary_files(directory) == []
    store.load("0")
    other.write(make_entry("0"))
    assert store.lookup("0") is None


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_for_the_table_everything_works_without_copies(
    directory: Path, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    app, runs = make_site(directory, REFRESH_WORKERS=0)
    engine = app.extensions["stalecache"].engine
    assert [visit(app) for _ in range(3)] == [("MISS", "run 1"), ("HIT", "run 1"), ("HIT", "run 1")]
    assert counted(app, "no_stamps") >= 1
    assert counted(app, "store_failures") == 0
    assert temporary_files(directory) == []

    store, other = FileStore(directory), FileStore(directory)
    entry = make_entry()
    store.write(entry)
    copy = store.load("page")
    assert copy.entry == entry
    assert store.lookup("page") is None
    assert store.moved(copy)
    other.remove("page")
    assert store.load("page").entry is None

    clock.shift(61)
    assert [visit(app) for _ in range(2)] == [("STALE", "run 1"), ("HIT", "run 2")]
    assert runs == [1, 2]

    monkeypatch.undo()
    store.write(entry)
    for each in (store, engine.store):
        each.tick()
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.load("page")
    other.tick()
    other.write(make_entry())
    assert store.lookup("page") is None
    assert visit(app) == ("HIT", "run 2")


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
        return str(path).startswith(str(directory)) and str(path).endswith(suffix)

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
                engine.submit(job)
                assert engine.drain(PATIENCE)
        assert job.calls == 1
    clock.shift(3)
    monotonic(3)
    assert engine.serve(origin).refresh
    engine.submit(job)
    assert engine.drain(PATIENCE)
    assert job.calls == 2
    assert engine.serve(origin).status is CacheStatus.HIT
    assert origin.calls == 0


def test_threads_share_one_call_although_nothing_can_be_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, joined, join = make_engine(directory), [], Flights.join

    def counting_join(flights: Flights, key: str) -> tuple[Flight, bool]:
        flight = join(flights, key)
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
    """Run an app on a full disk, or where no file can be larger than ``size``; return what it came to."""
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
