"""What must never be unpickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Bomb:
    """An object that counts in :attr:`gone_off` how often it was unpickled."""

    gone_off = 0

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _go_off, ()


def _go_off() -> str:
    Bomb.gone_off += 1
    return "gone off"
