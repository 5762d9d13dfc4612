"""A client that sends one request over HTTP/2 without TLS, with a body that no field announces (RFC 9113)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def get(port: int, path: str, body: bytes = b"", patience: float = 30.0) -> bytes:
    """Send a GET, and return the body of the response."""
    fields = {":method": "GET", ":scheme": "http", ":authority": "shop.example", ":path": path}
    # Literals without indexing and without Huffman coding (RFC 7541 section 6.2.2).
    head = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    sent = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
    sent += _frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), 1, head)
    if body:
        sent += _frame(_DATA, _END_STREAM, 1, body)
    with closing(socket.create_connection(("127.0.0.1", port), timeout=patience)) as connection:
        connection.sendall(sent)
        return b"".join(_chunks(connection))


def _chunks(connection: socket.socket) -> Iterator[bytes]:
    with connection.makefile("rb") as received:
        while head := received.read(9):
            payload = received.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            assert kind not in (3, 7), f"the server broke off: {payload!r}"
            if stream != 1:
                continue
            if kind == _DATA:
                yield payload
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
