"""Files, locks and maps that are opened while an exception, as of a signal's handler, may come at any point.

Covers ``filesystem.descriptors`` and, with the tests of the stores, ``filesystem.locks`` and ``filesystem.atomic``.
"""

from __future__ import annotations

import gc
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_stalecache.filesystem import shared_memory
from flask_stalecache.filesystem.atomic import append_to_file, files_in, make_directories, read_file, write_file
from flask_stalecache.filesystem.descriptors import Descriptor, open_descriptor
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.filesystem.held_file import HeldFile
from flask_stalecache.filesystem.locks import FileKeyLock, held, remove_if_idle
from support.interrupting import Interrupter, descriptors
from support.threads import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "there").write_bytes(b"content")
    return tmp_path


@pytest.fixture
def folder(place: Path) -> Directory:
    directory = Directory(place / "cache")
    make_directories(directory.path)
    directory.hold()
    return directory


def lock_of(directory: Directory) -> FileKeyLock:
    return FileKeyLock(directory.path / "page.lock", make_directories, directory=directory, is_passing=True)


def hold(directory: Directory) -> None:
    with held(lock_of(directory)):
        pass


def take_and_release(directory: Directory) -> None:
    lock = lock_of(directory)
    try:
        assert lock.acquire()
    finally:
        lock.release()


def map_memory(directory: Directory) -> None:
    memory = shared_memory.make(8192)
    try:
        shared_memory.find(memory.name, 8192)
    finally:
        memory.remove()


DEEDS: dict[str, Callable[[Directory], object]] = {
    "reading a file": lambda it: read_file(it.path.parent / "there"),
    "writing a file": lambda it: write_file(it.at("page"), b"new", 0, is_durable=True),
    "appending to a file": lambda it: append_to_file(it.at("lines"), b"line\n"),
    "listing a folder": lambda it: list(files_in(it.at("."))),
    "taking a lock": take_and_release,
    "holding a lock": hold,
    "removing a lock": lambda it: remove_if_idle(it.at("page.lock")),
    "holding a file": lambda it: HeldFile(open_descriptor(it.path.parent / "there", os.O_RDONLY)).size,
    "holding a directory": lambda it: it.hold(),
    "giving a descriptor away": lambda it: open_descriptor(it.path.parent / "there", os.O_RDONLY).into_file().close(),
    "mapping memory": map_memory,
}


def open_below(places: str | tuple[str, ...]) -> list[str]:
    """Return this process's open files whose path begins with one of some texts."""
    return [target for target in descriptors().values() if target.startswith(places)]


@pytest.mark.grid
@pytest.mark.parametrize("at_signals", [False, True], ids=["lines", "signals"])
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_an_exception_anywhere_leaves_nothing_open(
    folder: Directory, deed: Callable[[Directory], object], at_signals: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would look at all idle memory, and other tests may have left many thousands of files.
    monkeypatch.setattr(shared_memory, "_remove_idle", lambda size: None)
    deed(folder)
    # Threads of apps of earlier tests open files too: elsewhere, but for shared memory.
    ours = (str(folder.path.parent), shared_memory.FOLDER + "/stalecache") if deed is map_memory else str(folder.path.parent)
    before, seen = open_below(ours), set[tuple[str, int]]()
    while True:
        interrupter = Interrupter(at_signals=at_signals, seen=seen)
        was_interrupted = interrupter.run(lambda: deed(folder))
        left = f"the end of {Counter(open_below(ours)) - Counter(before)} after {interrupter.place}"
        wait_until(lambda: len(open_below(ours)) <= len(before), left)
        assert list(folder.path.rglob("*.tmp")) == [], interrupter.place
        lock = lock_of(folder)
        assert lock.acquire(), interrupter.place
        lock.release()
        # The lock refers to the directory.
        del lock
        if not was_interrupted:
            break
    assert len(seen) > 3


def test_a_descriptor_is_closed_once(place: Path) -> None:
    with open_descriptor(place / "there", os.O_RDONLY) as descriptor:
        assert os.read(descriptor, 100) == b"content"
    assert not descriptor.is_open
    other = os.open(place / "there", os.O_RDONLY)
    assert other == descriptor
    descriptor.close()
    del descriptor
    gc.collect()
    os.close(other)


@pytest.mark.parametrize("how", ["closed", "dropped", "given away", "forgotten"])
def test_who_closes_a_descriptor(place: Path, how: str) -> None:
    descriptor: Descriptor | None = open_descriptor(place / "there", os.O_RDONLY)
    assert descriptor is not None
    number = int(descriptor)
    with ExitStack() as stack:
        if how == "closed":
            descriptor.close()
        elif how == "given away":
            assert stack.enter_context(descriptor.into_file()).read() == b"content"
        elif how == "forgotten":
            descriptor.forget()
            stack.callback(os.close, number)
        descriptor = None
        is_open = str(number) in descriptors()
        assert is_open == (how in ("given away", "forgotten"))


def test_a_lock_that_nobody_refers_to_is_free(folder: Directory) -> None:
    lock = lock_of(folder)
    assert lock.acquire()
    assert not lock_of(folder).acquire()
    del lock
    assert lock_of(folder).acquire()


def test_a_forked_child_neither_keeps_nor_frees_the_lock_of_its_parent(folder: Directory) -> None:
    lock = lock_of(folder)
    assert lock.acquire()
    parents, childs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        parents.close()
        lock.release()
        childs.send(b"released")
        # Wait until the parent has looked, and closes its end.
        childs.recv(1)
        os._exit(0)
    childs.close()
    try:
        assert parents.recv(8) == b"released"
        assert not lock_of(folder).acquire()
        # As if the parent had been killed: its descriptor is closed, and the lock is not released first.
        lock._held.pop()[0].close()
        assert lock_of(folder).acquire()
    finally:
        parents.close()
        os.waitpid(pid, 0)
