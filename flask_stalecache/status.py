"""What a visitor is told: nginx's word and the ``Cache-Status`` field (RFC 9211). Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import Enum

CACHE_NAME = "stalecache"


class CacheStatus(str, Enum):
    """How a request was answered, in nginx's words (``$upstream_cache_status``)."""

    #: Nothing was stored: the origin answered.
    MISS = "MISS"
    #: This request is not for the cache: the origin answered, nothing was stored.
    BYPASS = "BYPASS"
    #: What was stored was too old to be served: the origin answered.
    EXPIRED = "EXPIRED"
    #: A stale copy, and this request hands over its refresh; or a stale copy because the origin fails.
    STALE = "STALE"
    #: A stale copy, whose refresh another request has handed over, or waits for the next try.
    UPDATING = "UPDATING"
    #: The origin confirmed the copy.
    REVALIDATED = "REVALIDATED"
    #: A fresh copy.
    HIT = "HIT"

    def __str__(self) -> str:
        return self.value


def hit_field(ttl: float) -> str:
    """Return ``Cache-Status`` of an answer from the store.

    :param ttl: seconds of freshness left; negative for a stale copy (RFC 9211 section 2.4).
    """
    return f"{CACHE_NAME}; hit; ttl={math.floor(ttl)}"


def forwarded_field(
    reason: str, *, status: int | None = None, ttl: float | None = None, stored: bool = False, collapsed: bool = False
) -> str:
    """Return ``Cache-Status`` of an answer that the origin gave.

    :param reason: why it was asked: ``uri-miss``, ``miss``, ``stale``, ``method`` or ``bypass`` (RFC 9211 section 2.2).
    :param status: the origin's status.
    :param ttl: seconds of freshness of what was stored.
    :param stored: whether the answer was stored.
    :param collapsed: whether the request waited for another's call of the origin.
    """
    parts = [CACHE_NAME, f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if ttl is not None:
        parts.append(f"ttl={math.floor(ttl)}")
    if stored:
        parts.append("stored")
    if collapsed:
        parts.append("collapsed")
    return "; ".join(parts)


def status_fields(status: CacheStatus, field: str, chosen: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields to send.

    :param status: nginx's word, for ``X-Cache-Status``.
    :param field: the value of ``Cache-Status``.
    :param chosen: which of the two are sent.
    """
    fields = [("Cache-Status", field), ("X-Cache-Status", status.value)]
    return fields if len(chosen) == len(fields) else [item for item in fields if item[0] in chosen]
