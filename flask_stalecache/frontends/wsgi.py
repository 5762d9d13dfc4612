"""How servers treat WSGI apps (PEP 3333): when they close a response, and whether they let threads run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from werkzeug.wsgi import ClosingIterator

from ..core.model.environ import REFRESHING
from ..core.wsgi import close_iterable


def closing(iterable: Iterable[bytes], after: Sequence[Callable[[], Any]], *, takes_long: bool) -> Iterable[bytes]:
    """Return an iterable that calls functions when it is closed.

    :param after: the functions, in order; they are called after the iterable itself was closed.
    :param takes_long: the functions do more than queue something.
    """
    if takes_long:
        # uWSGI and others send the head with the first chunk. A response without a chunk would be sent only after the functions.
        after = [partial(close_iterable, iterable), *after]
        iterable = chain(iterable, (b"",))
    return ClosingIterator(iterable, after)


def why_no_threads(environ: Mapping[str, Any]) -> str:
    """Return why no thread can run between requests, and what to do about it; "" if threads can run.

    :param environ: the WSGI environ of any request.
    """
    if environ.get("wsgi.run_once"):
        return "the server ends this process after one request (wsgi.run_once): run the app under a server that stays"
    uwsgi = sys.modules.get("uwsgi")
    # Since uWSGI 2.0.27 the attribute is always true, whatever the options are.
    if uwsgi is not None and not getattr(uwsgi, "has_threads", True):
        return "uWSGI runs no threads of the app: start it with --enable-threads"
    return ""


def has_other_processes(environ: Mapping[str, Any]) -> bool:
    """Whether the server may run the app in several processes.

    :param environ: the WSGI environ of any request. The environ of a refresh is not made by the server.
    """
    return bool(environ.get("wsgi.multiprocess")) and REFRESHING not in environ
