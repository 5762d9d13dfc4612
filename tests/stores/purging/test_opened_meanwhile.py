"""Purging: another thread of the process opens the table while a purge runs, as threads of a new worker do."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from flask_stalecache.filesystem.held_file import HeldFile
from flask_stalecache.stores import cache_directory as directory_module
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_record import Purge
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from support.purging import NEWS, OLD, begun, body_in

PATIENCE = 10.0


class Opener:
    """A thread that opens the table of a store again, and stops once it has it, before it has looked for the last purge.

    :param store: the store.
    """

    def __init__(self, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._has_table, self._may_end = threading.Event(), threading.Event()
        self._directory, self._last_number = store._cache_directory, store._records.last_number
        self._thread = threading.Thread(target=self._open, daemon=True)
        monkeypatch.setattr(store._records, "last_number", self._look)

    def _open(self) -> None:
        self._directory.stamps = self._directory.table = None
        self._directory.reopen_if_replaced()

    def _look(self) -> int:
        if threading.current_thread() is self._thread:
            self._has_table.set()
            assert self._may_end.wait(PATIENCE)
        return self._last_number()

    def start(self) -> None:
        """Open the table."""
        self._thread.start()
        assert self._has_table.wait(PATIENCE)

    def end(self) -> None:
        """Look for the last purge."""
        self._may_end.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def by_name(store: FileStore) -> None:
    store.purge(NEWS, soft=False)


def of_another_host(store: FileStore) -> None:
    store.apply_purges([Purge((NEWS,), store.seq() // 2 * 2 + 1000, False, 0.0)])


@pytest.mark.parametrize("purge", [by_name, of_another_host])
def test_copies_of_other_processes_do_not_outlive_a_purge(
    directory: Path, purge: Callable[[FileStore], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, mine = FileStore(directory), FileStore(directory)
    other.purge("tag:another", soft=False)
    other.write(begun(other, OLD))
    assert body_in(other) == OLD
    assert other.lookup("page") is not None
    opener, has_gone_back = Opener(mine, monkeypatch), mine._records.has_gone_back

    def open_first() -> bool:
        # The purge has its table by now, and has purge.lock.
        opener.start()
        return has_gone_back()

    monkeypatch.setattr(mine._records, "has_gone_back", open_first)
    purge(mine)
    assert other.lookup("page") is None
    assert body_in(other) is None
    opener.end()


def test_a_table_is_locked_even_if_another_process_opens_it_at_the_same_moment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is changed in two steps: another process may have it for itself between them, and then both steps have failed."""
    try_lock = HeldFile.try_lock
    others: list[IO[bytes]] = []

    def lose_it_once(file: HeldFile, *, exclusive: bool) -> bool:
        if exclusive or others:
            return try_lock(file, exclusive=exclusive)
        fcntl.flock(file._descriptor, fcntl.LOCK_UN)
        others.append((directory / FILE_NAME).open("rb"))
        fcntl.flock(others[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = try_lock(file, exclusive=False)
        others[0].close()
        return is_locked

    monkeypatch.setattr(HeldFile, "try_lock", lose_it_once)
    store = FileStore(directory)
    store.purge(NEWS, soft=False)
    assert others
    with (directory / FILE_NAME).open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_entry_is_not_stored_if_it_was_begun_while_the_last_purge_was_unknown(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a table, the last purge is unknown while another process purges. Twice unknown does not mean: no purge meanwhile."""

    def fail(*args: Any) -> Stamps:
        raise OSError("no room for the table")

    monkeypatch.setattr(directory_module, "Stamps", fail)
    store = FileStore(directory)
    store.purge("tag:another", soft=False)
    number = store.seq()
    lock = store._cache_directory.take_purge_lock()
    assert lock is not None
    entry = begun(store, OLD)
    assert 0 < entry.seq < number
    assert store.seq() != entry.seq
    lock.release()
    store.purge(NEWS, soft=False)
    lock.acquire()
    assert not store.write(entry)
    lock.release()
    assert body_in(store) is None
