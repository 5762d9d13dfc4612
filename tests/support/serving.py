"""Helpers of the tests of serving."""

from __future__ import annotations

from hypothesis import strategies as st

from flask_stalecache import CacheStatus
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import Note
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.rules.serving import (
    Fetch,
)

NOON = 1_800_000_000.0

MAX_AGE, SWR, SIE = 60.0, 600.0, 86400.0

JUST = 0.001


def stored(
    max_age: float = MAX_AGE,
    swr: float = SWR,
    sie: float = SIE,
    never_stale: bool = False,
    version: str = "",
    deployed: float = 0.0,
) -> Entry:
    """An entry whose origin answered at noon."""
    return Entry(
        key="k",
        serial="s",
        names=(),
        seq=0,
        version=version,
        deployed=deployed,
        started=NOON - 1,
        answered=NOON,
        windows=Windows(max_age, swr, sie),
        never_stale=never_stale,
        shared=False,
        absent=RequestInputs(),
        varied=(),
        status=200,
        headers=(),
        body=b"page",
        recipe={},
    )


ENTRY = stored()

NEVER_STALE = stored(never_stale=True)

NO_SWR = stored(swr=0.0)

NO_STALE = stored(swr=0.0, sie=0.0)

NEVER_FRESH = stored(max_age=0.0)

NOTHING_AT_ALL = stored(max_age=0.0, swr=0.0, sie=0.0)

#: Written long before, and until long after, every moment of the table.
PAUSE = Note(written=NOON - 1e9, failures=1, retry_at=NOON + 1e9)


def pause(written: float, retry_at: float) -> Note:
    return Note(written=NOON + written, failures=1, retry_at=NOON + retry_at)


MISS = Fetch(CacheStatus.MISS, None, None)


def expired(entry: Entry, *, if_error: bool, if_locked: bool = True) -> Fetch:
    return Fetch(CacheStatus.EXPIRED, entry if if_error else None, entry if if_locked else None)


SWR_END, SIE_END = MAX_AGE + SWR, MAX_AGE + SIE

spans = st.sampled_from([0.0, 1.0, 60.0, 600.0])

moments = st.sampled_from([-1e6, -1.0, 0.0, 1.0, 59.0, 60.0, 61.0, 120.0, 600.0, 660.0, 661.0, 1200.0, 1e6])
