"""The summary of an entry, which the shell and the dashboard list."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flask_stalecache.core.model.note import Note
from flask_stalecache.stores.base import Stored
from flask_stalecache.stores.formats.summary import Summary, is_failing, summary_of
from support.engine import make_entry

NOW = 1_800_000_000.0


def summary(age: float = 10, note: Note | None = None, **changes: Any) -> Summary:
    entry = dataclasses.replace(make_entry(started=NOW - age), **changes)
    return summary_of(Stored(entry, 100, 4096, NOW - 3, note or Note()), NOW)


@pytest.mark.parametrize(
    ("age", "state", "fresh_for"), [(10, "fresh", 50), (60, "stale", 0), (100, "stale", -40), (10**6, "expired", 60 - 10**6)]
)
def test_an_entry_is_in_the_window_of_its_age(age: float, state: str, fresh_for: float) -> None:
    found = summary(age)
    assert (found.state.value, found.age, found.fresh_for) == (state, age, fresh_for)


def test_a_soft_purge_ends_the_freshness_before_its_time() -> None:
    entry = make_entry(started=NOW - 10).softly_purged(NOW - 5)
    found = summary_of(Stored(entry, 100, 4096, NOW, Note()), NOW)
    assert (found.state.value, found.fresh_for) == ("stale", -5)


@pytest.mark.parametrize(
    ("note", "failing", "failures", "retry_in"),
    [
        (Note(), False, 0, 0),
        (Note(failures=2, retry_at=NOW + 20, written=NOW - 5), True, 2, 20),
        (Note(failures=2, retry_at=NOW - 1, written=NOW - 5), True, 2, 0),
        (Note(failures=2, retry_at=NOW + 20, written=NOW + 5), False, 2, 0),
    ],
)
def test_a_failing_origin_shows(note: Note, failing: bool, failures: int, retry_in: float) -> None:
    found = summary(note=note)
    assert is_failing(note, NOW) == found.failing == failing
    assert (found.failures, found.retry_in) == (failures, retry_in)


def test_its_data_has_the_windows_by_name_and_nothing_that_only_the_dashboard_shows() -> None:
    assert set(summary().to_json()) == {
        "title", "of", "state", "failing", "status", "age", "fresh_for", "length", "size", "used", "tags", "key", "address",
        "max_age", "stale_while_revalidate", "stale_if_error",
    }  # fmt: skip
