"""Warming requests on their way to the worker of the host: a file in the cache directory for each, and one for its outcome.

A user who can write such a file can also write entries: both have mode 0600, in a directory of the same user. The process that made
the files removes them; the sweep removes those of a process that was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ...core.packets.warm_data import LARGEST, WarmData, file_name
from ...errors import ConfigError
from ...filesystem.atomic import read_file, remove_file, status_of, write_file
from ...filesystem.directory import Directory, Inside
from ...filesystem.sealed import seal_json, unseal_json

T = TypeVar("T")

_REQUEST, _OUTCOME = b"WRQ1", b"WOC1"


class WarmFiles:
    """The files of warming requests.

    :param directory: the cache directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ask(self, data: WarmData) -> str | None:
        """Write a request, and return its address; ``None`` if it is too long, or can't be written."""
        content = seal_json(_REQUEST, data.to_json())
        # A random address for each request: two batches may warm the same URL at the same time.
        address = os.urandom(20).hex()
        return address if len(content) <= LARGEST and self._write(address, content) else None

    def asked(self, address: str) -> WarmData | None:
        """Return a request; ``None`` if its batch no longer waits for it.

        :raises ValueError: if the file is broken, or of another version of the package.
        """
        return self._read(address, _REQUEST, WarmData.from_json)

    def answer(self, address: str, outcome: Any) -> None:
        """Write the outcome of a request, unless its batch no longer waits for it.

        :param outcome: JSON data.
        """
        with suppress(OSError, ConfigError):
            if status_of(self._place(address)) is not None:
                self._write(address, seal_json(_OUTCOME, outcome), is_done=True)

    def answered(self, address: str, decode: Callable[[Any], T]) -> T | None:
        """Return the outcome of a request; ``None`` if it has none yet.

        :param decode: makes the outcome from JSON data.
        :raises ValueError: if the file is broken, or of another version of the package.
        """
        return self._read(address, _OUTCOME, decode, is_done=True)

    def remove(self, address: str) -> None:
        """Remove a request and its outcome: its batch no longer waits for it."""
        # The request first: an outcome is only written beside it.
        for is_done in (False, True):
            with suppress(OSError, ConfigError):
                remove_file(self._place(address, is_done=is_done))

    def _place(self, address: str, *, is_done: bool = False) -> Inside:
        directory = Directory(self._directory)
        directory.hold()
        return directory.at(file_name(address, is_done=is_done))

    def _write(self, address: str, content: bytes, *, is_done: bool = False) -> bool:
        try:
            write_file(self._place(address, is_done=is_done), content, time.time_ns())
        except (OSError, ConfigError):
            # A full disk, for example. The store reports what is wrong with it.
            return False
        return True

    def _read(self, address: str, kind: bytes, decode: Callable[[Any], T], *, is_done: bool = False) -> T | None:
        try:
            data = read_file(self._place(address, is_done=is_done), LARGEST + 1)
        except (OSError, ConfigError):
            return None
        if data is None:
            return None
        found = unseal_json(kind, data, decode) if len(data) <= LARGEST else None
        if found is None:
            raise ValueError(f"{file_name(address, is_done=is_done)} is broken, or of another version of the package")
        return found
