"""The format of small files: any damage makes a file say nothing. Covers ``filesystem.sealed``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.filesystem.sealed import MAGIC, seal, seal_json, seal_line, unseal, unseal_json, unseal_line

KIND = b"TEST"


@given(st.binary(max_size=100))
def test_what_is_sealed_is_read_back(content: bytes) -> None:
    assert unseal(KIND, seal(KIND, content)) == content


@given(st.binary(max_size=100))
def test_a_line_that_is_sealed_is_read_back(content: bytes) -> None:
    assert unseal_line(seal_line(content)) == content


def test_no_file_says_nothing() -> None:
    assert unseal(KIND, None) is None
    assert unseal_json(KIND, None, list) is None


def test_a_file_of_another_kind_says_nothing() -> None:
    assert unseal(b"NOTE", seal(KIND, b"7")) is None


def test_a_file_of_another_layout_says_nothing() -> None:
    data = seal(KIND, b"7")
    assert data.startswith(MAGIC)
    assert unseal(KIND, b"FSS0" + data[4:]) is None


@pytest.mark.parametrize("content", [b"", b"0", b"\0" * 20, b'{"retry_at": 1800000300.5}'])
def test_no_damage_goes_unseen(content: bytes) -> None:
    whole, line = seal(KIND, content), seal_line(content)
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            assert unseal(KIND, bytes(changed)) is None
    for position in range(len(line)):
        for bit in range(8):
            changed = bytearray(line)
            changed[position] ^= 1 << bit
            assert unseal_line(bytes(changed)) is None
    for wrong in (*(whole[:length] for length in range(len(whole))), whole + b"\0", bytes(len(whole)), b"\xff" * len(whole)):
        assert unseal(KIND, wrong) is None
    for wrong in (*(line[:length] for length in range(len(line))), line + b"\0", bytes(len(line))):
        assert unseal_line(wrong) is None


def raising(error: BaseException) -> Any:
    def decode(value: object) -> object:
        raise error

    return decode


@pytest.mark.parametrize(
    "error",
    [ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError, RuntimeError],
)
def test_whatever_is_wrong_with_the_content_it_says_nothing(error: type[Exception]) -> None:
    assert unseal_json(KIND, seal_json(KIND, [1]), raising(error())) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_content_that_is_no_json_says_nothing(content: bytes) -> None:
    assert unseal_json(KIND, seal(KIND, content), lambda value: value) is None
