"""Calls of a WSGI app without a server (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_stalecache.core.wsgi import AppReply, close_iterable


class Body:
    """A body that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"one", b"two"])

    def close(self) -> None:
        self.closed += 1


def test_an_apps_answer_is_read_and_closed() -> None:
    given, reply = Body(), AppReply()

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        write = start_response("500 Oops", [])
        start_response("200 OK", [("X-Path", environ["PATH_INFO"])], ("its", "own", "error"))
        write(b"zero")
        return given

    with reply.of(app, {"PATH_INFO": "/a"}) as body:
        assert (reply.status, reply.headers) == ("200 OK", [("X-Path", "/a")])
        assert list(body) == [b"one", b"two"]
        assert given.closed == 0
    assert given.closed == 1


def test_a_body_is_closed_even_if_reading_it_fails() -> None:
    given, reply = Body(), AppReply()

    def fail() -> None:
        with reply.of(lambda environ, start_response: given, {}):
            raise ValueError("mid")

    with pytest.raises(ValueError, match="mid"):
        fail()
    assert (given.closed, reply.status) == (1, "")


def test_the_status_is_known_even_if_the_app_raises_then() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        raise ValueError("no answer")

    reply = AppReply()
    with pytest.raises(ValueError, match="no answer"), reply.of(app, {}):
        pass
    assert reply.status == "200 OK"


@pytest.mark.parametrize("iterable", [[], (), b"", iter([b"x"])])
def test_what_has_no_close_is_left_as_it_is(iterable: object) -> None:
    close_iterable(iterable)
