"""Pages on many hosts, each a process with a directory of its own, and one server: how often an origin is called, and what wins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.endurance import IS_SOAK
from support.host_site import HANGS, PAUSE, Hosts, Origin, join, leave
from support.processes import Worker, workers
from support.shared_hosts import Server
from support.soak.clock import SharedClock
from support.threads import PATIENCE, wait_until

pytestmark = [pytest.mark.server, pytest.mark.soak]

#: How many hosts there are. A hundred starve for processors.
SIZES = [3, 20, 100] if IS_SOAK else [3]
FIRST, SECOND = "first edition", "second edition"
KEPT = {"HIT", "STALE", "UPDATING"}


@pytest.fixture(scope="module", params=SIZES)
def crew(request: pytest.FixtureRequest) -> Iterator[list[Worker]]:
    with workers(request.param + 1) as made:
        yield made


@pytest.fixture
def clock(tmp_path: Path) -> SharedClock:
    """A clock of all hosts, which can be stepped."""
    return SharedClock.make(tmp_path / "clock")


@pytest.fixture
def hosts(crew: list[Worker], server: Server, tmp_path: Path) -> Iterator[Hosts]:
    """All hosts. Under ``make soak`` they have the default timeout; a small run must not depend on how busy the machine is."""
    if IS_SOAK:
        # Only the hosts starve.
        server.come_first()
    origin = Origin(tmp_path)
    settings = {"purge_wait": PATIENCE} if IS_SOAK else {"purge_wait": PATIENCE, "timeout": PATIENCE}
    for number, worker in enumerate(crew):
        worker.start(join, server.url, tmp_path / str(number) / "cache", origin, settings)
    names = [worker.result(HANGS) for worker in crew]
    assert len(set(names)) == len(crew)
    yield Hosts(crew[1:], crew[0], origin)
    for worker in crew:
        worker.start(leave)
    for worker in crew:
        worker.result(HANGS)


def fill(hosts: Hosts, path: str = "/") -> None:
    """Let all hosts have the page."""
    assert hosts.look(path).texts == {FIRST: hosts.everybody}
    assert hosts.look(path).words == {"HIT"}
    assert hosts.origin.calls == 1


def everybody_sees(hosts: Hosts, text: str) -> None:
    wait_until(lambda: hosts.look().texts == {text: hosts.everybody}, f"{text} everywhere")


def test_a_stale_page_is_made_once(hosts: Hosts) -> None:
    fill(hosts)
    hosts.origin.publish("second")
    hosts.hear(hosts.purge(soft=True))
    assert hosts.look().words <= KEPT
    hosts.rest()
    everybody_sees(hosts, SECOND)
    assert hosts.origin.calls == 2


def test_an_expired_page_is_made_once(clock: SharedClock, hosts: Hosts) -> None:
    fill(hosts, "/strict")
    clock.step(700)
    assert hosts.look("/strict").words <= {"EXPIRED", "HIT"}
    assert hosts.origin.calls == 2


def test_an_origin_that_fails_is_called_once_a_pause(clock: SharedClock, hosts: Hosts) -> None:
    fill(hosts)
    hosts.origin.become("down")
    hosts.hear(hosts.purge(soft=True))
    passed = 0
    for failures in range(5 if IS_SOAK else 3):
        for _ in range(2):
            # No visitor sees an error.
            assert hosts.look().texts == {FIRST: hosts.everybody}
            hosts.rest()
            assert hosts.origin.calls == 2 + failures
        # Each pause is twice as long as the one before, or longer by up to a quarter.
        passed += int(PAUSE * 2**failures * 1.3)
        clock.step(passed)
    hosts.origin.become("good")
    hosts.origin.publish("second")
    hosts.look()
    hosts.rest()
    everybody_sees(hosts, SECOND)
    assert hosts.origin.calls == 3 + failures


#: Whether a purge is soft, and what it comes in between.
CALLS = [("hard", "a first fill"), ("soft", "a refresh"), *([("soft", "a first fill"), ("hard", "a refresh")] if IS_SOAK else [])]


@pytest.mark.parametrize(("kind", "during"), CALLS)
def test_a_purge_during_a_call_wins_everywhere(hosts: Hosts, kind: str, during: str) -> None:
    before, soft = 0, kind == "soft"
    if during == "a refresh":
        fill(hosts)
        before = hosts.origin.calls
        hosts.hear(hosts.purge(soft=True))
    with hosts.origin.held():
        hosts.start()
        wait_until(lambda: hosts.origin.calls == before + 1, "a call")
        hosts.origin.publish("second")
        number = hosts.purge(soft=soft)
        purged = time.monotonic()
    # Who came before the purge may get what was made before it.
    assert set(hosts.answers().texts) <= {FIRST, SECOND}
    hosts.rest()
    hosts.hear(number)
    seen = hosts.look()
    assert not [each for each in seen if each[0] == "HIT" and each[1] == FIRST]
    if not soft:
        assert seen.texts == {SECOND: hosts.everybody}
    hosts.rest()
    everybody_sees(hosts, SECOND)
    assert hosts.origin.calls == before + 2, (hosts.origin.log, purged)


def test_a_page_that_has_become_private_is_kept_nowhere(clock: SharedClock, hosts: Hosts) -> None:
    fill(hosts)
    hosts.origin.become("private")
    hosts.hear(hosts.purge(soft=True))
    with hosts.origin.held():
        # Those who come once the page is known to be private are answered by the origin, each for itself.
        hosts.look()
    hosts.rest()
    assert hosts.origin.calls == 2
    wait_until(lambda: not hosts.look().words & KEPT, "the end of the page everywhere")
    hosts.origin.become("good")
    hosts.origin.publish("second")
    # Nobody queues for a page that could not be stored, until an answer can be.
    clock.step(20)
    assert hosts.look().texts == {SECOND: hosts.everybody}
    wait_until(lambda: hosts.look().words == {"HIT"}, "the new page everywhere")
