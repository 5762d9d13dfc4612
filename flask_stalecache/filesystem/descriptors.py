"""Descriptors that no exception leaves open.

A signal's handler may raise between any two steps of Python: also between the call that opens a file and the ``try`` after it. The
number alone would be lost then, with whatever lock the file has. So a descriptor is an object from the beginning, which closes the
file when nothing refers to it any more, and steps that must not be separated are one chain of C functions: no handler runs between
them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from io import FileIO
from types import TracebackType


class Descriptor(int):
    """An open descriptor. ``with`` closes it at its end."""

    #: The number, until it is closed, given away or forgotten.
    _open: list[int]

    def _left(self) -> list[int]:
        # Made here and not in __init__: a handler could raise after the object exists and before the first step of __init__.
        left: list[int] = self.__dict__.setdefault("_open", [int(self)])
        return left

    @property
    def is_open(self) -> bool:
        """Whether it is still to be closed here."""
        return bool(self._left())

    def close(self) -> None:
        """Close it, unless it was closed, given away or forgotten."""
        left = self._left()
        # In one chain: a number that is popped is closed, and none is closed twice, since it may belong to another file by then.
        list(map(os.close, map(left.pop, range(len(left)))))

    def forget(self) -> None:
        """Never close it: its number belongs to another file now."""
        self._left().clear()

    def into_file(self) -> FileIO:
        """Return a file object that owns it from now on. It must not be the descriptor of a directory."""
        left = self._left()
        (file,) = map(FileIO, map(left.pop, range(len(left))))
        return file

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if self._left():
            with suppress(OSError):
                self.close()


def open_descriptor(path: str | os.PathLike[str], flags: int, mode: int = 0o600, at: int | None = None) -> Descriptor:
    """Open a file or a directory.

    :param at: the descriptor of the directory that the path starts from. Default: the working directory.
    :raises OSError: if it can't be opened.
    """
    call = os.open if at is None else partial(os.open, dir_fd=at)
    (descriptor,) = map(Descriptor, map(call, (path,), (flags,), (mode,)))
    return descriptor
