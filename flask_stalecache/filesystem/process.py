"""The identity of this process: a forked child has the memory of its ancestors, and may have the process id of one of them."""

from __future__ import annotations

import os
from itertools import count
from typing import NamedTuple

from .system import after_fork_in_child


class ProcessId(NamedTuple):
    """The identity of a process.

    :ivar pid: the process id. Not every fork is counted: some servers fork without running Python's hooks.
    :ivar forks: the number of forks from the process that imported this module. The process id alone is not enough: the first
        process of a new PID namespace has the id 1, and its ancestor may be the first process of another one.
    """

    pid: int
    forks: int


_generations = count()
_generation = next(_generations)


def this_process() -> ProcessId:
    """Return the identity of this process. It is a system call: hits must not make it."""
    return ProcessId(os.getpid(), _generation)


def _has_forked() -> None:
    global _generation
    _generation = next(_generations)


after_fork_in_child(_has_forked)
