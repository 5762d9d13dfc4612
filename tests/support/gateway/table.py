"""How the table of the gateway's rules is written: what the app answers, what a visitor asks, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from werkzeug.http import http_date

#: When every case begins.
NOON = 1_800_000_000.0


def date(offset: float = 0) -> str:
    """Return a date so many seconds after every case's beginning."""
    return http_date(NOON + offset)


# -- what the app answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What the app answers.

    :param status: the status.
    :param fields: the fields, as ``Name: value``; ``{here}`` stands for the path of the case.
    :param body: the body; ``None``: one that tells the case and the call.
    :param length: a Content-Length is sent.
    :param streams: the body is an iterable with ``close()``.
    :param raises: when the app raises instead: "at once", or "later", in the middle of the body; "": it does not.
    :param runs: a WSGI app that answers instead; it is given the number of the call as ``test.call``.
    """

    status: int = 200
    fields: tuple[str, ...] = ()
    body: bytes | None = None
    length: bool = True
    streams: bool = False
    raises: str = ""
    runs: Callable[..., Iterable[bytes]] | None = None


def answer(status: int, *fields: str, **more: Any) -> Reply:
    """Return an answer of the app."""
    return Reply(status, fields, **more)


def ok(*fields: str, **more: Any) -> Reply:
    """Return an answer of the app with status 200."""
    return Reply(200, fields, **more)


def cc(value: str, *fields: str, **more: Any) -> Reply:
    """Return an answer of the app with status 200 and a Cache-Control."""
    return ok(f"Cache-Control: {value}", *fields, **more)


def unchanged(*fields: str) -> Reply:
    """Return a 304 of the app: the stored response is still valid."""
    return answer(304, *fields)


FRESH = cc("max-age=60")
FAILS = Reply(raises="at once")
DOWN = answer(503)
TAG = 'ETag: "a"'
INM, IMS = 'If-None-Match: "a"', f"If-Modified-Since: {date(-100)}"
MODIFIED = f"Last-Modified: {date(-100)}"
#: Ten bytes, for ranges.
DIGITS = b"0123456789"


# -- what a visitor asks and must see --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A request, and what must come of it.

    :param sent: the request's fields, as ``Name: value``.
    :param reply: what the app answers if it is asked; ``None``: as before.
    :param calls: how often it must be asked.
    :param of: the number of the call whose body must be seen; 0: that of this step if ``is_new``, else the one seen last.
    :param is_new: the visitor sees what the app answers now.
    :param status: what must be seen; 0: the status of the answer that is seen.
    :param body: what must be seen; ``None``: the body of the answer that is seen, or nothing to HEAD and with a 204, 304 or 416.
    :param has: fields that the response must have; ``None``: it must not have the field; a list: the lines of the field.
    :param asked: fields that the last request to the app must have had; ``None``: it must not have had the field.
    :param after: seconds that pass before.
    :param word: ``X-Cache-Status``; "": any, or none.
    """

    sent: tuple[str, ...] = ()
    reply: Reply | None = None
    calls: int = 0
    of: int = 0
    is_new: bool = False
    status: int = 0
    body: bytes | None = None
    has: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, str | None] = field(default_factory=dict)
    after: float = 0.0
    word: str = ""
    method: str = "GET"
    path: str = ""
    payload: bytes = b""


def new(reply: Reply | None = FRESH, *sent: str, **more: Any) -> Step:
    """The app is asked, and the visitor is given what it answers."""
    return replace(Step(sent, reply, 1, is_new=True), **more)


def hit(*sent: str, **more: Any) -> Step:
    """The app is not asked."""
    return replace(Step(sent, word="HIT"), **more)


def confirmed(reply: Reply, *sent: str, **more: Any) -> Step:
    """The app says that what is stored is good, and the visitor is given that."""
    return replace(Step(sent, reply, 1, word="REVALIDATED"), **more)


def stale(reply: Reply, *sent: str, **more: Any) -> Step:
    """The visitor is given the stale response; the app is called in the background, or fails."""
    return replace(Step(sent, reply, 1, word="STALE"), **more)


def asks(reply: Reply, *, calls: int = 1, **more: Any) -> Step:
    """The app is called and fails, or is not called."""
    return replace(Step((), reply, calls), **more)


def gone(*sent: str, reply: Reply = FRESH, calls: int = 0, **more: Any) -> Step:
    """The gateway says that nothing may be served."""
    return replace(Step(sent, reply, calls, status=504, body=b""), **more)


def post(reply: Reply | None = None, *sent: str, **more: Any) -> Step:
    """The app is sent something, and answers the visitor itself."""
    return new(reply or ok(), *sent, **{"method": "POST", "payload": b"a=1", "word": "BYPASS", **more})


class Case(NamedTuple):
    """A sequence of requests for one page.

    :param rules: the numbers of the rules of ``docs/rules.rst`` that it tests.
    :param choice: what we do, if the RFC leaves it open; else "".
    :param gateway: the gateway that is asked.
    """

    rules: tuple[int, ...]
    name: str
    steps: tuple[Step, ...]
    choice: str = ""
    gateway: str = "plain"

    @property
    def id(self) -> str:
        """What the test is called."""
        return f"rule{'-'.join(map(str, self.rules))}-{self.name}"


def case(rules: int | tuple[int, ...], name: str, *steps: Step, choice: str = "", gateway: str = "plain") -> Case:
    """Return a case; one rule needs no tuple."""
    return Case(rules if isinstance(rules, tuple) else (rules,), name, steps, choice, gateway)


def again(name: str, reply: Reply, *, rules: int | tuple[int, ...], after: float = 10, sent: str = "", **more: str) -> Case:
    """An answer is used for a second request."""
    return case(rules, name, new(reply, *filter(None, [sent])), hit(after=after), **more)


def anew(name: str, reply: Reply, *, rules: int | tuple[int, ...], after: float = 10, **more: str) -> Case:
    """An answer is not used for a second request."""
    return case(rules, name, new(reply), new(after=after), **more)
