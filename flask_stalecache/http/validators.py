"""Conditional requests against a stored response (RFC 9110 section 13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from werkzeug.http import parse_date, parse_etags, unquote_etag


@dataclass(frozen=True, slots=True)
class Validators:
    """What a stored response can be recognised by.

    :param etag: its ETag field, if any.
    :param last_modified: its Last-Modified field, if any.
    :param date: when it was made, in seconds since the epoch: stands for a missing Last-Modified (RFC 9111 section 4.3.2).
    """

    etag: str | None
    last_modified: str | None
    date: float

    def not_modified(self, environ: Mapping[str, Any]) -> bool:
        """Whether the client has the response already: If-None-Match by weak comparison, else If-Modified-Since."""
        known = environ.get("HTTP_IF_NONE_MATCH")
        if known is not None:
            tags = parse_etags(known)
            tag, _ = unquote_etag(self.etag)
            return tags.star_tag or (tag is not None and tags.contains_weak(tag))
        since = parse_date(environ.get("HTTP_IF_MODIFIED_SINCE"))
        modified = parse_date(self.last_modified) or datetime.fromtimestamp(int(self.date), timezone.utc)
        return since is not None and modified <= since

    def allow_range(self, environ: Mapping[str, Any]) -> bool:
        """Whether a range of this response fits what the client has: If-Range by strong comparison, or by the exact date."""
        condition = environ.get("HTTP_IF_RANGE")
        if condition is None:
            return True
        if condition.startswith(('"', "W/")):
            return condition == self.etag and not condition.startswith("W/")
        return self.last_modified is not None and condition == self.last_modified
