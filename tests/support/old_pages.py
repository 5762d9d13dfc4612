"""Helpers of the tests of stale pages."""

from __future__ import annotations

from typing import Any, TypeAlias

#: Fresh for a minute, then stale for ten, then only if the view fails; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}

DAY, YEAR = 86400, 365 * 86400

HEADER, COOKIE = {"X-Prefer-Stale": "1"}, {"Cookie": "prefer_stale=1"}

Fields: TypeAlias = "dict[str, str]"


def fails() -> Any:
    raise ConnectionError("the third party is down")
