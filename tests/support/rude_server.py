"""A server that breaks the rules of HTTP."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
_ZEROS = bytes(1_000_000)


class Rude:
    """A server that sends some bytes to each caller, and then closes, resets, or goes on as told.

    :ivar ends: set, it stops dripping, and closes.
    """

    def __init__(self, data: bytes, *, drip: bool = False, reset: bool = False, zeros: int = 0) -> None:
        self.data, self.drip, self.reset, self.zeros = data, drip, reset, zeros
        self.over, self.ends = threading.Event(), threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.calls = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/"

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        self.calls += 1
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(self.data)
                for _ in range(self.zeros // len(_ZEROS)):
                    connection.sendall(_ZEROS)
                while self.drip and not self.ends.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                return
            if self.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def close(self) -> None:
        self.over.set()
        self.ends.set()
        # Closing alone does not wake the thread that accepts.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def rude(status: str, *fields: str, body: bytes = b"") -> bytes:
    lines = "".join(f"{field}\r\n" for field in (*fields, f"Content-Length: {len(body)}", "Connection: close"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body
