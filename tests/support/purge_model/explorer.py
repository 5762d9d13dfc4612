"""The explorer: plays every interleaving of the programs' atomic steps, and names the property that is broken."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from support.purge_model.algorithm import NOBODY, WITH_LAST, WITH_NEXT, Broken, Program, Step, Twists, World, _hold, choose, end


class Actor(NamedTuple):
    """A program's part in a scenario.

    :ivar program: returns the program, with these twists.
    :ivar mortal: whether it can be killed, once, between any two steps.
    :ivar again: returns the program that runs after it was killed; ``None``: there is none.
    """

    name: str
    program: Callable[[Twists], Program]
    mortal: bool = False
    again: Callable[[Twists], Program] | None = None


@dataclass
class Explored:
    """What came out: how many states there are, and the way to the first in which a property does not hold."""

    states: int
    broken: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.broken or 'nothing broken'} ({self.states} states)", *self.trace])


DEAD = -1  # a place from which nothing goes on

KILLED = "killed"

State = tuple[int, ...]  # the number of the world, and of the place of each actor

Move = tuple[int, int, Any]  # to which world and place, and what was found


class Moves:
    """The possible moves in each state.

    Worlds have numbers, and so have places: the points in their programs at which actors are. Two places are one if the program is
    at the same line with the same variables.
    """

    def __init__(self, actors: tuple[Actor, ...], twists: Twists) -> None:
        self.actors = actors
        self.twists = twists
        self.steps: list[Step | None] = []
        self._histories: list[tuple[int, bool, tuple[Any, ...]]] = []
        self._places: dict[Any, int] = {}
        self._next: dict[tuple[int, Any], int] = {}
        self._worlds: list[World] = []
        self._numbers: dict[World, int] = {}
        self._moves: dict[tuple[int, int], tuple[Move, ...]] = {}

    def initial(self, world: World) -> State:
        return (self._number(world), *(self._place(actor, False, ()) for actor in range(len(self.actors))))

    def of(self, number: int, place: int) -> tuple[Move, ...]:
        """Return what the actor at this place can do in this world."""
        moves = self._moves.get((number, place))
        if moves is None:
            moves = self._moves[number, place] = tuple(self._find(number, place))
        return moves

    def is_over(self, place: int) -> bool:
        return place == DEAD or self.steps[place] is None

    def _find(self, number: int, place: int) -> Iterator[Move]:
        step = None if place == DEAD else self.steps[place]
        if step is None:
            return
        if step[0] is choose:
            yield from ((number, self._after(place, found), found) for found in (False, True))
            return
        actor, killed, _ = self._histories[place]
        done = self._do(self._worlds[number], actor, place, step)
        if done is not None:
            yield (self._number(done[0]), *done[1:])
        if self.actors[actor].mortal and not killed:
            again = DEAD if self.actors[actor].again is None else self._place(actor, True, ())
            yield self._number(_without(self._worlds[number], actor)), again, KILLED

    def _do(self, world: World, actor: int, place: int, step: Step | None) -> tuple[World, int, Any] | None:
        """Do a step of an actor, with those that happen at once with it."""
        found: Any = None
        more = True
        while step is not None and more:
            outcome = step[0](world, actor, *step[1:])
            if outcome is None:
                return None
            world, found = outcome
            place = self._after(place, found)
            more, step = step[0] in WITH_NEXT, self.steps[place]
            more = more or (step is not None and step[0] in WITH_LAST)
        return world, place, found

    def _number(self, world: World) -> int:
        number = self._numbers.setdefault(world, len(self._worlds))
        if number == len(self._worlds):
            _check(world)
            self._worlds.append(world)
        return number

    def _after(self, place: int, found: Any) -> int:
        """Where the program is once its step has found something."""
        after = self._next.get((place, found))
        if after is None:
            actor, killed, history = self._histories[place]
            after = self._next[place, found] = self._place(actor, killed, (*history, found))
        return after

    def _place(self, actor: int, killed: bool, history: tuple[Any, ...]) -> int:
        first, again = self.actors[actor].program, self.actors[actor].again
        program = (again if killed and again is not None else first)(self.twists)
        step: Step | None
        shape: tuple[Any, ...]
        try:
            step = next(program)
            for found in history:
                step = program.send(found)
            shape = (actor, killed, *_frames(program))
        except StopIteration:
            step, shape = None, (actor,)
        place = self._places.setdefault(shape, len(self.steps))
        if place == len(self.steps):
            self.steps.append(step)
            self._histories.append((actor, killed, history))
        assert self.steps[place] == step, "what the program knows is not all in its variables"
        return place


def _frames(program: Any) -> Iterator[Any]:
    while program is not None:
        frame = program.gi_frame
        yield program.gi_code, frame.f_lasti, tuple(sorted(frame.f_locals.items()))
        program = program.gi_yieldfrom


def _without(world: World, actor: int) -> World:
    """The world after an actor was killed: the kernel frees its locks."""
    world = end(world, actor)[0]
    for lock, holder in enumerate(world.locks):
        world = _hold(world, lock, NOBODY) if holder == actor else world
    return world


def _check(world: World) -> None:
    """Nobody hides an entry whose origin began after the last purge began."""
    entry = world.entry
    if entry is not None and entry.purges == world.purges and entry.seq < max(world.record):
        raise Broken(f"P2: {entry} is hidden, though no purge began since its origin began")


def explore(world: World, actors: tuple[Actor, ...], twists: Twists, most: float = math.inf) -> Explored:
    """Go through all states, the nearest first; stop at the first in which a property does not hold.

    :param most: how many states are looked for. Default: all.
    """
    moves = Moves(actors, twists)
    came: dict[State, tuple[State, int, Any] | None] = {}
    state, actor = moves.initial(world), 0
    came[state] = None
    queue = deque([state])
    try:
        while queue and len(came) < most:
            state = queue.popleft()
            stuck = True
            for actor, place in enumerate(state[1:]):
                for number, after, found in moves.of(state[0], place):
                    stuck = stuck and found is KILLED
                    new = (number, *state[1 : 1 + actor], after, *state[2 + actor :])
                    if new not in came:
                        came[new] = (state, actor, found)
                        queue.append(new)
            if stuck and not all(map(moves.is_over, state[1:])):
                raise Broken("P4: somebody waits forever")
    except Broken as broken:
        return Explored(len(came), str(broken), tuple(_trace(moves, came, state, actor)))
    return Explored(len(came))


def _trace(moves: Moves, came: dict[State, tuple[State, int, Any] | None], state: State, actor: int) -> list[str]:
    lines = [_line(moves, state, actor, "!")]
    while (last := came[state]) is not None:
        state, actor, found = last
        lines.append(_line(moves, state, actor, found))
    return lines[::-1]


def _line(moves: Moves, state: State, actor: int, found: Any) -> str:
    place = state[1 + actor]
    step = None if place == DEAD else moves.steps[place]
    if step is None or found is KILLED:
        return f"{moves.actors[actor].name}: killed"
    return f"{moves.actors[actor].name}: {step[0].__name__}({', '.join(map(str, step[1:]))}) -> {found}"
