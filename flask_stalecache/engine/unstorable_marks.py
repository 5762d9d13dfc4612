"""Marks keys whose answers can't be stored: their requests don't wait for each other until an answer can be stored."""

from __future__ import annotations

import threading
from enum import Enum

from ..core.guarded import guarded

#: Keys with a mark. Visitors choose the URLs, so there must be a limit.
MAX_MARKS = 10_000


class UnstorableMark(Enum):
    """The likelihood that the next answer for a key can't be stored either."""

    #: One answer could not be stored. For a while, the note of the key records that for all processes.
    ONCE = "once"
    #: Several answers in a row could not be stored.
    REPEATED = "repeated"
    #: No policy could store it.
    CERTAIN = "certain"


class UnstorableMarks:
    """The marks of one process. They last as long as it runs, unless later ones push them out.

    Requests for a marked key call the origin without a lock, and each answer is judged. The first answer that can be stored ends
    the mark, so a wrong mark costs no more than one burst of concurrent calls.
    """

    def __init__(self, limit: int = MAX_MARKS) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        #: By the hash of the key, since keys may be long. The oldest first.
        self._marks: dict[int, UnstorableMark] = {}

    def __len__(self) -> int:
        return len(self._marks)

    @guarded
    def add(self, key: str, *, is_certain: bool) -> None:
        """Note that an answer could not be stored.

        :param is_certain: no policy could store it.
        """
        number = hash(key)
        before = self._marks.pop(number, None)
        again = (
            UnstorableMark.ONCE
            if before is None
            else UnstorableMark.CERTAIN
            if before is UnstorableMark.CERTAIN
            else UnstorableMark.REPEATED
        )
        self._marks[number] = UnstorableMark.CERTAIN if is_certain else again
        if len(self._marks) > self._limit:
            del self._marks[next(iter(self._marks))]

    @guarded
    def remove(self, key: str) -> None:
        """Forget a key: an answer could be stored."""
        self._marks.pop(hash(key), None)

    def of(self, key: str) -> UnstorableMark | None:
        """Return the mark of a key; ``None`` if it has none."""
        return self._marks.get(hash(key))
