"""What comes after a response comes when its iterable is closed (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from werkzeug.wsgi import ClosingIterator


def closing(iterable: Iterable[bytes], after: Sequence[Callable[[], Any]], *, takes_long: bool) -> Iterable[bytes]:
    """Return an iterable that does something more when it is closed.

    :param after: what is done then, in this order, after the iterable was closed.
    :param takes_long: it is more than to hand something over.
    """
    if takes_long:
        # uWSGI and others send the head of a response without a body at its first chunk, or else only when all is over.
        after = [*filter(None, [getattr(iterable, "close", None)]), *after]
        iterable = chain(iterable, (b"",))
    return ClosingIterator(iterable, after)
