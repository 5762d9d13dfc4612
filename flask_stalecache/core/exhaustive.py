"""The end of each ``match`` over an enum or a union: type checkers then verify that no case is missing."""

from __future__ import annotations

from typing import NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Fail for a case that a ``match`` does not handle. (``typing.assert_never`` came with Python 3.11.)"""
    raise AssertionError(f"unhandled case: {value!r}")
