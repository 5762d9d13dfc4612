"""The operations at the server, with the types of their parameters and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from . import lua
from .client import SharedClient
from .logs import prefix_of


class ServerState(NamedTuple):
    """The bookkeeping of the server, which comes with each answer.

    :ivar generation: the generation of the bookkeeping. A different one means that the server has lost everything.
    :ivar number: the highest number that a purge has got or a host has sent.
    :ivar purge: the number of the last purge in the log.
    :ivar change: the number of the last change in the log.
    :ivar time: the time of the server in microseconds since the epoch.
    """

    generation: int
    number: int
    purge: int
    change: int
    time: int


class LookupKind(Enum):
    """The kinds of answers to a request for an entry."""

    #: The caller's entry is the one that is stored.
    SAME = "same"
    #: No entry is stored.
    NONE = "none"
    #: The entry was removed, and hosts that still have it must remove it.
    GONE = "gone"
    #: Another entry is stored, and is in the answer.
    ENTRY = "entry"


class Got(NamedTuple):
    """The answer to a request for an entry.

    :ivar serial: the serial of the entry, or of the removed one; "" if there is neither.
    :ivar note: the bytes of the note; empty if there is none.
    :ivar at: when a soft purge ended its freshness, or when it was removed, in microseconds since the epoch; 0: never.
    :ivar packed: whether the body is compressed.
    """

    kind: LookupKind
    serial: str
    note: bytes
    at: int
    head: bytes
    body: bytes
    packed: bool
    state: ServerState


class Lease(NamedTuple):
    """The answer to a request for a lock.

    :ivar is_held: whether the caller holds the lock now.
    :ivar serial: the serial of the entry that is stored; "" if there is none.
    :ivar note: the bytes of its note.
    :ivar removed: the serial of the entry that was removed, if none is stored.
    """

    is_held: bool
    serial: str
    note: bytes
    removed: str
    state: ServerState


class Written(Enum):
    """The answers to a write."""

    STORED = "stored"
    PURGED = "purged"
    SUPERSEDED = "superseded"


class Difference(Enum):
    """What the server has in the place of an entry of this host."""

    SAME = "same"
    #: Another entry.
    OTHER = "other"
    #: Nothing, since it was removed on all hosts.
    REMOVED = "removed"
    #: Nothing, since it was purged on all hosts.
    PURGED = "purged"
    #: Nothing: the server has evicted it, or never had it.
    NONE = "none"


class Scripts:
    """The operations at the server, for one host.

    :param client: runs the scripts.
    :param name: the name of the cache.
    :param host: returns the identity of this host.
    """

    def __init__(self, client: SharedClient, name: str, host: Callable[[], str]) -> None:
        self._client = client
        self._prefix = prefix_of(name)
        self.host = host

    def get(self, name: str, serial: str, idle: float, *, patience: float | None = None) -> Got:
        """Return the server's answer for an entry. It has no content if the caller has the same entry.

        :param name: the digest of its key.
        :param serial: the serial of the caller's entry, or "".
        :param idle: seconds from now for which the server keeps it at least.
        """
        answer = self._run(lua.GET, name, serial, _ms(idle), patience=patience)
        kind, found, note, at, head, body, packed, state = answer
        return Got(LookupKind(kind.decode()), found.decode(), note, int(at), head, packed or body, bool(packed), _state(state))

    def acquire(self, name: str, token: str, lease: float) -> Lease:
        """Take the lock of a key, if no other host has it."""
        is_held, serial, note, removed, state = self._run(lua.ACQUIRE, name, token, self.host(), _ms(lease))
        return Lease(bool(is_held), serial.decode(), note, removed.decode(), _state(state))

    def renew(self, tokens: Mapping[str, str], lease: float) -> list[str]:
        """Renew locks; return the digests of those that were lost."""
        pairs = [part for pair in tokens.items() for part in pair]
        return [name.decode() for name in self._run(lua.RENEW, _ms(lease), *pairs, patience=0)]

    def release(self, name: str, token: str) -> None:
        """Release a lock."""
        self._run(lua.RELEASE, name, token, patience=0)

    def write(
        self,
        name: str,
        token: str,
        seen: str,
        seq: int,
        serial: str,
        names: Iterable[str],
        keep: float,
        content: tuple[bytes, str, bytes],
    ) -> tuple[Written, ServerState]:
        """Store an entry.

        :param token: the token of the lock; "" if the caller does not hold it.
        :param seen: the serial that was stored when the lock was taken.
        :param seq: the last purge number when the entry was begun.
        :param names: the digests of its names.
        :param keep: seconds for which the server keeps it.
        :param content: its head, the field of the body, and the body.
        """
        head, field, body = content
        said, state = self._run(
            lua.WRITE, name, token, seen, str(seq), serial, " ".join(names), _ms(keep), self.host(), head, body, field
        )
        return Written(said.decode()), _state(state)

    def write_note(self, name: str, note: bytes, keep: float, *, tells: bool) -> ServerState:
        """Store a note.

        :param tells: whether other hosts read it at once, because the change is logged.
        """
        return _state(self._run(lua.NOTE, name, note, _ms(keep), self.host(), str(int(tells))))

    def remove(self, name: str, keep: float) -> ServerState:
        """Remove an entry, so that all hosts remove theirs."""
        return _state(self._run(lua.REMOVE, name, _ms(keep), self.host()))

    def heads(self, names: Sequence[str], bound: int) -> list[tuple[str, bytes, bytes, int]]:
        """Return digest, head, note, and the end of freshness by a soft purge (in microseconds, or 0) of entries that are stored.

        :param bound: the last purge that counts.
        """
        found = zip(names, self._run(lua.HEADS, str(bound), *names), strict=True)
        return [(name, head, note, int(at)) for name, (head, note, at) in found if head]

    def compare(self, entries: Iterable[tuple[str, str, int, str]]) -> tuple[list[Difference], ServerState]:
        """Return what the server has in the place of entries of this host.

        :param entries: for each entry the digest of its key, its serial, the last purge number when it was begun, and the digests
            of its names.
        """
        said, state = self._run(lua.COMPARE, *(str(part) for entry in entries for part in entry))
        return [Difference(each.decode()) for each in said], _state(state)

    def digests(self) -> Iterator[str]:
        """Yield the digests of all keys for which the server has an entry, a note or a removal. A digest may be yielded twice."""
        return self._client.scan(f"{self._prefix}e:")

    def _run(self, script: str, *args: str | bytes, patience: float | None = None) -> Any:
        return self._client.run(script, (f"{self._prefix}m",), args, patience=patience)


def _ms(seconds: float) -> str:
    # At most ten years: PEXPIRE refuses absurdly long times.
    return str(max(1, int(min(seconds, 315_360_000.0) * 1000)))


def _state(answer: Sequence[bytes]) -> ServerState:
    return ServerState(*map(int, answer))
