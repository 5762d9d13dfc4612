"""What servers do with WSGI apps (PEP 3333): close responses, and run threads of theirs or not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from werkzeug.wsgi import ClosingIterator

from ..core.wsgi import close_iterable


def closing(iterable: Iterable[bytes], after: Sequence[Callable[[], Any]], *, takes_long: bool) -> Iterable[bytes]:
    """Return an iterable that does something more when it is closed.

    :param after: what is done then, in this order, after the iterable was closed.
    :param takes_long: it is more than to hand something over.
    """
    if takes_long:
        # uWSGI and others send the head of a response without a body at its first chunk, or else only when all is over.
        after = [partial(close_iterable, iterable), *after]
        iterable = chain(iterable, (b"",))
    return ClosingIterator(iterable, after)


def why_no_threads(environ: Mapping[str, Any]) -> str:
    """Return why no thread will run between requests, and the way out; "" if they may.

    :param environ: the WSGI environ of any request.
    """
    if environ.get("wsgi.run_once"):
        return "the server ends this process after one request (wsgi.run_once): run the app under a server that stays"
    uwsgi = sys.modules.get("uwsgi")
    # Since 2.0.27 it always has them, whatever its options say.
    if uwsgi is not None and not getattr(uwsgi, "has_threads", True):
        return "uWSGI runs no threads of the app: start it with --enable-threads"
    return ""
