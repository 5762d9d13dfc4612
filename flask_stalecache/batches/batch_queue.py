"""The batches of one process that wait for their turn. None is dropped: beyond a limit, further batches are refused."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import BatchQueueFull
from .batch import Batch
from .workers import Task

#: Maximum number of batches that wait.
MOST = 100
#: Maximum number of their tasks that were given as a list, such as URLs to warm; a single batch may have more.
MOST_LISTED = 1_000_000


class PlannedBatch(NamedTuple):
    """A batch that is ready to start.

    :ivar about: equal for batches of one kind that do the same work.
    :ivar listed: the number of its tasks that are in memory already.
    """

    about: object
    batch: Batch
    tasks: Iterator[Task]
    concurrency: int
    listed: int = 0


class BatchQueue:
    """Waiting batches, in the order in which they were planned. Callers hold a lock."""

    def __init__(self) -> None:
        self._waiting: deque[PlannedBatch] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def same(self, about: object, kind: str) -> PlannedBatch | None:
        """Return a waiting batch that does the same work and was not cancelled; ``None`` if there is none."""
        return next(
            (each for each in self._waiting if (each.about, each.batch.kind) == (about, kind) and not each.batch.cancelled), None
        )

    def check_room(self, kind: str, listed: int) -> None:
        """Raise :class:`BatchQueueFull` if no further batch may wait."""
        waiting = [each for each in self._waiting if not each.batch.cancelled]
        if len(waiting) >= MOST:
            raise BatchQueueFull(
                f"the {kind} was not begun, and nothing was changed: {MOST} batches wait for their turn. {_advice(kind)}"
            )
        tasks = sum(each.listed for each in waiting)
        if waiting and tasks + listed > MOST_LISTED:
            raise BatchQueueFull(
                f"the {kind} was not begun, and nothing was changed: batches with {tasks} URLs wait for their turn, "
                f"and {MOST_LISTED} may. {_advice(kind)}"
            )

    def push(self, planned: PlannedBatch) -> list[PlannedBatch]:
        """Add a batch. Return the cancelled batches that were removed for it, which the caller must finish.

        :raises BatchQueueFull: if no further batch may wait.
        """
        self.check_room(planned.batch.kind, planned.listed)
        cancelled = []
        if len(self._waiting) >= MOST:
            cancelled = [each for each in self._waiting if each.batch.cancelled]
            self._waiting = deque(each for each in self._waiting if not each.batch.cancelled)
        self._waiting.append(planned)
        return cancelled

    def pop(self) -> PlannedBatch | None:
        """Take the batch whose turn it is; ``None`` if none waits."""
        return self._waiting.popleft() if self._waiting else None


def _advice(kind: str) -> str:
    if kind == "purge":
        return "Purge again later, or by a tag, an endpoint or a URL: that is done at once"
    return "Begin it again when others are done (drain() waits for them), or select more entries with one call"
