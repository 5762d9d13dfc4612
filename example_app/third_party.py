"""The slow third party: ``python -m example_app.third_party --port 5001 --sleep 10``.

``GET /`` thinks for a while and answers a random number from 0 to 1000. ``GET /calls`` says how often that was asked.
``POST /mode`` with ``ok``, ``fail``, ``hang`` or ``down``, and ``POST /sleep`` with seconds, change how it behaves.
It stops on SIGTERM and on Ctrl-C.
"""

import argparse
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mode(Enum):
    """What a call gets: a number after the sleep, a 503, nothing while the mode lasts, or a closed connection."""

    OK = "ok"
    FAIL = "fail"
    HANG = "hang"
    DOWN = "down"


def seconds(text: str) -> float:
    """Read a number of seconds.

    :raises ValueError: if it is none, negative, or not finite.
    """
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds, 0 or more")
    return number


class ThirdParty(ThreadingHTTPServer):
    """The server and what it was told to do.

    :param port: port on 127.0.0.1; 0 takes a free one.
    :param sleep: seconds that a call takes.
    """

    request_queue_size = 128

    def __init__(self, port: int, sleep: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.sleep = sleep
        self.mode = Mode.OK
        self.calls = 0
        self.changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def begin_call(self) -> Mode:
        """Count a call, and hold it for as long as the mode is to hang."""
        with self.changed:
            self.calls += 1
            self.changed.wait_for(lambda: self.mode is not Mode.HANG)
            return self.mode

    def switch(self, text: str) -> None:
        """Set the mode, and let go of the calls that hang if it is another.

        :raises ValueError: if there is no such mode.
        """
        names = [mode.value for mode in Mode]
        if text not in names:
            raise ValueError(f"{text!r} is no mode; there are {', '.join(names)}")
        with self.changed:
            self.mode = Mode(text)
            self.changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that didn't wait for its answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    server: ThirdParty

    def do_GET(self) -> None:
        if self.path == "/":
            self._call()
        elif self.path == "/calls":
            self._answer(200, str(self.server.calls))
        else:
            self._answer(404, "There are /, /calls, /mode and /sleep.")

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", 0))
            text = self.rfile.read(max(0, min(length, 100))).decode().strip()
            answer = self._control(text)
        except ValueError as error:
            self._answer(400, str(error))
        else:
            self._answer(*answer)

    def _call(self) -> None:
        mode = self.server.begin_call()
        if mode is Mode.DOWN:
            return
        if mode is Mode.FAIL:
            self._answer(503, "The third party fails.")
            return
        time.sleep(self.server.sleep)
        self._answer(200, str(random.randint(0, 1000)))

    def _control(self, text: str) -> tuple[int, str]:
        if self.path == "/mode":
            self.server.switch(text)
        elif self.path == "/sleep":
            self.server.sleep = seconds(text)
        else:
            return 404, "There are /, /calls, /mode and /sleep."
        return 200, text

    def _answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing, so that the URL stays the only line."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m example_app.third_party", description="A slow third party over HTTP.")
    parser.add_argument("--port", type=int, default=5001, help="port on 127.0.0.1, 0 for a free one (default 5001)")
    parser.add_argument("--sleep", type=seconds, default=10.0, help="seconds that a call takes (default 10)")
    options = parser.parse_args(arguments)
    # Blocked before the first thread starts, so that the signals are only ever taken by sigwait below.
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        server = ThirdParty(options.port, options.sleep)
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {options.port}: {error}")
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.url, flush=True)
        signal.sigwait(stops)
        server.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
