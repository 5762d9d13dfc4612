"""The file store: modes, directories that can't be used, planted files, and a directory that goes away.

Covers ``filesystem.atomic`` and ``stores.entry_file``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue

import pytest

from flask_stalecache import CacheStatus, ConfigError, FileStore, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import Note
from support.engine import FakeOrigin, body_of, make_engine, make_entry
from support.file_store import LOGGER, counted, entries_in, make_site, visit
from support.processes import NOBODY, become_nobody, workers

ROOT = os.geteuid() == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


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
        store.load("page")
    lock = store.lock("page")
    with suppress(StoreError):
        assert lock.acquire()
    umask(0o022)
    paths = [directory, *directory.rglob("*")]
    wrong = {path.name: oct(mode_of(path)) for path in paths if mode_of(path) != (0o700 if path.is_dir() else 0o600)}
    lock.release()
    assert wrong == {}
    assert len(paths) >= 6


def test_nothing_is_made_before_the_first_use(directory: Path) -> None:
    app, _ = make_site(directory)
    assert not directory.exists()
    assert visit(app) == ("MISS", "run 1")
    assert mode_of(directory) == 0o700


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


#: Directories that can't be used: how to make each, and a pattern that the error message matches.
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


#: Only root can give a directory to another user; other users take one that belongs to root.
if ROOT:
    UNUSABLE["somebody else's"] = (somebody_elses, f"user {NOBODY}")
    UNUSABLE["a link of somebody else"] = (a_link_of_somebody_else, f"user {NOBODY}")
    UNUSABLE["a link to somebody else's"] = (a_link_to_somebody_elses, f"user {NOBODY}")
else:
    UNUSABLE["a link to somebody else's"] = (lambda path: path.symlink_to("/usr"), "user 0")


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Return a path at which tests make a directory that can't be used. Its parent exists."""
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


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775, 0o770], ids=oct)
@pytest.mark.parametrize("taken", [(), ("cache",)], ids=["free", "cache is taken"])
def test_a_volume_that_others_can_write_to_works_by_the_directory_that_the_error_names(
    nested: Path, mode: int, taken: tuple[str, ...]
) -> None:
    """An emptyDir or a tmpfs of a container, which can't change the mode."""
    nested.mkdir()
    for name in taken:
        (nested / name).write_text("somebody else's")
    nested.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        make_site(nested)
    named = re.search(r"STALECACHE_DIR=(\S+)$", str(caught.value))
    assert named is not None
    assert named[1] == str(nested / ("stalecache" if taken else "cache"))
    app, _ = make_site(Path(named[1]))
    assert [visit(app) for _ in range(2)] == [("MISS", "run 1"), ("HIT", "run 1")]
    assert mode_of(Path(named[1])) == 0o700


def advice_for(volume: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the error of an app without root's rights for a volume, and its pages with the directory that the error names."""
    with tempfile.TemporaryDirectory() as place:
        visit(make_site(Path(place) / "cache")[0])
    message = refusal_of(volume)
    app, _ = make_site(Path(message.rpartition("STALECACHE_DIR=")[2]))
    return message, [visit(app) for _ in range(2)]


@pytest.mark.skipif(not ROOT, reason="only root can make a volume that belongs to root, for a user who is not")
def test_a_volume_of_another_user_works_by_the_directory_that_the_error_names(open_place: Path) -> None:
    volume = open_place / "volume"
    volume.mkdir()
    volume.chmod(0o1777)
    with workers(1) as made:
        message, pages = made[0].run(advice_for, volume)
    assert "belongs to user 0" in message
    assert pages == [("MISS", "run 1"), ("HIT", "run 1")]


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
    """Return the error of an app without root's rights for a directory, or ""."""
    if os.geteuid() == 0:
        become_nobody()
    try:
        make_site(directory)
    except ConfigError as error:
        return str(error)
    return ""


def pages_of(directory: Path) -> tuple[list[tuple[str, str]], int, list[str]]:
    """Return the pages of an app without root's rights, the count of failures, and the log."""
    with tempfile.TemporaryDirectory() as place:
        # Imports all that is imported late: the user ``nobody`` may be unable to read it.
        visit(make_site(Path(place) / "cache")[0])
    if os.geteuid() == 0:
        become_nobody()
    app, _ = make_site(directory)
    log = QueueHandler(SimpleQueue())
    logging.getLogger(LOGGER).addHandler(log)
    pages = [visit(app) for _ in range(2)]
    return pages, counted(app, "store_failures"), [log.queue.get().getMessage() for _ in range(log.queue.qsize())]


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
        pages, failures, log = made[0].run(pages_of, readonly / "instance" / "cache")
    assert [page for _, page in pages] == ["run 1", "run 2"]
    assert failures >= 2
    assert len(log) == 1
    assert "STALECACHE_DIR" in log[0]
    assert f"Permission denied: {readonly / 'instance'}" in log[0]


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
    app.extensions["stalecache"].engine.runtime.tick()
    assert [visit(app) for _ in range(2)] == [("MISS", "run 2"), ("HIT", "run 2")]
    assert mode_of(directory) == 0o700
    assert len(entries_in(directory)) == 1
    assert counted(app, "store_failures") == 0


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
            engine.runtime.tick()
        assert visit(app, "/news") == ("MISS", "run 2")
    assert len(caplog.records) == 1
    directory.unlink()
    engine.runtime.tick()
    assert [visit(app, "/news")[1] for _ in range(2)] == ["run 3", "run 3"]
