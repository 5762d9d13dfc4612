"""Builds the Age, Cache-Status and X-Cache-Status fields. Pure."""

from __future__ import annotations

from collections.abc import Collection

from ...core.model.entry import Entry
from ...core.rules.status import CacheStatus, forwarded_field, hit_field, status_fields
from ...engine.origin import Served

Fields = list[tuple[str, str]]
#: The value of ``fwd`` in Cache-Status (RFC 9211 section 2.2).
_FORWARDED_BECAUSE = {CacheStatus.MISS: "uri-miss", CacheStatus.EXPIRED: "stale", CacheStatus.REVALIDATED: "stale"}
_STALE = (CacheStatus.STALE, CacheStatus.UPDATING)


def fields_for_copy(served: Served, entry: Entry, now: float, chosen: Collection[str], more: str = "") -> Fields:
    """Return Age (RFC 9111 section 5.1) and the status fields of a stored response.

    :param now: seconds since the epoch.
    :param chosen: which status fields are sent.
    :param more: the debug detail of ``Cache-Status``, as :func:`~.debug_detail.debug_detail` returns it.
    """
    # entry.age() written inline, since every hit gets here. A fresh entry is not from the future.
    age = now - entry.answered if served.status is CacheStatus.HIT else entry.age(now)
    if age < 0.0:
        age = 0.0
    ttl = entry.windows.max_age - age
    if served.status is not CacheStatus.HIT and served.status in _STALE:
        # A deploy or a soft purge makes an entry stale before its lifetime ends: the field must not claim freshness.
        ttl = min(ttl, 0.0)
    if served.collapsed:
        field = forwarded_field(_FORWARDED_BECAUSE[served.status], status=entry.status, ttl=ttl, collapsed=True)
    else:
        field = hit_field(ttl)
    return [("Age", str(int(age))), *status_fields(served.status, field + more, chosen)]


def fields_for_answer(served: Served, status: int, chosen: Collection[str], reason: str = "", more: str = "") -> Fields:
    """Return the status fields of the origin's answer.

    :param status: the origin's status.
    :param chosen: which status fields are sent.
    :param reason: the value of ``fwd``; "": as the status determines it.
    :param more: the debug detail of ``Cache-Status``, as :func:`~.debug_detail.debug_detail` returns it.
    """
    answer = served.answer
    assert answer is not None
    entry = answer.entry
    # A response from another cache has an age when it arrives.
    ttl = entry.windows.max_age - max(0.0, entry.received - entry.answered) if served.stored and entry is not None else None
    reason = reason or _FORWARDED_BECAUSE.get(served.status, "bypass")
    field = forwarded_field(reason, status=status, ttl=ttl, stored=served.stored, collapsed=served.collapsed)
    return status_fields(served.status, field + more, chosen)
