"""Summary of an entry for lists: the shell's ``list`` and the dashboard's tables are made from it. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...core.addressing.keys import digest
from ...core.addressing.purge_names import tags_in
from ...core.model.note import Note
from ...core.model.titles import endpoint_of, function_of, title_of
from ...core.rules.explain import EntryState, state_of_entry
from ...core.rules.serving import PLAIN, ServeOptions
from ..base import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One entry in a list.

    :ivar title: the URL of a page or response, or the call of a fetch function.
    :ivar of: the endpoint of a page, or the name of a fetch function; "" for other entries.
    :ivar state: the window that it is in.
    :ivar failing: the last call of its origin failed.
    :ivar failures: failed calls in a row.
    :ivar retry_in: seconds until its origin may be called again; 0 if it is not backing off.
    :ivar status: the HTTP status; 200 for a value of a fetch function.
    :ivar age: seconds since the origin answered.
    :ivar fresh_for: seconds of freshness left; negative for a stale entry.
    :ivar windows: seconds of max_age, stale_while_revalidate and stale_if_error.
    :ivar length: bytes of the body.
    :ivar size: bytes on the disk.
    :ivar used: seconds since its last known use.
    :ivar tags: its tags.
    :ivar key: the whole key, in which values that may be secrets are digests.
    :ivar address: its digest, by which commands and pages find the entry.
    """

    title: str
    of: str
    state: EntryState
    failing: bool
    failures: int
    retry_in: float
    status: int
    age: float
    fresh_for: float
    windows: tuple[float, float, float]
    length: int
    size: int
    used: float
    tags: tuple[str, ...]
    key: str
    address: str

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        data = asdict(self)
        # For the dashboard only: the format of ``list --json`` is public.
        del data["failures"], data["retry_in"]
        max_age, swr, sie = data.pop("windows")
        return {
            **data,
            "state": self.state.value,
            "tags": list(self.tags),
            "max_age": max_age,
            "stale_while_revalidate": swr,
            "stale_if_error": sie,
        }


def summary_of(stored: Stored, now: float, terms: ServeOptions = PLAIN) -> Summary:
    """Return the summary of an entry.

    :param now: seconds since the epoch.
    :param terms: the serving options of its app.
    """
    entry, note, windows = stored.entry, stored.note, stored.entry.windows
    age = entry.age(now)
    fresh_for = windows.max_age - age
    state = state_of_entry(entry, now, terms)
    return Summary(
        title=title_of(entry),
        of=endpoint_of(entry) or function_of(entry) or "",
        state=state,
        failing=is_failing(note, now),
        failures=note.failures,
        retry_in=note.pause_left(now),
        status=entry.status,
        age=age,
        # A deploy or a soft purge ends freshness before max_age.
        fresh_for=fresh_for if state is EntryState.FRESH else min(0.0, fresh_for),
        windows=(windows.max_age, windows.stale_while_revalidate, windows.stale_if_error),
        length=stored.length,
        size=stored.size,
        used=max(0.0, now - stored.used),
        tags=tags_in(entry.names),
        key=entry.key,
        address=digest(entry.key),
    )


def is_failing(note: Note, now: float) -> bool:
    """Whether the last call of an origin failed. A note from the future does not count: the clock was wrong then."""
    return note.failures > 0 and note.written <= now
