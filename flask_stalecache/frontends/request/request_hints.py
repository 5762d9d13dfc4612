"""Cacheability hints given before a view runs: by hooks, URL converters and the session. The page of the view takes them over.

Behind a gateway, they are collected in the hints of the gateway, which surround the whole request.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...core.model.entry import Entry
from ...core.rules.cacheability import Cacheability, collected_by, current, inherit
from ...core.rules.serving import ServeOptions
from ..flask_internals.contexts import request_or_none

#: On the request: the hints, and the stored values that were used, by their keys.
_HINTS = "_stalecache_hints"
_VALUES = "_stalecache_values"


def hints_of_request() -> Cacheability | None:
    """Return the hints of the current request, for code outside of any view; ``None`` outside of a request."""
    request = request_or_none()
    if request is None:
        return None
    hints: Cacheability = request.__dict__.setdefault(_HINTS, Cacheability(None))
    return hints


def give(hint: Callable[[], None]) -> None:
    """Give a hint on the response that is being built; if there is none, on all responses that the current request will build."""
    hints = hints_of_request() if current() is None else None
    if hints is None:
        hint()
        return
    with collected_by(hints):
        hint()


def note_value(entry: Entry, options: ServeOptions) -> None:
    """Note that the current request uses a stored value outside of any view. Hits call this: :func:`pass_on` makes the hints."""
    request = request_or_none()
    if request is not None:
        request.__dict__.setdefault(_VALUES, {})[entry.key] = entry, options


def pass_on(state: dict[str, object], before: Cacheability | None, hints: Cacheability) -> None:
    """Pass the hints that were given before a view ran on to its page.

    :param state: the attributes of the request.
    :param before: the hints around the call of the view.
    :param hints: those of the page.
    """
    if before is not None and before.is_of_request:
        hints.absorb(before)
    given, values = state.get(_HINTS), state.get(_VALUES)
    if isinstance(given, Cacheability):
        hints.absorb(given)
    if isinstance(values, dict):
        for entry, options in values.values():
            hints.made_from(entry.key)
            inherit(hints, entry, time.time(), options)
