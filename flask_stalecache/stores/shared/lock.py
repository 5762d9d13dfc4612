"""The locks of keys across hosts: a lock file on each host, and a lease at the server.

The lock file is taken first, so that only one process of a host asks the server. The holder of the lock file may take over the
lease of another process of the same host at once: that process has lost the lock file, so it was killed. A lease that is not
renewed expires.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple

from ...filesystem.locks import FileKeyLock
from ...filesystem.process import ProcessId, this_process
from ..base import KeyLock
from ..table.stamps import slot_of
from .errors_of import Unavailable
from .known import Known, number_of
from .scripts import Lease, Scripts, ServerState

#: Seconds between two attempts to get a lock that another host holds, and the fraction by which this time is varied at random.
ASKED_EVERY, _JITTER = 0.25, 0.25


class HeldLease(NamedTuple):
    """A lease that this process holds.

    :ivar serial: the serial of the entry that was stored when the lease was taken, or has been stored since; "" if there was none.
    :ivar empty_since: the number that :class:`.Known` had for the slot of the key before the lease was taken, if the server had no
        entry then; ``None`` if it had one or had removed one, or if this process has stored or removed one since.
    :ivar owner: the lock that took the lease. If the lock was garbage-collected, the lease is neither renewed nor released, and
        expires.
    """

    token: str
    serial: str
    empty_since: int | None
    owner: weakref.ref[SharedLock]


class Leases:
    """The leases of this process.

    :param scripts: the operations at the server.
    :param known: what this host knows of the server.
    :param lease: seconds after which a lease that is not renewed expires.
    :param longest: the same for a lease that no thread can renew.
    """

    def __init__(self, scripts: Scripts, known: Known, lease: float, longest: float) -> None:
        self._scripts = scripts
        self._known = known
        self._lease = lease
        self._longest = max(lease, longest)
        self._held: dict[ProcessId, dict[str, HeldLease]] = {}
        self._renewed_at = time.monotonic()
        self._ticked_by: int | None = None

    def of_process(self) -> dict[str, HeldLease]:
        """Return the leases of this process by the digests of their keys. The leases of its ancestors belong to those processes."""
        return self._held.setdefault(this_process(), {})

    def find(self, name: str) -> HeldLease | None:
        """Return the lease of a key."""
        held = self.of_process().get(name)
        return None if held is None or held.owner() is None else held

    def has_changed(self, name: str, serial: str) -> None:
        """Record the serial of the entry that this process has stored for a key; "": unknown, or the entry was removed."""
        held = self.find(name)
        if held is not None:
            self.of_process()[name] = held._replace(serial=serial or held.serial, empty_since=None)

    def acquire(self, name: str, owner: SharedLock) -> tuple[Lease, str]:
        """Try to get a lease; return the answer and the token.

        :raises Unavailable: if the server can't be used.
        """
        token = f"{self._scripts.host()}.{os.getpid()}.{os.urandom(8).hex()}"
        since = self._known.serial(slot_of(name))
        answer = self._scripts.acquire(name, token, self._seconds())
        if answer.is_held:
            empty_since = since if not answer.serial and not answer.removed else None
            self.of_process()[name] = HeldLease(token, answer.serial, empty_since, weakref.ref(owner))
            if answer.serial:
                self._known.note(slot_of(name), number_of(answer.serial), since=since)
        return answer, token

    def release(self, name: str, token: str) -> None:
        """Release a lease.

        :raises Unavailable: if the server can't be used. That is harmless: the lease expires.
        """
        mine = self.of_process()
        held = mine.get(name)
        if held is not None and held.token == token:
            mine.pop(name, None)
        self._scripts.release(name, token)

    def tick(self) -> None:
        """Renew all leases each time that a quarter of their duration has passed; forget those whose lock was garbage-collected."""
        self._ticked_by = threading.get_ident()
        mine = self.of_process()
        for name, held in list(mine.items()):
            if held.owner() is None:
                mine.pop(name, None)
        tokens = {name: held.token for name, held in list(mine.items())}
        if time.monotonic() - self._renewed_at >= self._lease / 4:
            self._renewed_at = time.monotonic()
            if tokens:
                self._scripts.renew(tokens, self._lease)

    def _seconds(self) -> float:
        # This thread does the housekeeping itself, so nothing renews the lease while it calls an origin.
        return self._longest if self._ticked_by == threading.get_ident() else self._lease


class SharedLock:
    """The lock of one key.

    :param name: the digest of the key.
    :param local: the lock of this host.
    :param leases: the leases of this process.
    :param is_down: whether the server can't be used.
    :param on_held: called with the note and the bookkeeping of the server once the lease is held.
    """

    def __init__(
        self,
        name: str,
        local: FileKeyLock,
        leases: Leases,
        is_down: Callable[[], bool],
        on_held: Callable[[bytes, ServerState], object],
    ) -> None:
        self._name = name
        self._local: KeyLock = local
        self._leases = leases
        self._is_down = is_down
        self._on_held = on_held
        self._is_held = False
        #: The token of the lease, and the process that holds it. Removed before the release, so that only one thread releases it.
        self._tokens: list[tuple[str, ProcessId]] = []
        self._again_at = 0.0

    def acquire(self) -> bool:
        """Try once. A lock that another host has released may seem held for about 250 ms.

        Without the server, it is only the lock of this host.
        """
        if self._is_held:
            return True
        if time.monotonic() < self._again_at or not self._local.acquire():
            return False
        try:
            is_held = self._is_down() or self._leased()
        except Unavailable:
            is_held = True
        except BaseException:
            self._local.release()
            raise
        if not is_held:
            self._again_at = time.monotonic() + ASKED_EVERY * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._local.release()
        self._is_held = is_held
        return is_held

    def _leased(self) -> bool:
        answer, token = self._leases.acquire(self._name, self)
        if answer.is_held:
            self._tokens.append((token, this_process()))
            self._on_held(answer.note, answer.state)
        return answer.is_held

    def release(self) -> None:
        """Release the lock. It is harmless if the lock is not held."""
        self._is_held = False
        try:
            token, process = self._tokens.pop()
        except IndexError:
            self._local.release()
            return
        try:
            if process == this_process() and not self._is_down():
                self._leases.release(self._name, token)
        except Unavailable:
            # The lease expires.
            pass
        finally:
            self._local.release()
