"""The gateway between a WSGI app and its server: mistakes of the app are seen as without a gateway."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine

from support.threads import PATIENCE, go, wait_until
from support.wsgi_apps import FRESH, PLAIN, App, Behind, Body, answering, ask, body_of, length, list_of, wait_for_waiters

# -- what an app may get wrong ---------------------------------------------------------------------------------------


def raising_at_once(environ: dict[str, Any], start_response: Any) -> Any:
    raise RuntimeError("before")


def raising_after_the_head(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    raise RuntimeError("after")


def starting_twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    start_response("404 Not Found", [PLAIN])
    return Body(b"page")


def starting_anew(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    try:
        raise RuntimeError("it went wrong")
    except RuntimeError:
        start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
    return Body(b"sorry")


def starting_anew_in_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])

    def chunks() -> Iterator[bytes]:
        try:
            raise RuntimeError("it went wrong")
        except RuntimeError:
            start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
        yield b"sorry"

    return chunks()


def starting_anew_too_late(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])

    def late() -> bytes:
        try:
            raise RuntimeError("it went wrong")
        except RuntimeError:
            start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
        return b"sorry"

    return Body(b"page", late)


def never_starting(environ: dict[str, Any], start_response: Any) -> Any:
    return Body(b"page")


def never_starting_with_nothing(environ: dict[str, Any], start_response: Any) -> Any:
    return Body()


def starting_in_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    def start() -> bytes:
        start_response("200 OK", [FRESH, PLAIN])
        return b"page"

    return Body(start, b" and more")


def starting_after_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    def start() -> bytes:
        start_response("200 OK", [FRESH, PLAIN])
        return b" and more"

    return Body(b"page", start)


def writing(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    return Body(b"returned")


def writing_and_raising(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    raise RuntimeError("after")


def writing_and_starting_anew(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    try:
        raise RuntimeError("it went wrong")
    except RuntimeError:
        start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
    return Body(b"sorry")


#: What apps do that they should not, and whether the second visitor may be given what the first one got.
WRONG: dict[str, tuple[Callable[..., Any], bool]] = {
    "raises at once": (raising_at_once, False),
    "raises after start_response": (raising_after_the_head, False),
    "raises at the first chunk": (body_of(RuntimeError("first")), False),
    "raises in mid-body": (body_of(b"pa", RuntimeError("middle")), False),
    "raises in mid-body, of known length": (body_of(b"pa", RuntimeError("middle"), fields=length(4)), False),
    "raises after a body of known length": (body_of(b"page", RuntimeError("late"), fields=length(4)), True),
    "yields str": (body_of("page"), False),
    "yields str later": (body_of(b"page", "more"), False),
    "yields None": (body_of(None), False),
    "yields None later": (body_of(b"page", None, b"more"), False),
    "yields a bytearray": (body_of(bytearray(b"page")), False),
    "has str in a list": (list_of("page"), False),
    "has None in a list": (list_of(b"page", None), False),
    "says too much": (body_of(b"page", fields=length(9)), False),
    "says too much of a list": (list_of(b"page", fields=length(9)), False),
    "says too little": (body_of(b"page", b"more", fields=length(3)), False),
    "says too little of a list": (list_of(b"page", fields=length(3)), False),
    "says what is no number": (body_of(b"page", fields=length("four")), False),
    "says two lengths": (body_of(b"page", fields=(*length(4), ("Content-Length", "9"))), False),
    "starts twice": (starting_twice, False),
    "starts anew": (starting_anew, False),
    "starts anew in the first chunk": (starting_anew_in_the_first_chunk, False),
    "starts anew too late": (starting_anew_too_late, False),
    "never starts": (never_starting, False),
    "never starts, and yields nothing": (never_starting_with_nothing, False),
    "starts in the first chunk": (starting_in_the_first_chunk, True),
    "starts after the first chunk": (starting_after_the_first_chunk, False),
    "writes": (writing, False),
    "writes and raises": (writing_and_raising, False),
    "writes and starts anew": (writing_and_starting_anew, False),
    "returns nothing": (lambda environ, start_response: start_response("200 OK", [FRESH, PLAIN]) and None, False),
    "returns bytes": (lambda environ, start_response: (start_response("200 OK", [FRESH, PLAIN]), b"page")[1], False),
    "returns str": (lambda environ, start_response: (start_response("200 OK", [FRESH, PLAIN]), "page")[1], False),
    "has a status without a phrase": (body_of(b"page", status="200 "), True),
    "has a status that is no number": (body_of(b"page", status="abc nonsense"), False),
    "has an unheard-of status": (body_of(b"page", status="799 Nonsense"), False),
    "has a status that is no string": (body_of(b"page", status=200), False),
    "has no status": (body_of(b"page", status=""), False),
    "has a field that is no string": (body_of(b"page", fields=(FRESH, ("X-Number", 7))), False),
    "has a field beyond latin-1": (body_of(b"page", fields=(FRESH, ("X-Name", "\u4e2d"))), False),
    "has fields that are no pairs": (body_of(b"page", fields=(FRESH, ("X-Name",))), False),
    "has odd fields": (body_of(b"page", fields=(("Cache-Control", 'max-age="60'), ("Vary", ",,"), ("Date", "?"))), False),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_an_app_does_wrong_is_seen_as_without_a_gateway(behind: Behind, wrong: str) -> None:
    """With an empty store, and once more after the first answer has been stored, if it may be."""
    answer, is_stored = WRONG[wrong]
    bare, app = App(answer), App(answer)
    gateway = behind(app)
    assert ask(gateway).without_ours() == ask(bare).without_ours()
    expected, again = ask(bare).without_ours(), ask(gateway).without_ours()
    if is_stored:
        assert (again.status[:3], again.body) == (expected.status[:3], expected.body)
        assert set(expected.fields) <= set(again.fields)
    else:
        assert again == expected
    assert app.calls == (1 if is_stored else 2)
    assert app.closed == [1] * len(app.closed)


@pytest.mark.parametrize("wrong", [name for name, (_, is_stored) in WRONG.items() if not is_stored])
def test_what_an_app_does_wrong_is_seen_where_nothing_may_stand_in(
    behind: Behind, clock: time_machine.Traveller, wrong: str
) -> None:
    answer, _ = WRONG[wrong]
    good = body_of(b"good", fields=(("Cache-Control", "max-age=10"), PLAIN))
    app = App(lambda *asked: good(*asked) if app.calls == 1 else answer(*asked))
    gateway = behind(app)
    assert ask(gateway).page == ("MISS", b"good")
    clock.shift(11)
    assert ask(gateway).without_ours() == ask(App(answer)).without_ours()
    assert app.closed == [1] * len(app.closed)


#: Those mistakes of ``WRONG`` that give no answer at all, so that the stored page stands in.
NO_ANSWER = (
    "raises at once", "raises after start_response", "raises at the first chunk", "starts twice", "starts anew",
    "starts anew in the first chunk", "never starts", "never starts, and yields nothing", "starts after the first chunk",
    "returns nothing", "has no status", "has a status that is no string", "has fields that are no pairs",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_stored_stands_in_for_what_is_no_answer_and_for_nothing_else(
    behind: Behind, clock: time_machine.Traveller, wrong: str
) -> None:
    answer, _ = WRONG[wrong]
    good = body_of(b"good", fields=(("Cache-Control", "max-age=10, stale-if-error=100"), PLAIN))
    app = App(lambda *asked: good(*asked) if app.calls == 1 else answer(*asked))
    gateway = behind(app)
    ask(gateway)
    clock.shift(11)
    got = ask(gateway)
    if wrong in NO_ANSWER:
        assert got.page == ("STALE", b"good")
    else:
        assert got.without_ours() == ask(App(answer)).without_ours()
    assert app.closed == [1] * len(app.closed)


def test_an_app_that_raises_after_empty_chunks_has_not_answered(behind: Behind) -> None:
    """A server may have sent the head with the first of them (PEP 3333 asks it not to); here nothing is sent yet."""
    app = answering(b"", b"", RuntimeError("late"))
    assert ask(behind(app)).status == "500 Internal Server Error"
    assert app.closed == [1]


# -- whose failure it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cookie"),
    [
        ((), ""),
        ((), "user=ann"),
        ((("Cache-Control", "private"),), ""),
        ((("Cache-Control", "no-store"),), ""),
        ((("Set-Cookie", "user=ann"),), ""),
        ((("Vary", "X-User"),), ""),
    ],
    ids=["plain", "a cookie in the request", "private", "no-store", "a cookie set", "vary"],
)
def test_a_failure_of_an_unobserved_app_is_not_shown_to_others(
    behind: Behind, fields: tuple[tuple[str, str], ...], cookie: str
) -> None:
    """What a bare app has read of a request is not seen: so its error page for one visitor is not shown to those who waited."""
    more = threading.Event()

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        user = environ["HTTP_X_USER"]
        if user == "ann":
            assert more.wait(PATIENCE)
        start_response("500 Internal Server Error", [PLAIN, *fields])
        return [f"sorry, {user}".encode()]

    app = App(answer)
    gateway = behind(app)
    ann = go(lambda: ask(gateway, HTTP_X_USER="ann", **({"HTTP_COOKIE": cookie} if cookie else {})))
    wait_until(lambda: app.calls == 1, "her request")
    bob = go(lambda: ask(gateway, HTTP_X_USER="bob"))
    wait_for_waiters(gateway, 1)
    more.set()
    assert ann.result(PATIENCE).body == b"sorry, ann"
    assert bob.result(PATIENCE).body == b"sorry, bob"
