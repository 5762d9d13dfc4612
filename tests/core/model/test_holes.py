from __future__ import annotations

from typing import Any

import pytest

from flask_stalecache.core.model.holes import DEEPEST, Hole, HoleCall, why_not_json


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["a", 1, True, None, 1.5, [1, ["a"]], {"a": {"b": None}}, nested(DEEPEST)])
def test_json_values(value: object) -> None:
    assert why_not_json(value) == ""


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ((1, 2), "a tuple"),
        (Text("a"), "a Text"),
        (b"a", "a bytes"),
        (float("nan"), "a float"),
        (float("inf"), "a float"),
        ([{"a": {1}}], "a set"),
        ({1: "a"}, "a dict with keys that are no texts"),
        (nested(DEEPEST + 1), "nested too deeply"),
    ],
)
def test_what_would_be_read_otherwise_than_it_was_written(value: object, why: str) -> None:
    assert why_not_json(value) == why


def test_a_hole_is_read_as_it_was_written() -> None:
    hole = Hole(3, HoleCall("box", (1, [2]), {"a": None}), "html|", 0)
    assert Hole.from_json(hole.to_json()) == hole
    assert HoleCall("base.html, line 3#block").label == "base.html, line 3"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "abcdef",
        [],
        [1, "box", [], {}, "html|"],
        [-1, "box", [], {}, "html|", 0],
        [True, "box", [], {}, "html|", 0],
        [1, 2, [], {}, "html|", 0],
        [1, "box", {}, {}, "html|", 0],
        [1, "box", [], [], "html|", 0],
        [1, "box", [], {}, None, 0],
        [1, "box", [], {}, "html|", -1],
    ],
)
def test_what_is_no_hole(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Hole.from_json(value)
