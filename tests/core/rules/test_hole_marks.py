from __future__ import annotations

import copy
import html
import json
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote_plus

import pytest
from jinja2 import Environment
from markupsafe import Markup, escape

from flask_stalecache.core.model.holes import HoleCall
from flask_stalecache.core.rules.hole_encodings import PROBES
from flask_stalecache.core.rules.hole_marks import MOST, HoleMark, HoleMarks, Pieces, foreign_mark

BOX = HoleCall("box")
CHANCE = "0123456789abcdef0123"


def cut(body: str | bytes, marks: HoleMarks) -> tuple[bytes, list[tuple[int, str, int]]] | None:
    found = marks.cut(body if isinstance(body, bytes) else body.encode())
    return None if found is None else (found[0], [(hole.offset, hole.encoding, hole.number) for hole in found[1]])


@pytest.fixture
def marks() -> HoleMarks:
    return HoleMarks(CHANCE)


def test_marks_are_cut_out(marks: HoleMarks) -> None:
    one, two = marks.mark(BOX), marks.mark(HoleCall("box", (2,)))
    found = cut(f"<p>{escape(one)}</p>{json.dumps(two)}{escape(one)}", marks)
    assert found == (b'<p></p>""', [(3, "html|", 0), (8, "json|", 1), (9, "html|", 0)])


def test_a_page_is_filled(marks: HoleMarks) -> None:
    one, two = marks.mark(BOX), marks.mark(BOX)
    clean, holes = marks.cut(f"<p>{escape(one)}{two}</p>{escape(one)}".encode()) or (b"", ())
    page = Pieces.of(clean, holes)
    assert page.calls == (BOX, BOX)
    assert page.filled(["<1>", "<2>"]) == b"<p>&lt;1&gt;<2></p>&lt;1&gt;"
    assert Pieces.of(b"text", ()).filled([]) == b"text"


#: Code that shows the mark as it is.
SHOWS: dict[str, Callable[[HoleMark], str]] = {
    "format": lambda mark: f"{mark}",
    "percent": lambda mark: "%s" % mark,  # noqa: UP031
    "str": str,
    "added": lambda mark: "a" + mark + "b",
    "joined": lambda mark: " ".join([mark, mark]),
    "escaped": lambda mark: str(escape(mark)),
    "html.escape": html.escape,
    "quote_plus": quote_plus,
    "json": json.dumps,
    "Markup.format": lambda mark: Markup("<b>{}</b>").format(mark),
    "twice": lambda mark: mark * 2,
}


@pytest.mark.parametrize("way", SHOWS)
def test_what_shows_a_mark_leaves_it_whole(way: str, marks: HoleMarks) -> None:
    body = SHOWS[way](marks.mark(BOX))
    assert marks.cut(body.encode()) is not None
    assert marks.altered == ""


#: Code that looks at the mark, or changes it.
LOOKS: dict[str, Callable[[HoleMark], Any]] = {
    "truth": bool,
    "length": len,
    "equal": lambda mark: mark == "a",
    "unequal": lambda mark: mark != "a",
    "in": lambda mark: "a" in mark,
    "slice": lambda mark: mark[:3],
    "iter": list,
    "upper": lambda mark: mark.upper(),
    "strip": lambda mark: mark.strip(),
    "split": lambda mark: mark.split(),
    "replace": lambda mark: mark.replace("z", "y"),
    "startswith": lambda mark: mark.startswith("a"),
    "less": lambda mark: mark < "a",
    "in a dict": lambda mark: {mark: 1},
    "repr": repr,
    "format with a width": lambda mark: f"{mark:>80}",
    "percent of it": lambda mark: mark % (),
    "copied": copy.deepcopy,
    "pickled": lambda mark: pickle.dumps(mark, 2),
}


FAILS = ("copied", "percent of it", "pickled")


@pytest.mark.parametrize("way", LOOKS)
def test_to_look_at_a_mark_makes_its_page_unstorable(way: str, marks: HoleMarks) -> None:
    mark = marks.mark(BOX)
    with nullcontext() if way not in FAILS else pytest.raises(TypeError):
        LOOKS[way](mark)
    assert marks.cut(f"{mark}".encode()) is None
    assert "looked at or changed by" in marks.altered


@pytest.mark.parametrize(
    "written",
    [
        "{% if a %}1{% endif %}{{ a }}",
        "{{ a|length }}{{ a }}",
        "{{ a|upper }}{{ a }}",
        "{{ a|truncate(20) }}{{ a }}",
        "{% set x %}{{ a }}{% endset %}{{ x|upper }}",
        "{% set x %}{{ a }}{% endset %}{{ x }}{{ x|upper }}",
        "{% set x %}{{ a }}{% endset %}{{ x }}{{ x|truncate(45, True, '') }}",
        "{% set x %}{{ a }}{% endset %}{{ x|reverse }}{{ x|striptags|replace('&', '') }}",
        "{{ a|replace('z', 'y') }}",
        "nothing",
    ],
)
def test_a_template_that_alters_a_mark(written: str, marks: HoleMarks) -> None:
    body = Environment(autoescape=True).from_string(written).render(a=marks.mark(BOX))
    assert marks.cut(body.encode()) is None
    assert marks.altered != ""


@pytest.mark.parametrize("size", range(1, 22, 3))
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_part_of_a_mark_is_altered(size: int, end: str, marks: HoleMarks) -> None:
    whole = str(marks.mark(BOX))
    half = whole[:-size] if end == "first" else whole[len(PROBES) :][min(size, 12) :]
    assert cut(f"{whole} and {half}", marks) is None
    assert marks.altered != ""


def test_a_token_need_not_be_shown(marks: HoleMarks) -> None:
    marks.mark(BOX, must_show=False)
    assert cut("nothing", marks) == (b"nothing", [])


def test_a_mark_of_another_page_is_text(marks: HoleMarks) -> None:
    old = HoleMarks("f" * 20).mark(BOX)
    assert cut(f"{old}{marks.mark(BOX)}", marks) == (str(old).encode(), [(len(str(old).encode()), "|", 0)])
    assert foreign_mark(f"<p>{escape(old)}".encode())
    assert foreign_mark(f"<p>{old}".encode())
    assert not foreign_mark(b"<p>kQsc and others")


@pytest.mark.parametrize("number", ["1", "00", "9999999", "-1", "", "0x"])
def test_a_number_that_was_made_up_is_altered(number: str, marks: HoleMarks) -> None:
    mark = str(marks.mark(BOX))
    assert cut(f"{mark}{mark[: -len('0z')]}{number}z", marks) is None


def test_a_page_has_a_limited_number_of_holes(marks: HoleMarks) -> None:
    body = "".join(f"{marks.mark(BOX)}" for _ in range(MOST)).encode()
    assert marks.cut(body) is not None
    marks.mark(BOX)
    assert marks.cut(body) is None


def test_bytes_that_are_no_text(marks: HoleMarks) -> None:
    assert cut(b"\xff\x00" + str(marks.mark(BOX)).encode() + b"\xfe", marks) == (b"\xff\x00\xfe", [(2, "|", 0)])


def test_a_text_added_to_a_markup_is_escaped_as_ever(marks: HoleMarks) -> None:
    mark = marks.mark(BOX)
    assert mark + Markup("<b>") == escape(mark) + Markup("<b>")
    assert Markup("<b>") + mark == Markup("<b>") + escape(mark)
    assert marks.cut(str(mark + Markup("<b>")).encode()) is not None
