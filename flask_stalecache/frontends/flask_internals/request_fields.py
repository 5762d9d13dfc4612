"""Request fields whose reads are reported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from werkzeug.datastructures import EnvironHeaders

from .readers import outside_caller


class HandsOut(Protocol):
    """An environ that records its reads."""

    def hand_out(self, receiver: str) -> Any:
        """Return itself to a module outside the framework."""


class RecordedHeaders(EnvironHeaders):
    """Request fields whose reads by name are reported.

    All public ways to read a field (``[]``, ``get``, ``in`` …) end in ``_get_key``. Overriding each of them would miss any new one.

    :param environ: the plain environ.
    :param note: records the read of a field.
    :param recorder: the environ that records its reads.
    """

    __slots__ = ("_hand_out", "_note", "_plain")

    def __init__(self, environ: dict[str, Any], note: Callable[[str], None], recorder: HandsOut) -> None:
        self._plain = environ
        self._note = note
        self._hand_out = recorder.hand_out
        super().__init__(environ)
        # For vars() only: all other reads go to the property.
        self.__dict__["environ"] = recorder

    @property
    def environ(self) -> Any:
        """The environ. Code outside the framework gets the one that records its reads."""
        receiver = outside_caller(sys._getframe(1))
        return self._plain if receiver is None else self._hand_out(receiver)

    @environ.setter
    def environ(self, value: dict[str, Any]) -> None:
        """Ignore the environ that the constructor of the base class sets: it is stored already."""

    def _get_key(self, key: str) -> str:
        if isinstance(key, str):
            self._note(key)
        return super()._get_key(key)
