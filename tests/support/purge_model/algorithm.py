"""The purge algorithm as a model: every interleaving of its atomic steps, killed processes and a lost table included.

A program is a generator that yields one atomic step at a time, ``(function, *arguments)``, and is sent what the step found. The
explorer goes through all orders in which the steps of a few programs can happen. Where a program looks for ``"..." in twists``, it
has a variant: a wrong one, in which the explorer must find a broken property, or one that is right too.

P1
    A request that began after a hard purge was acknowledged is never served what an origin made of the content from before the
    purge; after a soft purge, never as fresh. This also holds after a restart of the process, and after the table was lost, for
    processes with the new table.
P2
    The result of an origin that began after the last purge was done is stored, kept, and never hidden.
P4
    No process waits forever, and a purge that was killed can be repeated, after which P1 holds for it.
P5
    A request that began after a write was done is not served the entry from before the write.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

# -- what is shared --------------------------------------------------------------------------------------------------


SEQ, KEY, NAME = 0, 1, 2  # slots of the table: the last purge number, the stamp of the key, the stamp of the name

HARD, SOFT = 0, 1  # kinds of purges, and their places in the name's record

PURGE_LOCK, KEY_LOCK = 0, 1

NOBODY = -1

NEWEST = 99  # above all versions of entries, and all numbers of tables


class Entry(NamedTuple):
    """The entry file.

    :ivar content: what the origin made: the truth when it was called.
    :ivar seq: the last purge number, noted before its origin was called.
    :ivar purges: how many purges had begun by then, which only the properties use; -1 if P2 does not apply to it.
    :ivar version: which write it is.
    """

    content: int
    seq: int
    purges: int
    version: int


class Floor(NamedTuple):
    """The least that may be served: content after a hard purge, fresh content after a soft one, and the last write."""

    hard: int = 0
    soft: int = 0
    version: int = 0


class World(NamedTuple):
    """All that processes share, and below ``clock`` what only the properties know.

    :ivar tables: all tables there ever were, each ``(SEQ, key's stamp, name's stamp)``.
    :ivar current: the one that has the table's path now.
    :ivar record: the names file: ``(hard, soft)``; no file is the same as zeros.
    :ivar locks: who holds purge.lock and the key's lock.
    :ivar clock: a time above all purge numbers drawn so far; 0: the clock stepped back, below all of them.
    :ivar truth: the content that an origin would make now.
    :ivar purges: how many purges have begun.
    :ivar done: what is acknowledged, for each table on which it was done.
    :ivar running: origins that run and may still write, with the purge number that they noted.
    """

    tables: tuple[tuple[int, int, int], ...]
    current: int
    entry: Entry | None
    record: tuple[int, int]
    locks: tuple[int, int]
    clock: int
    truth: int
    purges: int
    versions: int
    done: tuple[Floor, ...]
    running: frozenset[tuple[int, int]]


class Broken(Exception):
    """A property does not hold."""


Step = tuple[Any, ...]

Outcome = tuple[World, Any]

Twists = frozenset[str]

Program = Generator[Step, Any, Any]


# -- atomic steps: each takes the world and who does it, and returns the new world and what was found; None: must wait -----


def look(world: World, actor: int, table: int, slot: int) -> Outcome:
    return world, world.tables[table][slot]


def put(world: World, actor: int, table: int, slot: int, value: int) -> Outcome:
    numbers = list(world.tables[table])
    numbers[slot] = value
    tables = (*world.tables[:table], (numbers[0], numbers[1], numbers[2]), *world.tables[table + 1 :])
    return world._replace(tables=tables), None


def stamp(world: World, actor: int, table: int, slot: int) -> Outcome:
    """Give a slot a random number: one that no slot of this meaning ever had, in any table."""
    return put(world, actor, table, slot, 100 * table + world.tables[table][slot] % 100 + 1)


def take(world: World, actor: int, lock: int) -> Outcome | None:
    return None if world.locks[lock] != NOBODY else (_hold(world, lock, actor), None)


def release(world: World, actor: int, lock: int) -> Outcome:
    return _hold(world, lock, NOBODY), None


def _hold(world: World, lock: int, holder: int) -> World:
    purge, key = world.locks
    return world._replace(locks=(holder, key) if lock == PURGE_LOCK else (purge, holder))


def publish(world: World, actor: int) -> Outcome:
    return world._replace(truth=world.truth + 1), world.truth + 1


def draw(world: World, actor: int, seq: int) -> Outcome:
    """Draw ``n = max(T[SEQ] + 1, time_ns())``, or the even number after it: SEQ is even while a purge runs."""
    n = max(seq + 1, world.clock)
    n += n % 2
    return world._replace(clock=n + 2 if world.clock else 0), n


def begin_purge(world: World, actor: int) -> Outcome:
    """Count the purge. The step after, which happens at once with this one, is the first that other processes can see."""
    return world._replace(purges=world.purges + 1), None


def read_names(world: World, actor: int) -> Outcome:
    return world, world.record


def write_names(world: World, actor: int, record: tuple[int, int]) -> Outcome:
    return world._replace(record=record), None


def acknowledge(world: World, actor: int, table: int, kind: int, truth: int) -> Outcome:
    floor = world.done[table]
    return _done(world, table, floor._replace(hard=truth) if kind == HARD else floor._replace(soft=truth)), None


def _done(world: World, table: int, floor: Floor) -> World:
    return world._replace(done=(*world.done[:table], Floor(*map(max, floor, world.done[table])), *world.done[table + 1 :]))


def start(world: World, actor: int, table: int) -> Outcome:
    """Note SEQ, from which moment on an origin runs."""
    seq = world.tables[table][SEQ]
    # A process that has not noticed yet that its table was replaced can't know of later purges. An origin that begins in the middle
    # of a purge may use the content that is being purged, so its result is purged too. P2 applies to neither.
    purges = world.purges if table == len(world.tables) - 1 and is_settled(seq) else -1
    return world._replace(running=world.running | {(actor, seq)}), (seq, purges)


def is_settled(seq: int) -> bool:
    """Whether no purge runs."""
    return seq % 2 == 1 or seq == 0


def call_origin(world: World, actor: int) -> Outcome:
    return world, world.truth


def end(world: World, actor: int) -> Outcome:
    return world._replace(running=frozenset(one for one in world.running if one[0] != actor)), None


def refuse(world: World, actor: int, purges: int) -> Outcome:
    if purges == world.purges:
        raise Broken("P2: a result is not written, though no purge began since its origin began")
    return end(world, actor)


def read_entry(world: World, actor: int) -> Outcome:
    return world, world.entry


def replace(world: World, actor: int, content: int, seq: int, purges: int) -> Outcome:
    version = world.versions + 1
    return world._replace(entry=Entry(content, seq, purges, version), versions=version), version


def written(world: World, actor: int, table: int, version: int) -> Outcome:
    # Processes with another table keep a copy until it is stale, as if the writer had been killed before the stamp.
    return _done(world, table, Floor(version=version)) if table == len(world.tables) - 1 else world, None


def unlink(world: World, actor: int) -> Outcome:
    if world.entry is not None and world.entry.purges == world.purges:
        raise Broken("P2: an entry is removed, though no purge began since its origin began")
    return world._replace(entry=None), None


def origins_before(world: World, actor: int, n: int) -> Outcome:
    """Whether an origin runs that began before ``n`` and could still write.

    In the package there is none: a record is kept for a day, and no origin runs that long.
    """
    return world, any(seq < n for _, seq in world.running)


def begin(world: World, actor: int, table: int) -> Outcome:
    """Begin a request. Return the floor that it must heed: what is done so far on its process's table and on earlier ones."""
    return world, Floor(*map(max, zip(*world.done[: table + 1], strict=True)))


def serve(world: World, actor: int, entry: Entry, fresh: bool, floor: Floor) -> Outcome:
    if entry.content < floor.hard:
        raise Broken(f"P1: {entry} is served, though a hard purge was acknowledged before the request began")
    if fresh and entry.content < floor.soft:
        raise Broken(f"P1: {entry} is served as fresh, though a soft purge was acknowledged before the request began")
    if entry.version < floor.version:
        raise Broken(f"P5: {entry} is served, though a later one was written before the request began")
    return world, None


def hide(world: World, actor: int, entry: Entry) -> Outcome:
    """Check that a load has a reason to hide an entry, or not to treat it as fresh."""
    if entry.purges == world.purges:
        raise Broken(f"P2: {entry} is hidden from a load, though no purge began since its origin began")
    return world, None


def choose(world: World, actor: int, what: str) -> Outcome:
    """Do something or not: the explorer tries both."""
    raise NotImplementedError


def lose(world: World, actor: int) -> Outcome:
    return world._replace(current=NOBODY), None


def current(world: World, actor: int) -> Outcome:
    return world, world.current


def open_table(world: World, actor: int) -> Outcome:
    """Open the table; made with zeros if it is not there."""
    if world.current != NOBODY:
        return world, world.current
    new = len(world.tables)
    return world._replace(tables=(*world.tables, (0, 0, 0)), done=(*world.done, Floor()), current=new), new


def last_number(world: World, actor: int, table: int) -> Outcome:
    """Look at SEQ under purge.lock: nobody else moves it."""
    return look(world, actor, table, SEQ)


def own_record(world: World, actor: int) -> Outcome:
    """Read the names file under purge.lock: nobody else writes it."""
    return read_names(world, actor)


#: Steps that happen at once with the step before. Other actors could not see a difference, or a later moment would be safer.
WITH_LAST: set[Any] = {
    acknowledge, current, draw, end, hide, last_number, origins_before, own_record, refuse, release, serve, written,
}  # fmt: skip

#: Steps that happen at once with the step after. An earlier moment would be safer: a request that begins later must heed more, and
#: content that changes later is old for longer. To take a lock earlier only keeps others waiting.
WITH_NEXT: set[Any] = {begin, begin_purge, publish, take}


# -- programs. What they know must be in variables: a value that waits on the stack while they yield would be overlooked -----


def purger(twists: Twists, *kinds: int) -> Program:
    """A publisher, who changes the content, then purges the name; as often as there are kinds."""
    table = 0
    for _turn, kind in enumerate(kinds):
        truth = yield (publish,)
        table = yield from purge(twists, table, kind, truth)


def purge(twists: Twists, table: int, kind: int, truth: int) -> Program:
    if "purges without a lock" not in twists:
        table = yield from lock_current(twists, table)
    seq = yield last_number, table
    n = yield draw, seq
    if "a purge takes the number that is there" in twists:
        n = seq
    yield (begin_purge,)
    if not twists & {"SEQ is moved only after the names file", "SEQ is moved only after the name's stamp"}:
        yield put, table, SEQ, n
    if "the name's stamp before the names file" in twists:
        yield stamp, table, NAME
    hard, soft = yield (own_record,)
    if "a purge forgets the other kind" in twists:
        hard, soft = 0, 0
    end_of_it = n if "what began with the purge counts as newer" in twists else n + 1
    yield write_names, (end_of_it, soft) if kind == HARD else (hard, end_of_it)
    if "SEQ is moved only after the names file" in twists:
        yield put, table, SEQ, n
    if not twists & {"the name's stamp before the names file", "no stamp of the name"}:
        yield stamp, table, NAME
    if "SEQ is moved only once" not in twists:
        yield put, table, SEQ, n + 1
    yield acknowledge, table, kind, truth
    if "purges without a lock" not in twists:
        yield release, PURGE_LOCK
    return table


def lock_current(twists: Twists, table: int) -> Program:
    """Take purge.lock; start over if the table was lost meanwhile."""
    while True:
        yield take, PURGE_LOCK
        if "a purger goes on with a lost table" in twists:
            return table
        now = yield (current,)
        if now == table:
            return table
        yield release, PURGE_LOCK
        table = yield from map_table(twists)


def map_table(twists: Twists) -> Program:
    table = yield (open_table,)
    if "a new table is filled without the lock" not in twists:
        yield take, PURGE_LOCK
    hard, soft = yield (read_names,)
    seq = yield last_number, table
    if seq < max(hard, soft) and "a new table begins at zero" not in twists:
        yield put, table, SEQ, max(hard, soft) | 1
    if "a new table is filled without the lock" not in twists:
        yield release, PURGE_LOCK
    return table


def writer(twists: Twists, locks: bool) -> Program:
    """Somebody who calls the origin; without the lock, as after a lock timeout, another can write at the same time."""
    yield from fill(twists, 0, locks)


def fill(twists: Twists, table: int, locks: bool) -> Program:
    if "SEQ is noted after the origin" in twists:
        content = yield (call_origin,)
        seq, purges = yield start, table
    else:
        seq, purges = yield start, table
        content = yield (call_origin,)
    if locks:
        yield take, KEY_LOCK
    if "writes without a look" not in twists:
        now = yield look, table, SEQ
        if now != seq:
            record = yield (read_names,)
            if seq < record[HARD]:
                yield refuse, purges
                if locks:
                    yield release, KEY_LOCK
                return
    if "the key's stamp before the file" in twists:
        yield stamp, table, KEY
    version = yield replace, content, seq, purges
    if "the key's stamp before the file" not in twists:
        yield stamp, table, KEY
    yield written, table, version
    yield (end,)
    if locks:
        yield release, KEY_LOCK


FIRST = Entry(content=0, seq=1, purges=0, version=1)


class Copy(NamedTuple):
    """An entry in a process's memory, with what was noted while it was loaded."""

    entry: Entry
    fresh: bool
    seq: int
    stamp: int
    name_stamp: int


def reader(
    twists: Twists, requests: int, warm: bool, *, fills: bool = False, restarts: bool = False, maps: bool = False
) -> Program:
    """A process and its requests, one after the other.

    :param warm: whether it has a copy of the first entry at the beginning.
    :param fills: whether it calls the origin when it has nothing fresh.
    :param restarts: whether it may lose its memory before a request.
    :param maps: whether it may notice before a request that the table was lost.
    """
    table, copy = 0, Copy(FIRST, True, FIRST.seq, 0, 0) if warm else None
    for _request in range(requests):
        if maps:
            table, copy = yield from notice(twists, table, copy)
        if restarts and copy is not None:
            lost = yield choose, "restart"
            copy = None if lost else copy
        copy = yield from request(twists, table, copy)
        if fills and (copy is None or not copy.fresh):
            yield from fill(twists, table, True)


def composer(twists: Twists, requests: int) -> Program:
    """A process that makes a page from a copy that it is served, and the requests for that page, which has the same name.

    The page is in a separate file, which no other process writes, so a variable stands for the file.
    """
    seq, _purges = yield start, 0
    used = yield from hit(twists, 0, Copy(FIRST, True, FIRST.seq, 0, 0))
    yield (end,)
    if used is None:
        return
    page, copy = Entry(used.entry.content, seq, -1, NEWEST), None
    for _request in range(requests):
        floor = yield begin, 0
        if copy is not None:
            now = yield look, 0, SEQ
            name = yield look, 0, NAME
            copy = None if now != copy.seq and name != copy.name_stamp else copy._replace(seq=now)
        if copy is None:
            noted = yield look, 0, SEQ
            name = yield look, 0, NAME
            record = yield from record_of(twists, 0, page, noted)
            if record is not None and page.seq < record[HARD]:
                return
            copy = Copy(page, record is None or page.seq >= record[SOFT], noted, 0, name)
        yield serve, copy.entry, copy.fresh, floor


def notice(twists: Twists, table: int, copy: Copy | None) -> Program:
    """What housekeeping does: now and then it looks whether the table is still the one that is mapped."""
    looks = yield choose, "look after the table"
    if not looks:
        return table, copy
    now = yield (current,)
    if now == table:
        return table, copy
    table = yield from map_table(twists)
    return table, copy if "copies outlive their table" in twists else None


def request(twists: Twists, table: int, copy: Copy | None) -> Program:
    floor = yield begin, NEWEST if "nobody is excused" in twists else table
    if copy is not None:
        copy = yield from hit(twists, table, copy)
    if copy is None:
        copy = yield from load(twists, table)
    if copy is not None:
        yield serve, copy.entry, copy.fresh, floor
    return copy


def hit(twists: Twists, table: int, copy: Copy) -> Program:
    """Return the copy if it is still good."""
    if "the key's stamp last" not in twists:
        key = yield look, table, KEY
        if key != copy.stamp:
            return None
    if "a hit looks at the name's stamp before SEQ" in twists:
        name = yield look, table, NAME
        seq = yield look, table, SEQ
        if seq != copy.seq and name != copy.name_stamp:
            return None
    else:
        seq = yield look, table, SEQ
        if seq != copy.seq and "a hit looks at the key's stamp only" not in twists:
            name = yield look, table, NAME
            if name != copy.name_stamp:
                return None
    if "the key's stamp last" in twists:
        key = yield look, table, KEY
        if key != copy.stamp:
            return None
    return copy._replace(seq=seq)


def load(twists: Twists, table: int) -> Program:
    """Return a copy of what is there, unless it is hidden by a hard purge."""
    while True:
        seq = yield look, table, SEQ
        if "the entry is read before the key's stamp" in twists:
            entry = yield (read_entry,)
            key = yield look, table, KEY
        else:
            key = yield look, table, KEY
            entry = yield (read_entry,)
        if entry is None:
            return None
        if "names are read before their stamp" in twists:
            record = yield from record_of(twists, table, entry, seq)
            name = yield look, table, NAME
        else:
            name = yield look, table, NAME
            record = yield from record_of(twists, table, entry, seq)
        if record is not None and entry.seq < seq and "a load does not look again" not in twists:
            # A sweep may have removed the entry after it was read here, and then its record, before that was read here.
            again = yield look, table, SEQ
            if again != seq:
                continue
        hard, soft = record or (0, 0)
        hidden = entry.seq < hard
        fresh = entry.seq >= soft and not hidden
        if not fresh:
            yield hide, entry
        return None if hidden else Copy(entry, fresh, seq, key, name)


def record_of(twists: Twists, table: int, entry: Entry, noted: int) -> Program:
    """Return the names file, or None if it need not be read, since no purge began since the entry's origin began."""
    if "names are always read" in twists:
        record = yield (read_names,)
        return record
    now = noted
    if "names are skipped by the SEQ of the load's start" not in twists:
        now = yield look, table, SEQ
    if now == entry.seq and (is_settled(now) or "no record is read for what began with the purge" in twists):
        return None
    record = yield (read_names,)
    return record


def sweeper(twists: Twists) -> Program:
    """A full sweep, after which the name's record may go.

    A load may still hold an entry that the sweep removes, so SEQ is moved before the record goes: see :func:`load`. From the
    beginning of the sweep on, no origin may run that began before the purge: it could write an entry after the sweep has looked.
    """
    record = yield (read_names,)
    old = yield origins_before, max(record)
    if record == (0, 0):
        return
    yield take, KEY_LOCK
    entry = yield (read_entry,)
    if entry is not None and entry.seq < record[HARD]:
        yield (unlink,)
        yield stamp, 0, KEY
        entry = None
    yield release, KEY_LOCK
    if entry is not None and entry.seq < record[SOFT] and "soft victims don't matter" not in twists:
        return
    if "a record goes while an old origin runs" in twists:
        old = False
    if old and "old origins are looked for at the end" not in twists:
        return
    yield take, PURGE_LOCK
    table = yield (current,)
    now = yield (read_names,)
    if table != 0 and "a sweep goes on with a lost table" not in twists:
        now = None
    if "old origins are looked for at the end" in twists:
        old = yield origins_before, max(record)
    if not old and (now == record or "a record goes without another look" in twists):
        if "SEQ is not moved before a record goes" not in twists:
            seq = yield last_number, 0
            yield put, 0, SEQ, (seq + 1) | 1
        yield write_names, (0, 0)
    yield release, PURGE_LOCK


def thief(twists: Twists) -> Program:
    """Somebody who deletes the table."""
    yield (lose,)
