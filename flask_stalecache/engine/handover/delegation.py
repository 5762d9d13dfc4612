"""Hands refreshes over to other processes, if there is one that takes them: a queue of another program, or the worker of the host.

A refresh that is handed over counts as pending until its entry is replaced, or for the time that its taker sets. Then the next
request for the stale entry hands it over again. If it was not done within twice the deadline, it runs in a thread of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from ...core.addressing.keys import digest
from ...core.model.entry import Entry
from ...core.packets.packets import Said
from ...core.packets.refresh_data import OriginKind, RefreshData, is_repeatable
from ...core.rules.variant_index import INDEX
from ...filesystem.per_process import PerProcess
from ...stats.counters import Counters
from ...stores.base import Copy
from ..log import RateLimitedLog
from ..origin import RefreshJob
from ..scheduling.fair_queue import Demand

#: The number of refreshes whose first handover is remembered.
REMEMBERED = 10_000


class Handed(NamedTuple):
    """A refresh that is about to leave this process.

    :ivar key: the key of the entry.
    :ivar label: its name in log lines.
    :ivar data: the refresh.
    :ivar group: what it belongs to, such as an endpoint.
    :ivar demand: the demand for it.
    :ivar run_here: runs it in this process after all.
    :ivar wait: lets it count as pending for some seconds from now.
    """

    key: str
    label: str
    data: RefreshData
    group: Hashable
    demand: Demand
    run_here: Callable[[], object]
    wait: Callable[[float], object]


class Taker(Protocol):
    """Takes refreshes to another process."""

    def is_open(self) -> bool:
        """Whether it may take a refresh now. Called before all other checks, since the other process often does not run."""

    def take(self, handed: Handed) -> bool:
        """Take a refresh, and let it count as pending for some time. Return false if it is not taken.

        It never waits, and raises nothing.
        """


class Runner(Protocol):
    """Runs refreshes and warming requests of batches in another process.

    :ivar lost_at: when it was last lost or too slow while a batch waited for it, on the monotonic clock.
    """

    lost_at: float

    def run(self, data: RefreshData, group: object, patience: float) -> bool:
        """Run a refresh, wait for its end, and return whether it has ended there."""

    def warm(self, app: str, version: str, ask: Callable[[], str | None], patience: float) -> Said | None:
        """Run a warming request, wait for its end, and return the reply of the worker; ``None``: it runs here."""


class _Given:
    """The refreshes that one process has handed over: the state of the entry at the first handover, and its time, by the key.

    An entry that is still in that state was not refreshed, nor has its refresh failed.
    """

    def __init__(self) -> None:
        self.first: dict[str, tuple[tuple[str, int], float]] = {}


class Delegation:
    """Hands refreshes over to the first taker that takes them.

    :param deadline: seconds after which a refresh counts as failed.
    :param counters: counts refreshes that are handed over, and refreshes that come back.
    :param complaints: logs refreshes that come back.
    :ivar app: the name of the app.
    :ivar takers: the takers, in the order in which they are tried.
    """

    def __init__(self, deadline: float, counters: Counters, complaints: RateLimitedLog) -> None:
        self.takers: list[Taker] = []
        #: Runs refreshes of batches; ``None``: they run in the threads of the batch.
        self.runner: Runner | None = None
        self.app = ""
        self._deadline = deadline
        self._counters = counters
        self._complaints = complaints
        self._given = PerProcess(_Given)

    def hand_over(
        self,
        job: RefreshJob,
        copy: Copy,
        demand: Demand,
        run_here: Callable[[], object],
        wait: Callable[[float], object],
    ) -> bool:
        """Hand a refresh over. Return false if it has to run here.

        :param copy: the copy that is stored now.
        :param demand: the demand for it.
        :param run_here: runs it in this process after all, if its taker finds out later that it can't be taken.
        :param wait: lets it count as pending for some seconds from the call on.
        """
        entry = copy.entry
        takers = [taker for taker in self.takers if taker.is_open()]
        if (
            not takers
            or job.kind is None
            or job.forced
            or entry is None
            or entry.status == INDEX
            or not is_repeatable(entry.recipe)
        ):
            return False
        state = entry.serial, copy.note.failures
        if self._is_lost(job, state):
            return False
        data = self._data_of(job, job.kind, entry)
        handed = Handed(job.key, job.label, data, (job.tally.kind, job.tally.label), demand, run_here, wait)
        if not any(taker.take(handed) for taker in takers):
            return False
        self._counters.count("refreshes_handed_over")
        self._note(job.key, state)
        return True

    def _data_of(self, job: RefreshJob, kind: OriginKind, entry: Entry) -> RefreshData:
        return RefreshData(
            app=self.app,
            version=job.terms.version,
            kind=kind,
            address=digest(job.key),
            serial=entry.serial,
            expires=time.time() + 2 * self._deadline,
        )

    def run_elsewhere(self, job: RefreshJob, entry: Entry) -> bool:
        """Let the worker of the host run the refresh of a batch, and wait for its end. Return whether it has ended there.

        :param entry: the entry that is stored.
        """
        if self.runner is None or job.kind is None or not is_repeatable(entry.recipe):
            return False
        return self.runner.run(self._data_of(job, job.kind, entry), (job.tally.kind, job.tally.label), self._deadline)

    def warm_elsewhere(self, version: str, ask: Callable[[], str | None]) -> Said | None:
        """Let the worker of the host send a warming request, and wait for its end.

        Return :attr:`.Said.ENDED` when it has ended there, :attr:`.Said.TAKEN` if it has not within the deadline, and otherwise
        ``None``: then this process sends it.

        :param version: the version of the app.
        :param ask: writes the request, and returns its address; ``None`` if it can't be written. Called if there is a worker.
        """
        return None if self.runner is None else self.runner.warm(self.app, version, ask, self._deadline)

    def was_lost(self, since: float) -> bool:
        """Whether the worker of the host was lost or too slow while it ran refreshes or warming requests of batches.

        :param since: a time on the monotonic clock.
        """
        return self.runner is not None and self.runner.lost_at >= since

    def _note(self, key: str, state: tuple[str, int]) -> None:
        given = self._given.get().first
        if given.get(key, ((), 0.0))[0] == state:
            return
        if len(given) >= REMEMBERED:
            given.clear()
        given[key] = state, time.monotonic()

    def _is_lost(self, job: RefreshJob, state: tuple[str, int]) -> bool:
        """Whether the refresh was handed over long ago, and was not done."""
        given = self._given.get().first
        before, first = given.get(job.key, ((), 0.0))
        if before != state or time.monotonic() - first < 2 * self._deadline:
            return False
        given.pop(job.key, None)
        self._counters.count("refreshes_returned")
        self._complaints.error_every_minute(
            "returned",
            "a refresh was handed over and not done within %g s, it runs in this process: %s; see that what takes refreshes runs, "
            "with this version of the app",
            2 * self._deadline,
            job.label,
        )
        return True
