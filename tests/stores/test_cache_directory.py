"""The states of a cache directory: closed, mapped, without a table, and what leads from one to another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores import cache_directory as module
from flask_stalecache.stores.base import DirectoryStore
from flask_stalecache.stores.cache_directory import CacheDirectory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table.stamps import FILE_NAME, SEQ_SLOT


class Opened:
    """A cache directory that counts how often its table has changed."""

    def __init__(self, path: Path) -> None:
        self.changes = 0
        self.counters = Counters()
        held = Directory(path)
        self.records = PurgeRecords(held)
        self.directory = CacheDirectory(held, self.records, self.counters, self._change)

    def _change(self) -> None:
        self.changes += 1


@pytest.fixture
def opened(directory: Path) -> Opened:
    return Opened(directory)


def without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "Stamps", fail)


def test_a_closed_directory_has_no_table_and_is_not_made_by_who_only_reads(opened: Opened) -> None:
    directory = opened.directory
    assert not directory.open_if_exists()
    assert (directory.stamps, directory.was_opened, directory.path.exists()) == (None, False, False)
    assert directory.newer_version() is None


def test_an_open_directory_has_its_table_mapped_once(opened: Opened) -> None:
    opened.directory.open()
    stamps = opened.directory.stamps
    opened.directory.open()
    opened.directory.reopen_if_replaced()
    assert stamps is not None
    assert opened.directory.stamps is stamps
    assert (opened.changes, opened.directory.was_opened, opened.directory.is_current(opened.directory.table)) == (1, True, True)


def test_a_table_that_was_replaced_is_mapped_again(opened: Opened) -> None:
    opened.directory.open()
    before = opened.directory.stamps
    (opened.directory.path / FILE_NAME).unlink()
    assert not opened.directory.is_current(opened.directory.table)
    opened.directory.reopen_if_replaced()
    assert opened.directory.stamps is not before
    assert opened.directory.is_current(opened.directory.table)


def test_a_table_that_can_not_be_mapped_is_tried_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        without_tables(full)
        opened.directory.open()
        opened.directory.reopen_if_replaced()
        assert (opened.directory.stamps, opened.counters["no_stamps"]) == (None, 2)
        assert not opened.directory.has_unmapped_table()
    opened.directory.reopen_if_replaced()
    assert opened.directory.stamps is not None


def test_the_table_of_others_that_can_not_be_mapped_here_is_known(
    opened: Opened, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Opened(directory).directory.open()
    without_tables(monkeypatch)
    opened.directory.open()
    assert opened.directory.has_unmapped_table()


def test_a_new_table_knows_the_purges_before_it(opened: Opened) -> None:
    opened.directory.open()
    opened.records.note_number(12345)
    (opened.directory.path / FILE_NAME).unlink()
    opened.directory.reopen_if_replaced()
    assert opened.directory.stamps is not None
    assert opened.directory.stamps.table[SEQ_SLOT] == 12345


def test_a_folder_is_made_in_a_directory_that_was_deleted_while_it_was_open(opened: Opened) -> None:
    opened.directory.open()
    shutil.rmtree(opened.directory.path)
    opened.directory.make_folder(opened.directory.path / "a0")
    assert (opened.directory.path / "a0").is_dir()
    assert opened.directory.is_current(opened.directory.table)


def test_what_a_later_version_has_made_is_found(opened: Opened) -> None:
    opened.directory.open()
    assert opened.directory.newer_version() is None
    (opened.directory.path / "stamps-99").touch()
    assert opened.directory.newer_version() == "stamps-99"


def test_a_file_store_has_a_directory_and_another_store_need_not(directory: Path) -> None:
    assert isinstance(FileStore(directory), DirectoryStore)
    assert not isinstance(object(), DirectoryStore)
