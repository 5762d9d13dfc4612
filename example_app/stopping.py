"""Signals end a demo in order, so that it stops the servers that it has started."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from example_app.servers import ServerFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asks the demo to stop. Like KeyboardInterrupt, it passes through handlers of Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def until_stopped(run: Callable[[], int]) -> int:
    """Run a demo until it ends, a signal comes or a server fails, and return the exit status."""
    for number in SIGNALS:
        signal.signal(number, _stop_on)
    try:
        return run()
    except ServerFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except Stopped as stopped:
        return 128 + stopped.number


def _stop_on(number: int, frame: FrameType | None) -> NoReturn:
    # Further signals must not interrupt the stopping of the servers, which has its own time limit.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
