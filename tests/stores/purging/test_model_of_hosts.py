"""The purge algorithm over two hosts, a log and a failover, as a model: see :mod:`support.purge_model.hosts`."""

from __future__ import annotations

from functools import partial

import pytest

from support.purge_model.explorer import Actor, explore
from support.purge_model.hosts import HostState, World, composes, follows, loses, remote_purger, visits

ONE, TWO = 0, 1


def world(purges: int) -> World:
    return World(hosts=(HostState(), HostState()), left=purges)


def purges(host: int, times: int = 1, *, waits: bool = True) -> Actor:
    return Actor(f"P{host}", partial(remote_purger, host=host, times=times, waits=waits))


def followed(host: int, rounds: int, *, mortal: bool = False) -> Actor:
    program = partial(follows, host=host, rounds=rounds)
    return Actor(f"F{host}", program, mortal, program if mortal else None)


def makes(host: int) -> Actor:
    return Actor(f"C{host}", partial(composes, host=host))


def visited(host: int, requests: int = 1) -> Actor:
    return Actor(f"V{host}", partial(visits, host=host, requests=requests))


FAILOVER = Actor("failover", loses)

Scenario = tuple[World, tuple[Actor, ...]]

SCENARIOS: dict[str, Scenario] = {
    "a purge there, a page made here": (world(1), (purges(ONE), followed(TWO, 1), makes(TWO), visited(TWO, 2))),
    "a purge there, visitors there": (world(1), (purges(ONE), followed(TWO, 1), makes(TWO), visited(ONE, 2))),
    "two purges there": (world(2), (purges(ONE, 2), followed(TWO, 2), makes(TWO), visited(TWO))),
    "purges on both": (world(2), (purges(ONE, waits=False), purges(TWO, waits=False), makes(TWO), visited(TWO))),
    "a killed follower": (world(1), (purges(ONE), followed(TWO, 1, mortal=True), makes(TWO), visited(TWO, 2))),
    "a failover": (world(1), (purges(ONE), followed(ONE, 2), followed(TWO, 2), FAILOVER, visited(TWO))),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_no_page_is_older_than_an_acknowledged_purge(scenario: Scenario) -> None:
    explored = explore(*scenario, frozenset())  # type: ignore[arg-type]
    assert not explored.broken, f"\n{explored}"
    assert explored.states > 1000


#: What is done wrongly, where it shows, and which property finds it.
MISTAKES = [
    ("nobody waits for the others", "a purge there, a page made here", "P1"),
    ("nobody waits for the others", "a killed follower", "P1"),
    ("applied before it is done", "a purge there, a page made here", "P1"),
    ("applied before it is done", "two purges there", "P1"),
    ("purges are skipped by SEQ", "a killed follower", "P4"),
    ("purges are not said again", "a failover", "P4"),
]


@pytest.mark.parametrize(("twist", "name", "broken"), MISTAKES)
def test_a_mistake_is_found(twist: str, name: str, broken: str) -> None:
    explored = explore(*SCENARIOS[name], frozenset([twist]))  # type: ignore[arg-type]
    assert explored.broken.startswith(broken), f"{explored.broken or 'not found'} ({explored.states} states)"
