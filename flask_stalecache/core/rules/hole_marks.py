"""The marks that holes leave in a page while it is made. They are cut out before anything is stored. Pure.

Nobody can forge a mark: each fill has a secret token of its own. A mark of another fill counts as text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import escape

from ..model.holes import Hole, HoleCall
from .hole_encodings import PROBES, encoder, recognised

#: The beginning of each token, by which marks of other fills are found.
_TOKEN = "kQsc"
_FOREIGN = re.compile(_TOKEN.encode() + rb"[0-9a-f]{20}Zr\d+z")
_NUMBER = re.compile(rb"(\d{1,6})z")
#: Holes in one page at most.
MOST = 1000
#: Modules that read a text only to encode it.
_ENCODERS = frozenset({"urllib.parse", "html", "json.encoder", "jinja2.utils"})
#: Methods that reveal nothing about a text: their result ends up in the body.
_HARMLESS = frozenset({"encode"})


class HoleMarks:
    """The marks of one fill.

    :param chance: 20 hexadecimal digits that can't be guessed.
    :ivar calls: the calls of the holes, by number.
    :ivar altered: why the places of the holes can't be found by the marks; "" as long as nothing is known to prevent it.
    :ivar taken: an optional mark may be in the body, since code could have read it.
    """

    __slots__ = ("_must_show", "_token", "altered", "calls", "taken")

    def __init__(self, chance: str) -> None:
        # Letters of both cases, so that a change of the case is seen.
        self._token = f"{_TOKEN}{chance}Zr"
        self.calls: list[HoleCall] = []
        self._must_show: set[int] = set()
        self.altered = ""
        self.taken = False

    def mark(self, call: HoleCall, *, must_show: bool = True) -> HoleMark:
        """Return the mark of a hole.

        :param must_show: the mark has to be in the body. The mark of a token need not be: each form makes a token, even if it is
            not shown.
        """
        number = len(self.calls)
        if number >= MOST:
            self.altered = self.altered or f"it has more than {MOST} holes"
        self.calls.append(call)
        if must_show:
            self._must_show.add(number)
        mark = HoleMark(f"{PROBES}{self._token}{number}z")
        mark.__dict__["alter"] = self._look
        return mark

    def _look(self, reader: str) -> None:
        self.altered = self.altered or f"what a hole returns was looked at or changed by {reader}"

    @property
    def are_shown(self) -> bool:
        """Whether one of the marks has to be in the body."""
        return bool(self._must_show)

    @property
    def are_used(self) -> bool:
        """Whether one of the marks may be in the body, or was altered."""
        return bool(self._must_show or self.taken or self.altered)

    def is_in(self, text: str) -> bool:
        """Whether a text has a mark, or a part of one."""
        return self._token in text

    def cut(self, body: bytes) -> tuple[bytes, tuple[Hole, ...]] | None:
        """Return a body without marks, and its holes; ``None`` if marks were altered, which :attr:`altered` then explains."""
        if self.altered:
            return None
        parts = body.split(self._token.encode())
        pieces: list[bytes] = []
        holes: list[Hole] = []
        offset = 0
        for before, after in pairwise(parts):
            # The number of the mark before this part.
            text = before if not holes else before[len(str(holes[-1].number)) + 1 :]
            found, number = recognised(text), _NUMBER.match(after)
            if found is None or number is None or int(number[1]) >= len(self.calls) or len(number[1]) > len(str(int(number[1]))):
                self.altered = "the mark of a hole was altered on its way into the body"
                return None
            encoding, length = found
            text = text[:-length]
            offset += len(text)
            pieces.append(text)
            holes.append(Hole(offset, self.calls[int(number[1])], encoding, int(number[1])))
        last = parts[-1]
        pieces.append(last if not holes else last[len(str(holes[-1].number)) + 1 :])
        clean = b"".join(pieces)
        self._check(clean, {hole.number for hole in holes})
        return None if self.altered else (clean, tuple(holes))

    def _check(self, clean: bytes, found: set[int]) -> None:
        missing = self._must_show - found
        if missing:
            self.altered = f"what the hole {self.calls[min(missing)].label} returns is not in the body as it is"
        # A part of a mark, or a mark whose case was changed.
        lowered, token = clean.lower(), self._token.lower().encode()
        parts = [token[:6], *(token[start : start + 8] for start in range(4, len(token) - 8, 6))]
        if any(part in lowered for part in parts):
            self.altered = "the mark of a hole was altered on its way into the body"


class HoleMark(str):
    """The value of a hole while a page is made for the store: a text that code may output, but not examine."""

    __slots__ = ("__dict__",)

    def __html__(self) -> str:
        return str(escape(str.__str__(self)))

    def __add__(self, other: str) -> str:
        # Like a plain text before a Markup, which escapes the text.
        if hasattr(other, "__html__") and not isinstance(other, HoleMark):
            return other.__radd__(self)  # type: ignore[attr-defined,no-any-return]
        return str.__add__(self, other)

    def __format__(self, spec: str) -> str:
        if spec:
            self.__dict__["alter"](_reader(sys._getframe(1).f_globals))
        return str.__format__(self, spec)


def _reader(module: dict[str, Any]) -> str:
    # The code of a template has no module name.
    return str(module.get("__name__") or "") or "a template"


def _looking(name: str) -> Callable[..., Any]:
    method = getattr(str, name)

    def look(self: HoleMark, *args: Any, **kwargs: Any) -> Any:
        reader = _reader(sys._getframe(1).f_globals)
        if reader not in _ENCODERS:
            self.__dict__["alter"](reader)
        return method(self, *args, **kwargs)

    return look


def _truth(self: HoleMark) -> bool:
    reader = _reader(sys._getframe(1).f_globals)
    if reader not in _ENCODERS:
        self.__dict__["alter"](reader)
    return True


_LOOK = (
    "__contains__", "__eq__", "__ge__", "__getitem__", "__gt__", "__hash__", "__iter__", "__le__", "__len__", "__lt__", "__mod__",
    "__ne__", "__repr__", "__reduce__", "__reduce_ex__",
)  # fmt: skip
for _name in (*_LOOK, *(name for name in vars(str) if not name.startswith("_") and name not in _HARMLESS and name != "maketrans")):
    setattr(HoleMark, _name, _looking(_name))
HoleMark.__bool__ = _truth  # type: ignore[attr-defined]


def foreign_mark(body: bytes) -> bool:
    """Whether a body contains something like a mark of another fill, such as one that a function has kept."""
    return _TOKEN.encode() in body and _FOREIGN.search(body) is not None


# -- filling -----------------------------------------------------------------------------------------------------------


class Pieces(NamedTuple):
    """A body, cut at its holes.

    :ivar pieces: the bytes before, between and after the holes.
    :ivar holes: the holes.
    :ivar calls: the calls of the holes, without duplicates.
    :ivar steps: for each hole the index of its call, the function that encodes the result, and the bytes after the hole.
    """

    pieces: tuple[memoryview, ...]
    holes: tuple[Hole, ...]
    calls: tuple[HoleCall, ...]
    steps: tuple[tuple[int, Callable[[str], bytes], memoryview], ...]

    @classmethod
    def of(cls, body: bytes, holes: Sequence[Hole]) -> Pieces:
        """Cut a body at its holes."""
        edges = [0, *(hole.offset for hole in holes), len(body)]
        # Not copies: the body is in memory already.
        whole = memoryview(body)
        pieces = tuple(whole[start:end] for start, end in pairwise(edges))
        numbers = list(dict.fromkeys(hole.number for hole in holes))
        by_number = {hole.number: hole.call for hole in holes}
        calls = tuple(by_number[number] for number in numbers)
        steps = tuple(
            (numbers.index(hole.number), encoder(hole.encoding), piece) for hole, piece in zip(holes, pieces[1:], strict=True)
        )
        return cls(pieces, tuple(holes), calls, steps)

    def filled(self, results: Sequence[str]) -> bytes:
        """Return the body with results in its holes.

        :param results: the results of :attr:`calls`.
        """
        parts: list[bytes | memoryview] = [self.pieces[0]]
        for index, write, piece in self.steps:
            parts += (write(results[index]), piece)
        return b"".join(parts)
