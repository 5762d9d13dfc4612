"""A single range of bytes. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.responses.ranges import UnsatisfiableRange, accepts_ranges, cut, single_range, whole_size


@pytest.mark.parametrize(
    ("field", "part"),
    [
        pytest.param("bytes=0-0", (0, 1), id="rule25-one-byte"),
        pytest.param("bytes=2-4", (2, 5), id="rule25-both-ends"),
        pytest.param("bytes=7-", (7, 10), id="rule25-open-end"),
        pytest.param("bytes=-3", (7, 10), id="rule25-suffix"),
        pytest.param("bytes=-10", (0, 10), id="rule25-suffix-of-all"),
        pytest.param("bytes=-11", (0, 10), id="rule25-suffix-of-more-than-all"),
        pytest.param("bytes=9-9", (9, 10), id="rule25-the-last-byte"),
        pytest.param("bytes=8-100", (8, 10), id="rule25-end-behind-the-end"),
        pytest.param("BYTES=0-1", (0, 2), id="rule25-the-unit-in-any-case"),
        pytest.param(" bytes=0-1 ", (0, 2), id="rule25-spaces-around"),
        pytest.param("bytes=0-1,", (0, 2), id="rule25-an-empty-member-behind"),
        pytest.param("bytes= , 0-1", (0, 2), id="rule25-an-empty-member-before"),
        pytest.param("bytes=000-001", (0, 2), id="rule25-leading-zeros"),
        pytest.param(f"bytes={'0' * 30}2-4", (2, 5), id="rule25-many-leading-zeros"),
        pytest.param(f"bytes=0-{'9' * 5000}", (0, 10), id="rule25-more-digits-than-python-reads"),
    ],
)
def test_a_range_is_a_part_of_the_whole(field: str, part: tuple[int, int]) -> None:
    assert single_range(field, 10) == slice(*part)


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(None, id="rule25-no-field"),
        pytest.param("", id="rule25-empty"),
        pytest.param("bytes", id="rule25-only-a-unit"),
        pytest.param("bytes=", id="rule25-no-range"),
        pytest.param("bytes=-", id="rule25-no-ends"),
        pytest.param("bytes=0-1,4-5", id="rule25-several"),
        pytest.param("bytes=4-2", id="rule25-end-before-start"),
        pytest.param("bytes=20-12", id="rule25-end-before-start-behind-the-end"),
        pytest.param("bytes=a-b", id="rule25-no-numbers"),
        pytest.param("bytes=--1", id="rule25-negative"),
        pytest.param("bytes=+0-1", id="rule25-a-sign"),
        pytest.param("bytes=0x0-1", id="rule25-hexadecimal"),
        pytest.param("bytes=²-³", id="rule25-other-digits"),
        pytest.param("bytes =0-1", id="rule25-a-space-before-the-equals-sign"),
        pytest.param("bytes=0 - 1", id="rule25-spaces-within"),
        pytest.param("bytes=0-1\n", id="rule25-a-line-break"),
        pytest.param("lines=0-1", id="rule25-another-unit"),
        pytest.param("kilobytes=0-1", id="rule25-never-match-substrings"),
    ],
)
def test_the_whole_is_the_answer(field: str | None) -> None:
    assert single_range(field, 10) is None


@pytest.mark.parametrize(
    ("field", "size"),
    [
        pytest.param("bytes=10-", 10, id="rule25-behind-the-end"),
        pytest.param("bytes=10-20", 10, id="rule25-both-behind-the-end"),
        pytest.param("bytes=-0", 10, id="rule25-the-last-0-bytes"),
        pytest.param("bytes=0-", 0, id="rule25-of-nothing"),
        pytest.param(f"bytes={'9' * 5000}-", 10, id="rule25-more-digits-than-python-reads"),
    ],
)
def test_nothing_of_the_range_is_there(field: str, size: int) -> None:
    with pytest.raises(UnsatisfiableRange):
        single_range(field, size)


def test_rule25_the_last_bytes_of_nothing_are_the_whole() -> None:
    assert single_range("bytes=-5", 0) is None


NUMBERS = st.integers(0, 30).map(str) | st.just("")


@given(st.tuples(NUMBERS, NUMBERS).map("-".join) | st.text("0123456789-, ", max_size=10), st.integers(0, 20))
def test_rule25_a_part_is_never_empty_and_lies_within(members: str, size: int) -> None:
    try:
        part = single_range(f"bytes={members}", size)
    except UnsatisfiableRange:
        return
    assert part is None or 0 <= part.start < part.stop <= size


@given(st.text(max_size=20))
def test_rule25_no_field_is_too_odd_to_be_read(field: str) -> None:
    assert single_range(field, 10) is None or field.strip()


@given(st.lists(st.binary(max_size=5), max_size=8), st.integers(0, 40), st.integers(0, 40))
def test_a_range_is_cut_from_chunks_of_any_size(chunks: list[bytes], start: int, stop: int) -> None:
    part = slice(min(start, stop), max(start, stop))
    pieces = list(cut(chunks, part))
    assert b"".join(pieces) == b"".join(chunks)[part]
    assert b"" not in pieces


def test_nothing_is_read_behind_a_range() -> None:
    chunks = iter([b"01", b"23", b"45", b"67"])
    assert list(cut(chunks, slice(1, 4))) == [b"1", b"23"]
    assert next(chunks) == b"45"


@pytest.mark.parametrize(
    ("fields", "accepts"),
    [
        ([], True),
        ([("accept-ranges", "bytes")], True),
        ([("Accept-Ranges", "items, Bytes")], True),
        ([("Accept-Ranges", "none")], False),
        ([("Accept-Ranges", "items")], False),
        ([("Accept-Ranges", "kilobytes")], False),
        ([("Accept-Ranges", "bytes"), ("Content-Range", "bytes 0-1/2")], False),
        ([("Content-Range", "bytes 0-1/2")], False),
    ],
)
def test_the_app_says_whether_ranges_are_cut(fields: list[tuple[str, str]], accepts: bool) -> None:
    assert accepts_ranges(fields) is accepts


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("bytes 0-1/20", 20),
        ("Bytes 0-1/20 ", 20),
        ("bytes */20", 20),
        ("bytes 0-1/*", None),
        ("items 0-1/20", None),
        ("bytes 0-1/" + "9" * 5000, None),
        (None, None),
    ],
)
def test_a_part_tells_the_size_of_the_whole(value: str | None, size: int | None) -> None:
    assert whole_size([] if value is None else [("Content-Range", value)]) == size
