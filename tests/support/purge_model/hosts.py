"""Purges over two hosts as a model: each has a directory, and a server between them has a log. See :mod:`.algorithm`.

The page and a value have the same name. The page is on the server and in the files of both hosts. It may be made from the value,
which is a copy in memory.

P1
    A request that began on a host after that host had acknowledged a purge, or after all hosts had, is never served what an origin
    made of the content from before the purge.
P4
    No process waits forever.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from support.purge_model.algorithm import (
    NOBODY,
    WITH_LAST,
    WITH_NEXT,
    Broken,
    Outcome,
    Program,
    Twists,
    choose,
    is_settled,
    release,
    take,
)

#: A number of the server times this is the number on a host.
SCALE = 4


class Page(NamedTuple):
    """The page in a file or at the server: its content, and the last purge number on the host that made it."""

    content: int
    seq: int


class HostState(NamedTuple):
    """What the processes of one host share.

    :ivar seq: SEQ in the table of stamps.
    :ivar name: the stamp of the name.
    :ivar record: the number in the record of the name.
    :ivar applied: the last purge of the server that is applied.
    :ivar file: the page.
    """

    seq: int = 1
    name: int = 0
    record: int = 0
    applied: int = 0
    file: Page | None = None


class World(NamedTuple):
    """All that is shared.

    :ivar hosts: the two hosts.
    :ivar number: the highest number at the server.
    :ivar log: the purges there, each with the one before.
    :ivar hard: the last purge of the name there.
    :ivar page: the page there.
    :ivar locks: who has ``purge.lock`` of each host.
    :ivar left: purges that are not over.
    :ivar truth: the content that an origin would make now.
    :ivar floors: the least content that may be served on each host, after the purges that are acknowledged there.
    :ivar running: always empty, like ``entry``: the explorer expects both.
    """

    hosts: tuple[HostState, HostState]
    number: int = 0
    log: tuple[tuple[int, int], ...] = ()
    hard: int = 0
    page: Page | None = None
    locks: tuple[int, int] = (NOBODY, NOBODY)
    left: int = 0
    truth: int = 0
    floors: tuple[int, int] = (0, 0)
    running: frozenset[tuple[int, int]] = frozenset()
    entry: None = None


# -- steps -----------------------------------------------------------------------------------------------------------


def see(world: World, actor: int, host: int, field: str) -> Outcome:
    return world, getattr(world.hosts[host], field)  # type: ignore[return-value]


def store(world: World, actor: int, host: int, field: str, value: Any) -> Outcome:
    hosts = list(world.hosts)
    hosts[host] = hosts[host]._replace(**{field: value})
    return world._replace(hosts=(hosts[0], hosts[1])), None  # type: ignore[return-value]


def see_locked(world: World, actor: int, host: int, field: str) -> Outcome:
    """Look at what only the holder of ``purge.lock`` changes."""
    return see(world, actor, host, field)


def move_name(world: World, actor: int, host: int) -> Outcome:
    return store(world, actor, host, "name", world.hosts[host].name + 1)


def change_content(world: World, actor: int) -> Outcome:
    return world._replace(truth=world.truth + 1), world.truth + 1  # type: ignore[return-value]


def draw_number(world: World, actor: int, above: int, applied: int) -> Outcome:
    """The script of a purge: return its number, and what is in the log since the last purge that was applied."""
    number = max(world.number + 1, above)
    log = (*world.log, (number, world.log[-1][0] if world.log else 0))
    world = world._replace(number=number, log=log, hard=number)
    return world, (number, tuple(item for item in log if item[0] > applied))  # type: ignore[return-value]


def read_log(world: World, actor: int, host: int) -> Outcome | None:
    """Read the log for the follower of a host.

    It waits until the log has a new purge, all purges are over, or the server has lost its last number.
    """
    applied = world.hosts[host].applied
    new = tuple(item for item in world.log if item[0] > applied)
    return None if not new and world.left and world.number >= applied else (world, (applied, new, world.number))  # type: ignore[return-value]


def is_applied(world: World, actor: int, host: int, number: int) -> Outcome | None:
    """Wait for another host."""
    return (world, None) if world.hosts[host].applied >= number else None  # type: ignore[return-value]


def acknowledged(world: World, actor: int, host: int, truth: int) -> Outcome:
    floors = list(world.floors)
    floors[host] = max(floors[host], truth)
    return world._replace(floors=(floors[0], floors[1])), None  # type: ignore[return-value]


def is_over(world: World, actor: int) -> Outcome:
    return world._replace(left=world.left - 1), None  # type: ignore[return-value]


def write_page(world: World, actor: int, page: Page, seq: int) -> Outcome:
    """The script of a write. Here ``seq`` is a number of the server: see :func:`shared`."""
    if world.hard > seq:
        return world, False  # type: ignore[return-value]
    return world._replace(page=page, number=max(world.number, seq)), True  # type: ignore[return-value]


def get_page(world: World, actor: int) -> Outcome:
    """The script of a load. The server has the number of the page from the host that wrote it."""
    page = world.page
    return world, None if page is None or shared(page.seq) < world.hard else page  # type: ignore[return-value]


def begin_request(world: World, actor: int, host: int) -> Outcome:
    return world, world.floors[host]  # type: ignore[return-value]


def serve_page(world: World, actor: int, page: Page, floor: int) -> Outcome:
    if page.content < floor:
        raise Broken(f"P1: {page} is served, though a purge of what is older than {floor} was acknowledged before")
    return world, None  # type: ignore[return-value]


def fail_over(world: World, actor: int) -> Outcome:
    """The server loses the last purge, and its number."""
    log = world.log[:-1]
    last = log[-1][0] if log else 0
    return world._replace(log=log, number=last, hard=last), None  # type: ignore[return-value]


WITH_LAST |= {see_locked, acknowledged, is_over, serve_page}
WITH_NEXT |= {begin_request, change_content}


def shared(seq: int) -> int:
    return max(0, seq - 1) // SCALE


# -- programs --------------------------------------------------------------------------------------------------------


def apply(twists: Twists, host: int, new: tuple[tuple[int, int], ...]) -> Program:
    """Apply purges of the log in the directory of a host."""
    yield take, host
    applied = yield see_locked, host, "applied"
    if "purges are skipped by SEQ" in twists:
        seq = yield see, host, "seq"
        applied = seq // SCALE
    new = tuple(item for item in new if item[0] > applied)
    if new:
        last = new[-1][0]
        seq = yield see, host, "seq"
        number = seq + 1 + (seq + 1) % 2
        end = max(last * SCALE, number) + 1
        if "applied before it is done" in twists:
            yield store, host, "applied", last
        yield store, host, "seq", number
        yield store, host, "record", end
        yield move_name, host
        yield store, host, "seq", max(end, number + 1)
        yield store, host, "applied", last
    yield release, host


def remote_purger(twists: Twists, host: int, times: int, waits: bool) -> Program:
    """A publisher on one host, who may wait for the other one."""
    for _turn in range(times):
        truth = yield (change_content,)
        applied = yield see, host, "applied"
        seq = yield see, host, "seq"
        number, new = yield draw_number, -(-seq // SCALE) + 1, applied
        yield from apply(twists, host, new)
        yield acknowledged, host, truth
        if waits:
            if "nobody waits for the others" not in twists:
                yield is_applied, 1 - host, number
            yield acknowledged, 1 - host, truth
        yield (is_over,)


def follows(twists: Twists, host: int, rounds: int) -> Program:
    for _round in range(rounds):
        applied, new, number = yield read_log, host
        if number < applied and "purges are not said again" not in twists:
            seq = yield see, host, "seq"
            number, new = yield draw_number, -(-seq // SCALE) + 1, applied
        yield from apply(twists, host, new)


def composes(twists: Twists, host: int) -> Program:
    """Make a page of the old copy of a value, if that stands, and store it for all."""
    seq = yield see, host, "seq"
    now = yield see, host, "seq"
    stamp = yield see, host, "name"
    if now != 1 and stamp != 0:
        return
    page = Page(0, seq)
    now = yield see, host, "seq"
    record = 0
    if now != seq or not is_settled(seq):
        record = yield see, host, "record"
    if seq < record:
        return
    is_stored = yield write_page, page, shared(seq)
    if is_stored:
        yield store, host, "file", page


def visits(twists: Twists, host: int, requests: int) -> Program:
    """Visitors of the page, which comes from the server, or from the file if the server is not asked."""
    for _request in range(requests):
        asks = yield choose, "ask the server"
        floor = yield begin_request, host
        if asks:
            page = yield (get_page,)
            if page is not None:
                yield store, host, "file", page
        page = yield see, host, "file"
        if page is None:
            continue
        seq = yield see, host, "seq"
        record = 0
        if seq != page.seq or not is_settled(seq):
            record = yield see, host, "record"
        if page.seq < record:
            continue
        yield serve_page, page, floor


def loses(twists: Twists) -> Program:
    """A failover, once there is something to lose."""
    fails = yield choose, "fail over"
    if fails:
        yield (fail_over,)
