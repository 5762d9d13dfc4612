"""Builds the status fields of a response: ``Cache-Status`` (RFC 9211) and ``X-Cache-Status``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from enum import Enum
from urllib.parse import quote

CACHE_NAME = "stalecache"
#: The fields that tell how a request was answered: the standard one (RFC 9211), and the one that nginx users know.
STATUS_HEADERS = _STANDARD, _NGINX = "Cache-Status", "X-Cache-Status"
#: The greatest length of a key and of a detail in Cache-Status.
KEY_LENGTH, DETAIL_LENGTH = 200, 400


class CacheStatus(str, Enum):
    """How a request was answered, in nginx's words (``$upstream_cache_status``)."""

    #: Nothing was stored: the origin answered.
    MISS = "MISS"
    #: The request bypassed the cache: the origin answered, and nothing was stored.
    BYPASS = "BYPASS"
    #: The stored entry was too old: the origin answered.
    EXPIRED = "EXPIRED"
    #: A stale entry. This request queues its refresh, or the origin has failed.
    STALE = "STALE"
    #: A stale entry. Its refresh is queued or running, or waits for the next retry.
    UPDATING = "UPDATING"
    #: The origin confirmed the entry.
    REVALIDATED = "REVALIDATED"
    #: A fresh entry.
    HIT = "HIT"

    def __str__(self) -> str:
        return self.value


def hit_field(ttl: float) -> str:
    """Return ``Cache-Status`` for an answer from the store.

    :param ttl: seconds of freshness left; negative for a stale entry (RFC 9211 section 2.4).
    """
    return f"{CACHE_NAME}; hit; ttl={math.floor(ttl)}"


def forwarded_field(
    reason: str, *, status: int | None = None, ttl: float | None = None, stored: bool = False, collapsed: bool = False
) -> str:
    """Return ``Cache-Status`` for an answer of the origin.

    :param reason: why it was called: ``uri-miss``, ``miss``, ``stale``, ``method`` or ``bypass`` (RFC 9211 section 2.2).
    :param status: the origin's status.
    :param ttl: seconds of freshness of the stored answer.
    :param stored: whether the answer was stored.
    :param collapsed: whether the request waited for another request's call.
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


def key_and_detail(key: str, detail: str) -> str:
    """Return the parameters that are added to ``Cache-Status`` with ``app.debug``; empty ones are left out.

    :param key: the key of the requested page, in a readable form (RFC 9211 section 2.8).
    :param detail: why the request was answered in this way (RFC 9211 section 2.9).
    """
    parts = ("key", key, KEY_LENGTH), ("detail", detail, DETAIL_LENGTH)
    return "".join(f"; {name}={sf_string(text, longest)}" for name, text, longest in parts if text)


def sf_string(text: str, longest: int) -> str:
    """Return a text as a string of a structured field (RFC 9651 section 3.3.3). All but printable ASCII is percent-encoded.

    :param longest: the most characters, without quotes and escapes; a longer text is cut.
    """
    shown = re.sub(r"[^ -~]", lambda found: quote(found[0], errors="surrogatepass"), text)
    if len(shown) > longest:
        shown = f"{shown[: longest - 3]}..."
    return '"' + re.sub(r'(["\\])', r"\\\1", shown) + '"'


def status_fields(status: CacheStatus, field: str, chosen: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields to send.

    :param status: nginx's word, for ``X-Cache-Status``.
    :param field: the value of ``Cache-Status``.
    :param chosen: which of the two are sent.
    """
    # Not status.value, which is a slower property: every hit gets here.
    fields = [(_STANDARD, field), (_NGINX, status._value_)]
    return fields if len(chosen) == len(fields) else [item for item in fields if item[0] in chosen]
