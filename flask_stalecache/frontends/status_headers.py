"""What is said of how an answer came to be sent: Age and the status fields. Pure."""

from __future__ import annotations

from collections.abc import Collection

from ..core.model.entry import Entry
from ..core.rules.status import CacheStatus, forwarded_field, hit_field, status_fields
from ..engine.origin import Served

Fields = list[tuple[str, str]]
#: Why the origin was asked, in the words of RFC 9211 section 2.2.
_FORWARDED_BECAUSE = {CacheStatus.MISS: "uri-miss", CacheStatus.EXPIRED: "stale", CacheStatus.REVALIDATED: "stale"}
_STALE = (CacheStatus.STALE, CacheStatus.UPDATING)


def fields_for_copy(served: Served, entry: Entry, now: float, chosen: Collection[str], more: str = "") -> Fields:
    """Return the fields that say how a stored response came to be sent: Age (RFC 9111 section 5.1) and the status fields.

    :param now: seconds since the epoch.
    :param chosen: which status fields are sent.
    :param more: what ``Cache-Status`` says more, as :func:`~.debug_detail.debug_detail` returns it.
    """
    age = entry.age(now)
    ttl = entry.windows.max_age - age
    if served.status in _STALE:
        # Also what a deploy or a soft purge has made stale, in a clock that stepped back.
        ttl = min(ttl, 0.0)
    if served.collapsed:
        field = forwarded_field(_FORWARDED_BECAUSE[served.status], status=entry.status, ttl=ttl, collapsed=True)
    else:
        field = hit_field(ttl)
    return [("Age", str(int(age))), *status_fields(served.status, field + more, chosen)]


def fields_for_answer(served: Served, status: int, chosen: Collection[str], reason: str = "", more: str = "") -> Fields:
    """Return the fields that say how the origin's answer came to be sent.

    :param status: the origin's status.
    :param chosen: which status fields are sent.
    :param reason: why it was asked, if it was for another reason than what is or is not stored; else "".
    :param more: what ``Cache-Status`` says more, as :func:`~.debug_detail.debug_detail` returns it.
    """
    answer = served.answer
    assert answer is not None
    entry = answer.entry
    # It may have had an age when it came.
    ttl = entry.windows.max_age - max(0.0, entry.received - entry.answered) if served.stored and entry is not None else None
    reason = reason or _FORWARDED_BECAUSE.get(served.status, "bypass")
    field = forwarded_field(reason, status=status, ttl=ttl, stored=served.stored, collapsed=served.collapsed)
    return status_fields(served.status, field + more, chosen)
