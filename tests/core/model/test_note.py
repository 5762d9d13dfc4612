"""A note: when an origin is left alone, and whom a page is kept from. It is only advice. Covers ``stores.formats.note_format``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import NOTHING, UNSTORABLE_FOR, Lasting, Note
from flask_stalecache.filesystem.sealed import SIZE, seal, seal_json
from flask_stalecache.stores.formats.note_format import decode, encode

NOON = 1_800_000_000.0
BACKOFF = (2.0, 300.0)

moments = st.floats(0, 4e9)
name_lists = st.lists(st.text(max_size=6), max_size=3).map(tuple)
notes = st.builds(
    Note,
    written=moments,
    failures=st.integers(0, 10**6),
    retry_at=moments,
    unstorable_until=moments,
    lasts=st.sampled_from(Lasting),
    kept_out=st.builds(RequestInputs, name_lists, name_lists, name_lists, name_lists),
)


def failed(times: int, stretch: float = 0.0, backoff: tuple[float, float] = BACKOFF, now: float = NOON) -> Note:
    note = NOTHING
    for _ in range(times):
        note = note.failed(now, backoff, stretch)
    return note


# -- back-off --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (7, 128.0), (8, 256.0), (9, 300.0), (10, 300.0), (200, 300.0), (5000, 300.0)],
)
def test_a_pause_doubles_with_each_failure_up_to_the_longest(failures: int, pause: float) -> None:
    note = failed(failures)
    assert (note.failures, note.retry_at - NOON) == (failures, pause)


@pytest.mark.parametrize(("stretch", "pause"), [(0.0, 4.0), (0.5, 4.5), (1.0, 5.0)])
def test_a_pause_is_stretched_by_a_quarter_at_most(stretch: float, pause: float) -> None:
    assert failed(2, stretch).retry_at - NOON == pause


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0.01, 100), st.floats(1, 1000))
def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_the_longest_and_a_quarter(
    failures: int, stretch: float, first: float, factor: float
) -> None:
    pause = failed(failures, stretch, (first, first * factor), now=0.0).retry_at
    assert first <= pause <= first * factor * 1.25


@given(st.integers(1, 30), st.floats(0, 1))
def test_a_pause_is_not_shorter_than_the_one_before(failures: int, stretch: float) -> None:
    assert failed(failures, stretch).retry_at <= failed(failures + 1, stretch).retry_at


def test_a_year_of_failures_still_has_a_pause() -> None:
    assert Note(failures=10**9).failed(NOON, (0.001, 300.0), 1.0).retry_at == NOON + 375
    assert Note(failures=10**9).failed(NOON, (1e300, 1e300), 0.0).retry_at == NOON + 1e300


@pytest.mark.parametrize(
    ("after", "backing_off"),
    [
        pytest.param(-3600.0, False, id="clock stepped back an hour"),
        pytest.param(-0.001, False, id="clock stepped back a little"),
        pytest.param(0.0, True, id="at the failure"),
        pytest.param(1.999, True, id="just before the end"),
        pytest.param(2.0, False, id="at the end"),
        pytest.param(2.001, False, id="just after the end"),
        pytest.param(1e9, False, id="long after"),
    ],
)
def test_an_origin_is_left_alone_from_its_failure_to_the_end_of_the_pause(after: float, backing_off: bool) -> None:
    assert failed(1).backing_off(NOON + after) is backing_off


def test_no_failure_is_no_pause() -> None:
    assert not any(NOTHING.backing_off(now) or NOTHING.unstorable(now) for now in (0.0, NOON, 4e9))


def test_a_failure_keeps_what_else_is_known() -> None:
    note = NOTHING.marked_personal(NOON, RequestInputs(cookies=("session",))).failed(NOON + 1, BACKOFF, 0.0)
    assert (note.kept_out, note.failures, note.written) == (RequestInputs(cookies=("session",)), 1, NOON + 1)


# -- marks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "unstorable"),
    [(-3600.0, False), (-0.001, False), (0.0, True), (9.999, True), (10.0, False), (3600.0, False)],
)
def test_a_page_that_can_not_be_stored_is_marked_for_ten_seconds(after: float, unstorable: bool) -> None:
    assert UNSTORABLE_FOR == 10
    assert NOTHING.marked_unstorable(NOON).unstorable(NOON + after) is unstorable


def test_an_unstorable_answer_ends_the_failures_and_keeps_the_names() -> None:
    before = failed(3).marked_personal(NOON, RequestInputs(cookies=("session",))).failed(NOON, BACKOFF, 0.0)
    note = before.marked_unstorable(NOON + 1)
    assert (note.failures, note.backing_off(NOON + 1), note.kept_out) == (0, False, RequestInputs(cookies=("session",)))


def test_a_personal_answer_adds_its_names_and_ends_failures_and_marks() -> None:
    note = failed(3).marked_unstorable(NOON).marked_personal(NOON + 1, RequestInputs(cookies=("b",), headers=("x-user",)))
    note = note.marked_personal(NOON + 2, RequestInputs(cookies=("a", "b")))
    assert note.kept_out == RequestInputs(cookies=("a", "b"), headers=("x-user",))
    assert (note.failures, note.unstorable(NOON + 2), note.backing_off(NOON + 2)) == (0, False, False)


# -- bytes -----------------------------------------------------------------------------------------------------------


@given(notes)
def test_what_is_read_back_is_what_was_written(note: Note) -> None:
    assert decode(encode(note)) == note


def test_the_empty_note_is_empty_when_read_back() -> None:
    assert decode(encode(NOTHING)) == NOTHING


def ask_everything(note: Note) -> None:
    """Do with a note what the engine does, with a request that carries something of each kind."""
    environ = {"HTTP_COOKIE": "a=1; session=2", "HTTP_X_USER": "ada", "QUERY_STRING": "utm_a=1"}
    note.kept_out.present_in(environ)
    note.kept_out.carried_part(environ)
    assert note.backing_off(NOON) in (True, False)
    assert note.unstorable(NOON) in (True, False)
    after = note.failed(NOON, BACKOFF, 1.0).marked_personal(NOON, RequestInputs(("a",))).marked_unstorable(NOON)
    decode(encode(after))


def sealed(note: object) -> bytes:
    return seal_json(b"NOT2", note)


GOOD = json.loads(encode(failed(3).marked_personal(NOON, RequestInputs(("a", "b"), ("x-user",))).failed(NOON, BACKOFF, 0.5))[SIZE:])


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"7", b'"x"', b"[]", b"{}", b"\x00" * 8, b"\xff\xfe", b"[[[[", json.dumps(GOOD).encode() + b"x"],
    ids=lambda data: repr(data)[:20],
)
def test_broken_bytes_are_an_empty_note(data: bytes) -> None:
    assert decode(data) == decode(seal(b"NOT2", data)) == NOTHING


def test_a_cut_note_is_an_empty_note() -> None:
    data = sealed(GOOD)
    assert decode(data) != NOTHING
    assert {decode(data[:length]) for length in range(len(data))} == {NOTHING}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_note_that_lacks_something_is_an_empty_note(name: str) -> None:
    data = {other: value for other, value in GOOD.items() if other != name}
    assert decode(sealed(data)) == NOTHING


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("written", "soon"),
        ("written", None),
        ("written", [1]),
        pytest.param("written", 10**400, id="beyond float"),
        ("retry_at", {}),
        ("unstorable_until", "x"),
        ("failures", "many"),
        ("failures", None),
        ("failures", [3]),
        ("kept_out", None),
        ("kept_out", []),
        ("kept_out", {}),
        ("kept_out", {"cookies": None, "headers": []}),
        ("kept_out", {"cookies": [7], "headers": []}),
        ("kept_out", {"cookies": [], "headers": [7]}),
    ],
    ids=repr,
)
def test_a_note_of_another_shape_is_an_empty_note(name: str, value: object) -> None:
    assert decode(sealed({**GOOD, name: value})) == NOTHING


@given(st.data())
def test_a_note_with_a_flipped_byte_breaks_nothing(data: st.DataObject) -> None:
    stored = bytearray(sealed(GOOD))
    stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    ask_everything(decode(bytes(stored)))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["cookies", "headers"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_whatever_a_note_says_nobody_is_harmed(name: str, value: object) -> None:
    ask_everything(decode(sealed({**GOOD, name: value})))
