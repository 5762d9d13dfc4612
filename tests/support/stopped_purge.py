"""A purge in a thread that stops in the middle, as a process does that was sent SIGSTOP, and then goes on or is killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table.stamps import Stamps
from support.threads import PATIENCE, go

#: Where it stops: before the number is noted, before SEQ is raised, before a record is written, before stamps are moved, and before
#: SEQ is raised once more.
STEPS: dict[str, type] = {
    "note_number": PurgeRecords,
    "begin_purge": Stamps,
    "write": PurgeRecords,
    "move": Stamps,
    "raise_seq": Stamps,
}


class Killed(BaseException):
    """It was killed."""


class StoppedPurge:
    """The purge of a process of its own. It has ``purge.lock`` from when it is made until it ends.

    :param step: one of :data:`STEPS`, before which it stops.
    """

    def __init__(self, directory: Path, name: str, step: str, *, soft: bool) -> None:
        self.name, self.soft = name, soft
        self._stopped, self._goes_on, self._is_killed = threading.Event(), threading.Event(), False
        self._thread: threading.Thread | None = None
        with pytest.MonkeyPatch.context() as patch:
            owner = STEPS[step]
            patch.setattr(owner, step, self._stopping(getattr(owner, step)))
            self._done = go(self._purge, FileStore(directory))
            self._done.add_done_callback(lambda done: self._stopped.set())
            assert self._stopped.wait(PATIENCE)

    def _purge(self, store: FileStore) -> None:
        self._thread = threading.current_thread()
        store.purge(self.name, soft=self.soft)

    def _stopping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stop(*args: Any) -> Any:
            if threading.current_thread() is self._thread and not self._stopped.is_set():
                self._stopped.set()
                assert self._goes_on.wait(PATIENCE * 100)
                if self._is_killed:
                    raise Killed
            return function(*args)

        return stop

    def end(self, *, is_killed: bool) -> bool:
        """Let it go on or kill it, and return whether it has purged."""
        self._is_killed = is_killed
        self._goes_on.set()
        error = self._done.exception(PATIENCE)
        assert error is None or isinstance(error, Killed), error
        return error is None
