"""What the processes of a host know of the shared server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flask_stalecache.filesystem import uptime
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.shared.known import (
    FILE_NAME,
    LONGEST_DOWN,
    Known,
    local_number,
    number_above,
    number_of,
    shared_number,
)
from flask_stalecache.stores.table.stamps import is_settled

NUMBER = 1_800_000_000_000_123


@pytest.fixture
def place(directory: Path) -> Path:
    FileStore(directory).load("anything")
    return directory


def known_at(place: Path) -> Known:
    known = Known(place)
    known.open()
    return known


def test_all_processes_know_the_same(place: Path) -> None:
    one, other = known_at(place), known_at(place)
    one.put(7, 3)
    one.applied, one.change, one.generation = NUMBER, 12, number_of("generation")
    assert other.serial(7) == 3
    assert (other.applied, other.change, other.generation) == (NUMBER, 12, number_of("generation"))
    assert one.host_id() == other.host_id() != ""


def test_what_was_noted_meanwhile_stays(place: Path) -> None:
    known = known_at(place)
    before = known.serial(7)
    known.put(7, 5)
    known.note(7, 4, since=before)
    assert known.serial(7) == 5
    known.note(7, 4, since=5)
    assert known.serial(7) == 4
    known.forget_all()
    assert known.serial(7) == 0


def test_a_server_is_down_for_a_while(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(uptime, "read_clock", lambda: now)
    one, other = known_at(place), known_at(place)
    assert not one.is_down
    one.down_until = now + 2
    assert other.is_down
    now += 2
    assert not other.is_down
    # The machine was started anew.
    one.down_until, now = now + 2, 10.0
    assert not other.is_down
    assert LONGEST_DOWN < 990


def test_how_long_nothing_was_heard(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(uptime, "read_clock", lambda: now)
    known = known_at(place)
    assert known.silence == float("inf")
    known.has_heard()
    now += 1.5
    assert known.silence == 1.5
    now = 10.0
    assert known.silence == float("inf")


def test_a_copy_is_another_host_and_knows_nothing(place: Path, tmp_path: Path) -> None:
    known = known_at(place)
    known.put(7, 3)
    known.applied = NUMBER
    name = known.host_id()
    shutil.copytree(place, tmp_path / "copy")
    copy = known_at(tmp_path / "copy")
    assert copy.host_id() != name
    assert (copy.serial(7), copy.applied) == (0, 0)


def test_a_table_that_is_deleted_is_made_anew(place: Path) -> None:
    known, other = known_at(place), known_at(place)
    known.change = 5
    (place / FILE_NAME).unlink()
    known.tick()
    other.tick()
    assert known.change == 0
    known.change = 6
    assert other.change == 6


def test_without_a_directory_a_process_knows_for_itself(directory: Path) -> None:
    known = known_at(directory)
    known.put(7, 3)
    assert known.serial(7) == 3
    assert known.host_id() == known.host_id()
    assert not directory.exists()


def test_numbers_of_the_server_and_of_files() -> None:
    number = local_number(NUMBER)
    # Begun while the purge is applied, and after it.
    assert shared_number(number) == NUMBER - 1
    assert shared_number(number + 1) == NUMBER
    assert not is_settled(number)
    assert number_above(number + 1) == NUMBER + 1
    assert number_above(number) == NUMBER
    assert (shared_number(0), number_above(0)) == (0, 0)


def test_serials_have_numbers() -> None:
    assert number_of("") == 0
    assert number_of("a") != number_of("b")
    assert 0 < number_of("a") <= 2**48
