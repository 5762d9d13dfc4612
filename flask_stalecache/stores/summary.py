"""What people are told of an entry: what it is, in which window it is, how large and how old. It has no clock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..batches.selector import endpoint_of, function_of, title_of
from ..core.model.note import Note
from ..core.model.purge_names import tags_in
from ..core.rules.explain import State, state_of
from ..core.rules.serving import PLAIN, ServeOptions
from .base import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One entry, as a line of a list.

    :ivar title: the URL of a page or response, or the call of a fetch function.
    :ivar of: the endpoint of a page, or the name of a fetch function; "" for what has neither.
    :ivar state: which of its windows it is in.
    :ivar failing: its origin failed when it was called last.
    :ivar status: the HTTP status; that of a call is 200.
    :ivar age: seconds since the origin answered.
    :ivar fresh_for: seconds of freshness that are left; negative for a stale one.
    :ivar windows: seconds of max_age, stale_while_revalidate and stale_if_error.
    :ivar length: bytes of the body.
    :ivar size: bytes on the disk.
    :ivar used: seconds since its last use, as far as it is known.
    :ivar tags: the names that it was given.
    :ivar key: the whole key.
    """

    title: str
    of: str
    state: State
    failing: bool
    status: int
    age: float
    fresh_for: float
    windows: tuple[float, float, float]
    length: int
    size: int
    used: float
    tags: tuple[str, ...]
    key: str

    def to_json(self) -> dict[str, Any]:
        """Return it as data."""
        data = asdict(self)
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
    """Return what people are told of an entry.

    :param now: seconds since the epoch.
    :param terms: what the app says of it.
    """
    entry, windows = stored.entry, stored.entry.windows
    age = entry.age(now)
    fresh_for = windows.max_age - age
    state = state_of(entry, now, terms)
    return Summary(
        title=title_of(entry),
        of=endpoint_of(entry) or function_of(entry) or "",
        state=state,
        failing=is_failing(stored.note, now),
        status=entry.status,
        age=age,
        # Also what a deploy or a soft purge has made stale.
        fresh_for=fresh_for if state is State.FRESH else min(0.0, fresh_for),
        windows=(windows.max_age, windows.stale_while_revalidate, windows.stale_if_error),
        length=stored.length,
        size=stored.size,
        used=max(0.0, now - stored.used),
        tags=tags_in(entry.names),
        key=entry.key,
    )


def is_failing(note: Note, now: float) -> bool:
    """Whether an origin failed when it was called last; a note from the future says nothing."""
    return note.failures > 0 and note.written <= now
