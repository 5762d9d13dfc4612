"""Formats the hosts that share a server as lines."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..stats.host_rows import host_rows, host_sentences
from ..stats.schema import SharedNumbers
from . import output

_HEAD = ("WEB HOST", "STATE", "HEARD", "BEHIND", "ENTRIES", "SIZE", "WORKERS", "REQUESTS", "FROM STORE", "ORIGIN CALLS")
#: The columns of numbers.
_RIGHT = frozenset(range(4, len(_HEAD)))


def host_lines(shared: SharedNumbers) -> Iterator[str]:
    """Yield the lines of a table of the hosts, and the sentences that complete it."""
    rows = host_rows(shared, time.time())
    cells = [
        (
            f"{row.name} (this one)" if row.is_here else row.name,
            row.state, row.heard, row.behind, row.entries, row.size, row.workers, row.requests, row.from_store, row.origin_calls,
        )
        for row in rows
    ]  # fmt: skip
    yield from output.columns([_HEAD, *cells], right=_RIGHT)
    yield from host_sentences(shared)
