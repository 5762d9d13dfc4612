"""The purge algorithm as a model: see :mod:`support.purge_model.algorithm` for its properties."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from support.purge_model.algorithm import (
    FIRST,
    HARD,
    NOBODY,
    SOFT,
    Floor,
    Twists,
    World,
    composer,
    purger,
    reader,
    sweeper,
    thief,
    writer,
)
from support.purge_model.explorer import Actor, explore

WORLD = World(
    tables=((FIRST.seq, 0, 0),),
    current=0,
    entry=FIRST,
    record=(0, 0),
    locks=(NOBODY, NOBODY),
    clock=0,
    truth=0,
    purges=0,
    versions=1,
    done=(Floor(version=1),),
    running=frozenset(),
)

EMPTY = WORLD._replace(entry=None)

PURGED = EMPTY._replace(tables=((3, 0, 1),), record=(3, 0), purges=1)

CLOCK_RUNS = WORLD._replace(clock=10)


def purges(name: str, *kinds: int, repeats: int | None = None) -> Actor:
    """A purger; if it repeats, then it can be killed, whereupon it is started again and purges."""
    again = None if repeats is None else lambda twists: purger(twists, repeats)
    return Actor(name, lambda twists: purger(twists, *kinds), repeats is not None, again)


def writes(name: str, *, locks: bool, mortal: bool = False) -> Actor:
    return Actor(name, partial(writer, locks=locks), mortal)


def reads(name: str, requests: int, *, warm: bool = True, **more: bool) -> Actor:
    """A process of readers: see :func:`reader`."""
    return Actor(name, lambda twists: reader(twists, requests, warm, **more))


def sweeps(name: str, *, mortal: bool = False) -> Actor:
    return Actor(name, sweeper, mortal)


COMPOSED = Actor("C", partial(composer, requests=3))

THIEF = Actor("thief", thief)

P_HARD, P_SOFT, Q_SOFT = purges("P", HARD), purges("P", SOFT), purges("Q", SOFT)

SWEEP = sweeps("sweep")

ALONE, LATE = writes("W", locks=True), writes("V", locks=False)

Scenario = tuple[World, tuple[Actor, ...]]

SCENARIOS: dict[str, Scenario] = {
    "hard then soft, a reader that may restart": (WORLD, (purges("P", HARD, SOFT), reads("R", 3, restarts=True))),
    "soft then hard, a cold reader": (WORLD, (purges("P", SOFT, HARD), reads("R", 3, warm=False))),
    "two purgers, a reader that fills": (WORLD, (P_HARD, Q_SOFT, reads("R", 2, fills=True))),
    "a purge, a late writer": (WORLD, (P_HARD, LATE, reads("R", 2))),
    "a soft purge, a late writer": (WORLD, (P_SOFT, LATE, reads("R", 2))),
    "a purge, two writers": (WORLD, (P_HARD, LATE, ALONE, reads("R", 1))),
    "a hard purge, two readers that fill": (WORLD, (P_HARD, reads("R", 2, fills=True), reads("S", 2, fills=True))),
    "a soft purge, two readers that fill": (WORLD, (P_SOFT, reads("R", 2, fills=True), reads("S", 2, fills=True))),
    "a page made of what is purged": (WORLD, (purges("P", HARD, HARD), COMPOSED)),
    "a page made of what is purged softly": (WORLD, (purges("P", SOFT, HARD), COMPOSED)),
    "a page made of what is purged, a killed purge": (WORLD, (purges("P", HARD, repeats=HARD), Q_SOFT, COMPOSED)),
    "a killed hard purge": (WORLD, (purges("P", HARD, repeats=HARD), reads("R", 3, fills=True, restarts=True))),
    "a killed soft purge": (WORLD, (purges("P", SOFT, repeats=HARD), reads("R", 3, fills=True))),
    "a killed purge and another": (WORLD, (purges("P", HARD, repeats=HARD), Q_SOFT, reads("R", 1))),
    "a killed purge, a killed writer": (
        WORLD,
        (purges("P", HARD, repeats=SOFT), writes("W", locks=True, mortal=True), reads("R", 1)),
    ),
    "a lost table, two purges": (WORLD, (purges("P", HARD, SOFT), reads("R", 2, maps=True), THIEF)),
    "a lost table, two purgers": (WORLD, (P_HARD, Q_SOFT, reads("R", 2, maps=True), THIEF)),
    "a lost table, a late writer": (WORLD, (P_HARD, LATE, reads("R", 2, maps=True), THIEF)),
    "a lost table, two readers": (WORLD, (P_HARD, reads("R", 2, maps=True, fills=True), reads("S", 1, maps=True), THIEF)),
    "a lost table, a killed purge": (
        CLOCK_RUNS._replace(entry=None),
        (purges("P", HARD, repeats=HARD), reads("R", 2, warm=False, maps=True, fills=True), THIEF),
    ),
    "a sweep after a hard purge": (WORLD, (P_HARD, SWEEP, ALONE, reads("R", 1, warm=False))),
    "a sweep after a soft purge": (WORLD, (P_SOFT, SWEEP, ALONE, reads("R", 1, warm=False))),
    "a sweep, two purges, a reader that fills": (WORLD, (purges("P", HARD, HARD), SWEEP, reads("R", 2, fills=True))),
    "a sweep, two purges": (WORLD, (purges("P", HARD, SOFT), SWEEP, reads("R", 2))),
    "a killed sweep": (WORLD, (P_HARD, sweeps("sweep", mortal=True), sweeps("second sweep"), reads("R", 1))),
    "a sweep, a lost table": (WORLD, (P_HARD, SWEEP, THIEF, reads("R", 1, maps=True))),
}


@pytest.fixture(autouse=True)
def _no_garbage() -> Iterator[None]:
    """Look for no cycles among hundreds of thousands of tuples: that only takes time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_every_property_holds_in_every_state(scenario: Scenario, soak: Callable[[int, int], int]) -> None:
    """``make test`` explores only the nearest states; the tests of mistakes below explore all of them."""
    explored = explore(*scenario, frozenset(), soak(10**9, 12_000))
    assert not explored.broken, f"\n{explored}"
    assert explored.states > 1000


#: Whether names are read when they need not be, whether a writer looks before it writes, and which stamp a hit looks at first is
#: a matter of speed: nothing that holds depends on it.
INDIFFERENT = ["names are always read", "writes without a look", "the key's stamp last"]

QUICK = [
    "hard then soft, a reader that may restart",
    "two purgers, a reader that fills",
    "a purge, a late writer",
    "a killed hard purge",
]


@pytest.mark.grid
@pytest.mark.parametrize("twist", INDIFFERENT)
@pytest.mark.parametrize("name", [*QUICK, "a lost table, two purges", "a killed sweep"])
def test_what_only_saves_time_may_be_left_out(name: str, twist: str) -> None:
    explored = explore(*SCENARIOS[name], frozenset([twist]))
    assert not explored.broken, f"\n{explored}"


TWO_PURGES, TWO_PURGERS, LATE_WRITER, KILLED = QUICK

LOST = "a lost table, two purges"

SWEPT, SOFT_SWEPT, SWEPT_TWICE = "a sweep after a hard purge", "a sweep after a soft purge", "a sweep, two purges"

#: What is done wrongly, where it shows, and which property finds it.
MISTAKES = [
    ("SEQ is moved only after the names file", LATE_WRITER, "P2"),
    ("SEQ is moved only after the name's stamp", TWO_PURGES, "P1"),
    ("SEQ is moved only once", TWO_PURGES, "P1"),
    ("the name's stamp before the names file", TWO_PURGES, "P1"),
    ("no stamp of the name", TWO_PURGES, "P1"),
    ("a purge takes the number that is there", TWO_PURGES, "P1"),
    ("a purge forgets the other kind", TWO_PURGES, "P1"),
    ("purges without a lock", TWO_PURGERS, "P1"),
    ("SEQ is noted after the origin", LATE_WRITER, "P1"),
    ("the key's stamp before the file", LATE_WRITER, "P5"),
    ("a hit looks at the key's stamp only", TWO_PURGES, "P1"),
    ("a hit looks at the name's stamp before SEQ", TWO_PURGES, "P1"),
    ("the entry is read before the key's stamp", "a soft purge, a late writer", "P5"),
    ("names are read before their stamp", TWO_PURGES, "P1"),
    ("names are skipped by the SEQ of the load's start", TWO_PURGES, "P1"),
    ("what began with the purge counts as newer", "a page made of what is purged", "P1"),
    ("what began with the purge counts as newer", "a page made of what is purged softly", "P1"),
    ("no record is read for what began with the purge", "a page made of what is purged", "P1"),
    ("a purger goes on with a lost table", LOST, "P1"),
    ("a new table is filled without the lock", LOST, "P1"),
    ("a new table begins at zero", "a lost table, two readers", "P2"),
    ("copies outlive their table", LOST, "P1"),
    ("a sweep goes on with a lost table", "a sweep, a lost table", "P1"),
    ("a load does not look again", SWEPT_TWICE, "P1"),
    ("a load does not look again", "a killed sweep", "P1"),
    ("SEQ is not moved before a record goes", SWEPT_TWICE, "P1"),
    ("a record goes while an old origin runs", SWEPT, "P1"),
    ("old origins are looked for at the end + writes without a look", SWEPT, "P1"),
    ("a record goes without another look", "a sweep, two purges, a reader that fills", "P1"),
    ("soft victims don't matter", SOFT_SWEPT, "P1"),
]


@pytest.mark.parametrize(("twist", "name", "broken"), MISTAKES)
def test_a_mistake_is_found(twist: str, name: str, broken: str) -> None:
    explored = explore(*SCENARIOS[name], frozenset(twist.split(" + ")))
    assert explored.broken.startswith(broken), f"{explored.broken or 'not found'} ({explored.states} states)"
    assert explored.trace


#: What the algorithm does not promise.
LIMITS = [
    # The number of a record that was removed is lost with the table. time_ns() is above it, unless the clock stepped back: then an
    # entry may have a higher number than the next purge.
    pytest.param(
        (PURGED, (P_HARD, SWEEP, reads("R", 2, warm=False, maps=True, fills=True), THIEF)),
        frozenset(),
        "P1",
        id="the clock stepped back, and a record was removed, and the table lost",
    ),
    # Housekeeping looks after the table once a second or so.
    pytest.param(
        SCENARIOS[LOST], frozenset(["nobody is excused"]), "P1", id="a process has not noticed yet that the table was lost"
    ),
    # A lost entry is a miss, and nothing worse.
    pytest.param((WORLD, (P_HARD, SWEEP, LATE)), frozenset(), "P2", id="a sweep removes what is written without the lock"),
]


@pytest.mark.parametrize(("scenario", "twists", "broken"), LIMITS)
def test_a_known_limit(scenario: Scenario, twists: Twists, broken: str) -> None:
    explored = explore(*scenario, twists)
    assert explored.broken.startswith(broken), f"{explored.broken or 'it holds by now'} ({explored.states} states)"
