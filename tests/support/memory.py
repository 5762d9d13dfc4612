"""How much memory a block of a test keeps."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

#: Bytes that threads of earlier tests may take meanwhile.
SLACK = 3_000_000


@contextmanager
def at_most(limit: float) -> Iterator[None]:
    """Check that a block leaves no more than so many bytes in memory."""
    # In a process with many objects of earlier tests, Python seldom looks for cycles.
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < limit + SLACK
    finally:
        tracemalloc.stop()
