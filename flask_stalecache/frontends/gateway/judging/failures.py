"""The responses to requests that have waited for the call of another request, which failed.

================= ==================================================================================================
the whole page    if it is the same for all: the app was observed, and read nothing of the request that is not in the key;
                  or if the request agrees with the failed one in every field
a bare failure    to other requests, once they have met a second failure: the status without the page
================= ==================================================================================================

After a first failure that may be due to its visitor, one of the waiting requests calls the app.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeAlias

from ....core.http.fields import Headers, first_of

#: Body, status and fields.
Failure: TypeAlias = "tuple[tuple[bytes, ...], str, list[tuple[str, str]]]"
#: The largest page of a failure that is read ahead of its client, in bytes.
LIMIT = 64 * 1024


def bare_failure(code: int, headers: Headers) -> Failure:
    """Return a failure without the page that the app made for one visitor.

    :param code: the status of the failure.
    :param headers: its fields, for ``Retry-After``.
    """
    line = f"{code} {HTTPStatus(code).phrase}"
    body = f"{line}\n".encode()
    fields = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    pause = first_of(headers, "retry-after")
    # Any value but a number may be a text of the app.
    return (body,), line, [*fields, *([("Retry-After", pause)] if pause is not None and pause.isdecimal() else [])]
