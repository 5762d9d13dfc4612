"""Sends the app's own response while it is made: whole, in part, or as a 304 or 416 without its body.

=============== ======================================================== ==================================================
extent          what is sent                                             the app's body
=============== ======================================================== ==================================================
FULL            the response as it comes                                 is passed on
PARTIAL         the range, cut from the chunks as they pass; in a file   is closed at the end of the range, or when the
                that is not stored, the bytes before it are skipped      client leaves
NOT_MODIFIED    the fields of a 304, and the cookies that the app sets   is closed unread
UNSATISFIABLE   likewise, as a 416                                       is closed unread
=============== ======================================================== ==================================================

A range needs the size of the whole for its Content-Range, so a stream without Content-Length is sent whole. A 206 could have a
star in the place of the size, but whether a range begins beyond the end would be known only after the head was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from ...core.exhaustive import assert_never
from ...core.http.fields import request_fields
from ...core.responses.conditional import Extent, Selected, fields_of_206, fields_of_416, select_of_new, with_accept_ranges
from ...core.responses.ranges import cut
from ...core.responses.validators import fields_of_304
from ...engine.origin import Answer
from .fetch import AppFetch
from .origin import GatewayOrigin
from .wsgi_call import AppCall, Copied

Fields = list[tuple[str, str]]


def selected_of(fetch: AppFetch, fields: Fields) -> Selected | None:
    """Return how much of the app's response its request asks for; ``None`` if it is passed on as it is.

    :param fields: the fields of the whole response, as they are sent.
    """
    call = fetch.call
    if call.code != 200 or call.is_sent or not fetch.answers_conditions:
        return None
    asked = request_fields(fetch.environ)
    return select_of_new(fetch.environ["REQUEST_METHOD"], asked, call.code, fields, time.time(), call.size)


def send_live(
    origin: GatewayOrigin, answer: Answer, fields: Fields, more: Fields
) -> tuple[Iterable[bytes], list[Callable[[], object]]]:
    """Send the app's response as far as its request asks for it. Return the body, and the functions to call when it is closed.

    :param answer: the app's response with its verdict.
    :param fields: the fields of the whole response.
    :param more: the status fields.
    """
    fetch, runtime = origin.fetch, origin.backend.engine.runtime
    assert fetch is not None
    selected, may_store = selected_of(fetch, fields), answer.later is not None
    if selected is None or selected.extent is Extent.FULL:
        has_size = selected is not None and fetch.call.size is not None
        fetch.call.send_head([*(with_accept_ranges(fetch.call.code, fields) if has_size else fields), *more])
        return (fetch.copied() if may_store else fetch.call.rest()), []
    is_copied = may_store and selected.is_to_end
    after: list[Callable[[], object]] = [origin.close]
    if is_copied:
        after.append(partial(_fill, origin))
    elif may_store:
        # The body will not be read to its end, so no request may wait for that.
        origin.break_off()
        _fill(origin)
    if runtime.in_line:
        after.append(runtime.look_after_itself)
    return _send_part(fetch, selected, fields, more, is_copied=is_copied), after


def _send_part(fetch: AppFetch, selected: Selected, fields: Fields, more: Fields, *, is_copied: bool) -> Iterable[bytes]:
    call = fetch.call
    match selected.extent:
        case Extent.PARTIAL:
            call.send_head([*fields_of_206(with_accept_ranges(call.code, fields), selected), *more], "206 Partial Content")
            skipped = 0 if is_copied else call.skip(selected.part.start)
            part = slice(selected.part.start - skipped, selected.part.stop - skipped)
            return Cut(fetch.copied() if is_copied else call, part)
        case Extent.NOT_MODIFIED:
            call.send_head([*fields_of_304(fields), *_cookies(fields), *more], "304 Not Modified")
            return ()
        case Extent.UNSATISFIABLE:
            call.send_head([*fields_of_416(selected), *_cookies(fields), *more], "416 Range Not Satisfiable")
            return ()
        case Extent.FULL:
            raise AssertionError(selected)
        case _:
            return assert_never(selected.extent)


def _fill(origin: GatewayOrigin) -> None:
    """Have a page made and stored in the background that could be stored, but that the client does not read to its end."""
    runtime = origin.backend.engine.runtime
    if runtime.in_line or runtime.refresher.workers == 0:
        return
    # The response may have been stored after all, even as the first variant of its URL: then the key has changed.
    origin.relocate()
    copy, now = origin.backend.engine.look_up(origin.key), time.time()
    is_missing = copy.entry is None or not copy.entry.is_fresh(now)
    if is_missing and not copy.note.backing_off(now) and runtime.claim(copy):
        runtime.submit(replace(origin.refresh(), fills_missing=True))


def _cookies(fields: Fields) -> Fields:
    """Return the fields that set cookies: they are for the visitor, whether the body is sent or not."""
    return [(name, value) for name, value in fields if name.lower() == "set-cookie"]


class Cut:
    """One range of a body, cut while the body passes. At the end of the range the body is closed.

    :param body: the whole body.
    :param part: the range.
    """

    def __init__(self, body: AppCall | Copied, part: slice) -> None:
        self._body = body
        self._pieces = cut(body, part)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            self.close()
            raise

    def close(self) -> None:
        """Close the whole body, once."""
        self._body.close()
