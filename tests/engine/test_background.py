"""Whether a refresh is still wanted once it holds the lock of the key. How refreshes run is tested in test_refreshes."""

from __future__ import annotations

import time

import pytest

from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.engine.background import _is_wanted
from flask_stalecache.stores.base import Copy
from support.engine import FakeRefresh, make_entry

WINDOWS = (60, 600, 86400)
FRESH, IN_SWR, PAST_ALL = 1, 100, 100_000


class Silent(FakeRefresh):
    """A refresh whose origin is not called now, even where nothing can be served."""

    def is_backing_off(self, copy: Copy) -> bool:
        """As after a failure of the origin a short while ago."""
        return True


@pytest.mark.parametrize(
    ("age", "backs_off", "job", "wanted"),
    [
        pytest.param(None, False, FakeRefresh(), False, id="nothing stored"),
        pytest.param(None, False, FakeRefresh(fills_missing=True), True, id="nothing stored, and it fills"),
        pytest.param(None, False, Silent(fills_missing=True), False, id="nothing stored, and its origin backs off"),
        pytest.param(None, False, FakeRefresh(forced=True), False, id="nothing stored, forced"),
        pytest.param(FRESH, False, FakeRefresh(), False, id="fresh"),
        pytest.param(FRESH, True, FakeRefresh(forced=True, fills_missing=True), True, id="fresh, forced"),
        pytest.param(IN_SWR, False, FakeRefresh(), True, id="stale"),
        pytest.param(IN_SWR, True, FakeRefresh(), False, id="stale, and the key backs off"),
        pytest.param(IN_SWR, True, FakeRefresh(fills_missing=True), False, id="stale, fills, and the key backs off"),
        pytest.param(PAST_ALL, True, FakeRefresh(), False, id="past its windows, and the key backs off"),
        pytest.param(PAST_ALL, True, FakeRefresh(fills_missing=True), True, id="past its windows, and a caller waits for it"),
        pytest.param(PAST_ALL, True, Silent(fills_missing=True), False, id="past its windows, and its origin backs off"),
    ],
)
def test_a_refresh_is_wanted(age: float | None, backs_off: bool, job: FakeRefresh, wanted: bool) -> None:
    now = time.time()
    entry = None if age is None else make_entry(windows=WINDOWS, started=now - age)
    note = Note(written=now, failures=1, retry_at=now + 60) if backs_off else NOTHING
    assert _is_wanted(Copy("page", entry, note, 0, 0), job) is wanted
