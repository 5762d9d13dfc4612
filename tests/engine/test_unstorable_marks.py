"""Marks of keys whose answers can't be stored."""

from __future__ import annotations

import pytest

from flask_stalecache.engine.unstorable_marks import MAX_MARKS, UnstorableMark, UnstorableMarks
from support.memory import at_most

SURE, MAYBE, STORED = "sure", "maybe", "stored"


@pytest.mark.parametrize(
    ("answers", "mark"),
    [
        pytest.param([], None, id="nothing is known"),
        pytest.param([SURE], UnstorableMark.CERTAIN, id="no policy could store it"),
        pytest.param([MAYBE], UnstorableMark.ONCE, id="this answer could not be stored"),
        pytest.param([MAYBE, MAYBE], UnstorableMark.REPEATED, id="nor could the next one"),
        pytest.param([SURE, MAYBE], UnstorableMark.CERTAIN, id="it stays so"),
        pytest.param([SURE, STORED], None, id="an answer says otherwise"),
        pytest.param([MAYBE, STORED, MAYBE], UnstorableMark.ONCE, id="in a row"),
    ],
)
def test_a_mark_lasts_until_an_answer_says_otherwise(answers: list[str], mark: UnstorableMark | None) -> None:
    marks = UnstorableMarks()
    for answer in answers:
        if answer is STORED:
            marks.remove("page")
        else:
            marks.add("page", is_certain=answer is SURE)
    assert marks.of("page") is mark
    assert marks.of("another") is None


def test_the_oldest_give_way() -> None:
    marks = UnstorableMarks(3)
    for key in ("a", "b", "c", "a", "d"):
        marks.add(key, is_certain=True)
    assert [key for key in "abcd" if marks.of(key)] == ["a", "c", "d"]


def test_a_flood_of_made_up_urls_stays_within_the_bound(soak: object) -> None:
    """Long ones, and the marks of pages that are asked for meanwhile stay."""
    count = soak(1_000_000, 12_000)  # type: ignore[operator]
    marks = UnstorableMarks()
    with at_most(2_000_000):
        for number in range(count):
            marks.add(f"/{number}{'x' * 8000}", is_certain=True)
            if number % 1000 == 0:
                marks.add("page", is_certain=True)
    assert len(marks) == MAX_MARKS
    assert marks.of("page") is UnstorableMark.CERTAIN
