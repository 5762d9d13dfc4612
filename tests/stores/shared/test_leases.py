"""Processes that die or stop while they hold the lock of a page, on other hosts and on the same one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.host_site import Hosts, Origin, join, leave, look
from support.processes import Worker, workers
from support.shared_hosts import Server
from support.threads import PATIENCE, wait_until

pytestmark = pytest.mark.server

FIRST, SECOND = "first edition", "second edition"
#: Seconds of a lease that is to end soon, and of one that does not end in a test. Ticks, one a second, renew a lease after each
#: quarter of it.
SHORT, LONG = 3.0, 600.0

Start = Callable[..., list[Worker]]


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


@pytest.fixture
def start(server: Server, tmp_path: Path, origin: Origin) -> Iterator[Start]:
    """``start(*directories, lease=)`` starts one process for each."""
    with workers(2) as made:

        def join_all(*directories: str, lease: float) -> list[Worker]:
            settings: dict[str, Any] = {"timeout": PATIENCE, "purge_wait": 0, "lease": lease}
            for worker, name in zip(made, directories, strict=True):
                worker.run(join, server.url, tmp_path / name / "cache", origin, settings)
            return made

        yield join_all
        made[1].run(leave)


def see(worker: Worker) -> tuple[str, str, int]:
    (seen,) = worker.run(look, "/", 1)
    assert isinstance(seen, tuple)
    return seen


@pytest.mark.parametrize(("other", "lease"), [("two", SHORT), ("one", LONG)], ids=["another host", "the same host"])
def test_a_holder_that_is_killed_is_followed(origin: Origin, start: Start, other: str, lease: float) -> None:
    holder, heir = start("one", other, lease=lease)
    with origin.held():
        holder.start(look, "/", 1)
        wait_until(lambda: origin.calls == 1, "a call")
        origin.publish("second")
        holder.kill()
    # On another host at the end of the lease, on the same one at once.
    assert see(heir) == ("MISS", SECOND, 200)
    assert see(heir) == ("HIT", SECOND, 200)
    assert origin.calls == 2


def test_what_a_holder_brings_that_was_stopped_past_its_lease_is_superseded(origin: Origin, start: Start) -> None:
    holder, heir = start("one", "two", lease=SHORT)
    with origin.held():
        holder.start(look, "/", 1)
        wait_until(lambda: origin.calls == 1, "a call")
        os.kill(holder.process.pid, signal.SIGSTOP)
    origin.publish("second")
    assert see(heir) == ("MISS", SECOND, 200)
    os.kill(holder.process.pid, signal.SIGCONT)
    # Its own visitor gets what was made for them, and nobody else.
    assert [text for _, text, _ in holder.result()] == [FIRST]
    hosts = Hosts([holder, heir], heir, origin)
    wait_until(lambda: hosts.look().texts == {SECOND: hosts.everybody}, "the newer page everywhere")
    assert see(heir) == ("HIT", SECOND, 200)
    assert origin.calls == 2
    holder.run(leave)
