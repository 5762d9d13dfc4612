"""Visitors of ``compute.py``, in a process of their own: ``python benchmarks/visitors.py PORT PATH SECONDS`` prints JSON.

They keep their connections if the server does, and ask again as soon as they are answered. It prints the number of answers, the
number of errors, the seconds, and the 50th and 99th percentile of the times in milliseconds.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from statistics import quantiles

CONNECTIONS = 8
#: Seconds after which a connection counts as hanging.
PATIENCE = 30.0


class Visitor:
    """One connection, and the request that is under way."""

    def __init__(self, port: int, path: str, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._selector = selector
        self._socket: socket.socket | None = None
        self._got = b""
        self.begun = 0.0

    def ask(self) -> None:
        """Send the next request."""
        self.begun, self._got = time.perf_counter(), b""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._socket.sendall(self._request)

    def read(self) -> bool | None:
        """Read what has come. Return whether a request was answered well; ``None``: its answer is not whole yet."""
        assert self._socket is not None
        try:
            part = self._socket.recv(65536)
        except OSError:
            part = b""
        self._got += part
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if part and not (blank and len(body) >= _length(head)):
            return None
        if not part or b"\nconnection: close" in head.lower():
            self.close()
        return b" 200 " in head[:20] and len(body) >= _length(head)

    def close(self) -> None:
        """Close the connection: the server does not keep it."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def visit(port: int, path: str, seconds: float) -> dict[str, float]:
    """Let all visitors ask for a while, and return the numbers."""
    took: list[float] = []
    errors = 0
    with selectors.DefaultSelector() as selector:
        visitors = [Visitor(port, path, selector) for _ in range(CONNECTIONS)]
        start = time.perf_counter()
        for visitor in visitors:
            visitor.ask()
        while (now := time.perf_counter()) - start < seconds:
            for key, _ in selector.select(0.1):
                visitor = key.data
                answered = visitor.read()
                if answered is None:
                    continue
                took.append(time.perf_counter() - visitor.begun)
                errors += not answered
                visitor.ask()
        took += [now - visitor.begun for visitor in visitors if now - visitor.begun > max(took, default=0.0)]
        for visitor in visitors:
            visitor.close()
    cuts = quantiles(took, n=100) if len(took) > 1 else [seconds] * 99
    return {"answers": len(took), "errors": errors, "seconds": seconds, "p50": cuts[49] * 1000, "p99": cuts[98] * 1000}


if __name__ == "__main__":
    print(json.dumps(visit(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
