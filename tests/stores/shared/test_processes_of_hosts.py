"""Hosts as processes with directories of their own, and a real server: purges that are waited for, followers that are killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Worker, workers
from support.purging import NEW, NEWS, OLD, begun, body_in
from support.shared_hosts import Host, Server
from support.threads import wait_until

pytestmark = pytest.mark.server

ROUNDS = 10
#: The host of this process.
HERE: list[Host] = []


def join(place: Path, folder: Path) -> str:
    """Follow in this process from now on."""
    HERE[:] = [Host(place, Server(folder, starts=False))]
    HERE[0].read()
    HERE[0].follower.tick()
    return HERE[0].known.host_id()


def tick() -> bool:
    HERE[0].follower.tick()
    return HERE[0].follower.follows


def fill(body: bytes) -> None:
    files = HERE[0].files
    assert files.write(begun(files, body))


def look() -> bytes | None:
    return body_in(HERE[0].files)


def purge(name: str, seconds: float) -> list[str]:
    """Purge on all hosts, and return who has not heard of it after so many seconds."""
    number = HERE[0].follower.purge((name,), soft=False)
    return list(HERE[0].follower.acknowledged(number, seconds).late)


@pytest.fixture(scope="module")
def crew() -> Iterator[list[Worker]]:
    with workers(4) as made:
        yield made


def test_a_purge_that_was_waited_for_is_seen_everywhere(crew: list[Worker], server: Server, tmp_path: Path) -> None:
    for number, worker in enumerate(crew):
        worker.run(join, tmp_path / str(number), server.folder)
    old = 0
    for turn in range(ROUNDS):
        for worker in crew:
            worker.run(fill, OLD)
            assert worker.run(look) == OLD
        assert crew[turn % 4].run(purge, NEWS, 20.0) == []
        for worker in crew:
            worker.start(look)
        old += sum(worker.result() is not None for worker in crew)
    assert old == 0


def test_another_process_takes_over_from_a_killed_follower(crew: list[Worker], server: Server, tmp_path: Path) -> None:
    for number, worker in enumerate(crew[:2]):
        worker.run(join, tmp_path / str(number), server.folder)
    with workers(1) as (first,):
        first.run(join, tmp_path / "shared", server.folder)
        crew[2].run(join, tmp_path / "shared", server.folder)
        assert first.run(tick)
        assert not crew[2].run(tick)
        crew[2].run(fill, OLD)
        assert crew[2].run(look) == OLD
        first.kill()
    assert crew[0].run(purge, NEWS, 0.0) != []
    began = time.monotonic()
    assert crew[2].run(tick)
    wait_until(lambda: crew[2].run(look) is None)
    # Housekeeping ticks each second.
    print(f"taken over in {1000 * (time.monotonic() - began):.0f} ms after a tick")
    crew[2].run(fill, NEW)
    assert crew[0].run(purge, "tag:other", 20.0) == []
    assert crew[2].run(look) == NEW
