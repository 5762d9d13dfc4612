"""The third parties: ``python -m example_app.third_party --port 5001 --sleep 10``.

One server plays three partners of the news site, each with a mode, a sleep and a count of its own:

- ``GET /number`` thinks for a while and answers a random number from 0 to 1000.
- ``GET /weather?city=Berlin`` answers the weather as JSON.
- ``GET /comments/<slug>`` answers how many comments an article has, as JSON; there are more each time.

``POST /<partner>/mode`` with ``ok``, ``flaky``, ``fail``, ``hang``, ``down`` or ``gone``, and ``POST /<partner>/sleep`` with
seconds, change how a partner behaves, for the calls under way too. ``GET /<partner>/calls`` says how often it was called. The
server stops on SIGTERM and on Ctrl-C.
"""

import argparse
import itertools
import json
import math
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

USAGE = "There are /number, /weather and /comments/<slug>, and under /<partner>/ mode, sleep and calls."
PARTNERS = ("number", "weather", "comments")


class Mode(Enum):
    """The behaviour of a partner."""

    #: An answer after the sleep.
    OK = "ok"
    #: Every other call fails, from the first one on, with a 500 and a reset connection in turn.
    FLAKY = "flaky"
    #: A 503.
    FAIL = "fail"
    #: No answer while the mode lasts.
    HANG = "hang"
    #: A closed connection.
    DOWN = "down"
    #: A 410: it will never answer again.
    GONE = "gone"


class Outcome(Enum):
    """The result of one call."""

    ANSWER = 200
    GONE = 410
    ERROR = 500
    UNAVAILABLE = 503
    CLOSE = "closed"
    RESET = "reset"


_OUTCOMES = {Mode.OK: Outcome.ANSWER, Mode.FAIL: Outcome.UNAVAILABLE, Mode.DOWN: Outcome.CLOSE, Mode.GONE: Outcome.GONE}
_FLAKY = (Outcome.ERROR, Outcome.ANSWER, Outcome.RESET, Outcome.ANSWER)
#: SO_LINGER with no time at all: the kernel resets the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


def seconds(text: str) -> float:
    """Read a number of seconds.

    :raises ValueError: if it is not a number, negative, or not finite.
    """
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds, 0 or more")
    return number


class Partner:
    """One of the partners, and its current mode.

    :param answer: returns the body of its answer.
    :param sleep: duration of a call in seconds.
    """

    def __init__(self, answer: Callable[[], str], sleep: float = 0.0) -> None:
        self.answer = answer
        self.sleep = sleep
        self.mode = Mode.OK
        self.calls = 0
        self._turn = itertools.cycle(_FLAKY)
        self._changed = threading.Condition()

    def call(self) -> Outcome:
        """Count a call, hold it for its duration, which may change meanwhile, and return its result."""
        began = time.monotonic()
        with self._changed:
            self.calls += 1
            while (left := self._left(began)) is None or left > 0:
                self._changed.wait(left)
            return next(self._turn) if self.mode is Mode.FLAKY else _OUTCOMES[self.mode]

    def _left(self, began: float) -> float | None:
        """Return how many more seconds a call is held; ``None``: until something changes."""
        if self.mode is Mode.HANG:
            return None
        return began + self.sleep - time.monotonic() if self.mode in (Mode.OK, Mode.FLAKY) else 0.0

    def tell(self, what: str, text: str) -> None:
        """Set the mode or the sleep.

        :raises ValueError: if the text is no mode, or no number of seconds.
        """
        with self._changed:
            if what == "sleep":
                self.sleep = seconds(text)
            else:
                self.mode = _mode(text)
                self._turn = itertools.cycle(_FLAKY)
            self._changed.notify_all()


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise ValueError(f"{text!r} is no mode; there are {', '.join(mode.value for mode in Mode)}") from None


def _weather() -> str:
    return json.dumps({"degrees": random.randint(-5, 30), "sky": random.choice(("sun", "clouds", "rain"))})


class ThirdParty(ThreadingHTTPServer):
    """The server and its partners.

    :param port: port on 127.0.0.1; 0 takes a free one.
    :param sleep: seconds that a call of the number takes; the other partners answer at once.
    """

    request_queue_size = 128

    def __init__(self, port: int, sleep: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        written = itertools.count(random.randint(2, 20))
        answers = (lambda: str(random.randint(0, 1000)), _weather, lambda: json.dumps({"comments": next(written)}))
        self.partners = {name: Partner(answer) for name, answer in zip(PARTNERS, answers, strict=True)}
        self.partners["number"].sleep = sleep

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not report clients that disconnected early."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    server: ThirdParty

    def do_GET(self) -> None:
        partner, what = self._asked()
        if partner is None:
            self._answer(404, USAGE)
        elif what == "calls":
            self._answer(200, str(partner.calls))
        else:
            self._call(partner)

    def do_POST(self) -> None:
        partner, what = self._asked()
        try:
            length = int(self.headers.get("Content-Length", 0))
            text = self.rfile.read(max(0, min(length, 100))).decode().strip()
            if partner is None or what not in ("mode", "sleep"):
                self._answer(404, USAGE)
                return
            partner.tell(what, text)
        except ValueError as error:
            self._answer(400, str(error))
        else:
            self._answer(200, text)

    def _asked(self) -> tuple[Partner | None, str]:
        """Return the partner in the path, and the rest of the path."""
        name, _, what = urlsplit(self.path).path.removeprefix("/").partition("/")
        return self.server.partners.get(name), what

    def _call(self, partner: Partner) -> None:
        outcome = partner.call()
        if outcome is Outcome.ANSWER:
            self._answer(200, partner.answer())
        elif isinstance(outcome.value, int):
            self._answer(outcome.value, "The partner fails.")
        elif outcome is Outcome.RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            # By its descriptor: a server that closes a connection in order would send a FIN first.
            socket.close(self.connection.detach())

    def _answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing, so that the URL stays the only line."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m example_app.third_party", description="Three third parties over HTTP, one slow.")
    parser.add_argument("--port", type=int, default=5001, help="port on 127.0.0.1, 0 for a free one (default 5001)")
    parser.add_argument("--sleep", type=seconds, default=10.0, help="seconds that the slow one takes (default 10)")
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
