"""Purges, refreshes and warming of many at a time: what finds the entries, and how many run at once."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from ..core.model.entry import Entry
from ..core.model.keys import digest
from ..core.model.titles import title_of, url_names
from ..core.rules.serving import ServeOptions
from ..engine.engine import Engine
from ..engine.per_process import PerProcess
from .batch import Batch, Outcome
from .renewal import TOO_LONG, Renewal, Renewer, RenewTask
from .selector import Selector
from .workers import Task, Workers, is_inside

_T = TypeVar("_T")
#: Batches that run at the same time in a process; more wait for their turn.
AT_ONCE = 4
#: URLs that are purged at a time.
CHUNK = 50
#: URLs that are known to be purged already; of more some may be purged twice, which is no harm.
REMEMBERED = 100_000


class _InProcess:
    """The batches of one process; made anew after a fork."""

    def __init__(self) -> None:
        self.mutex = threading.Condition()
        self.running = 0
        self.crews: set[Workers] = set()
        self.waiting: deque[_Planned] = deque()


class _Planned(NamedTuple):
    """A batch that waits for its turn.

    :ivar about: what it is of; another one of the same that has not begun either would do the same.
    """

    about: object
    batch: Batch
    tasks: Iterator[Task]
    concurrency: int


class BatchScheduler:
    """The batches of one engine.

    :param engine: of the store.
    :param renewers: the front ends that have stored something there.
    """

    def __init__(self, engine: Engine, renewers: Sequence[Renewer]) -> None:
        self.engine = engine
        self.renewers = renewers
        self._processes = PerProcess(_InProcess)
        engine.watched.append(self.tick)
        _all_scans.add(self)

    # -- what there is to do -------------------------------------------------------------------------------------

    def purge(self, selector: Selector, *, soft: bool) -> Batch | None:
        """Purge what is selected: at once if it has a name, and then there is nothing to report; else in the background.

        :raises StoreError: if the store can't be written.
        """
        self.engine.see_fork()
        self.engine.counters.count("purges")
        if selector.name is not None:
            self._purge([selector.name], soft)
            return None
        batch = self._new("purge")
        return self._begin(_Planned((selector, soft), batch, self._purging(batch, selector, soft), 1))

    def refresh(self, selector: Selector, concurrency: int, *, publish: bool = False) -> Batch:
        """Make again what is selected and stored, in the background.

        :param publish: end its freshness first.
        :raises StoreError: if that is to be done at once, and the store can't be written.
        """
        self.engine.see_fork()
        if publish and selector.name is not None:
            self.engine.counters.count("purges")
            self._purge([selector.name], soft=True)
        batch = self._new("publish" if publish else "refresh")
        found = self._matching(batch, selector)
        if publish and selector.name is None:
            self.engine.counters.count("purges")
            found = self._purged_softly(found)
        elif publish:
            # What was begun since is made of what was published.
            found = (entry for entry in found if entry.ended)
        return self._begin(_Planned((selector, concurrency), batch, self._renewing(batch, found), concurrency))

    def renew(self, entry: Entry) -> Batch:
        """Make one entry again, in the background."""
        return self.run("refresh", [RenewTask(self.engine, entry, self._renewal_of(entry))], 1)

    def run(self, kind: str, tasks: Sequence[Task], concurrency: int) -> Batch:
        """Do what is known beforehand, in the background."""
        self.engine.see_fork()
        batch = self._new(kind)
        self._find(batch, len(tasks))
        return self._begin(_Planned(object(), batch, iter(tasks), concurrency))

    def _matching(self, batch: Batch, selector: Selector) -> Iterator[Entry]:
        for stored in self.engine.store.walk():
            if batch.cancelled:
                return
            if selector.matches(stored.entry):
                yield stored.entry

    def _renewing(self, batch: Batch, found: Iterator[Entry]) -> Iterator[Task]:
        for entry in found:
            self._find(batch)
            yield RenewTask(self.engine, entry, self._renewal_of(entry))

    def terms_of(self, entry: Entry) -> ServeOptions | None:
        """Return what is said of serving an entry, whoever asks: by its view, its function or its rule; ``None``: nobody knows."""
        renewal = self._renewal_of(entry)
        return renewal.job.terms if isinstance(renewal, Renewal) else None

    def _renewal_of(self, entry: Entry) -> Renewal | str:
        if entry.needs_confirming:
            return "each use of it is confirmed by the app"
        if "url" in entry.recipe:
            return "only who asks a third party has the request"
        for renewer in self.renewers:
            renewal = renewer.renewal_of(entry)
            if renewal is not None:
                return renewal
        return "nothing in this app makes it: it may be another app's"

    def _purged_softly(self, found: Iterator[Entry]) -> Iterator[Entry]:
        """End the freshness of what was found before it is renewed, some at a time."""
        for chunk in _chunks(found):
            self._purge(list(dict.fromkeys(name for entry in chunk for name in url_names(entry))), soft=True)
            yield from chunk

    def _purging(self, batch: Batch, selector: Selector, soft: bool) -> Iterator[Task]:
        """Yield the URLs to purge, some at a time: also what is under way for them is made of what was before, and all variants."""
        for chunk in _chunks(_new_names(self._matching(batch, selector), selector)):
            self._find(batch, len(chunk))
            began = time.monotonic()
            self._purge([name for name, _ in chunk], soft)
            seconds = (time.monotonic() - began) / len(chunk)
            yield from (FinishedTask(Outcome(title, None, seconds, stored=soft)) for _, title in chunk)

    def _purge(self, names: list[str], soft: bool) -> None:
        self.engine.store.purge(*names, soft=soft)
        self.engine.instrumentation.purged(*names, soft=soft)

    # -- batches -------------------------------------------------------------------------------------------------

    def _new(self, kind: str) -> Batch:
        return Batch(kind, self._tell)

    def _tell(self, batch: Batch) -> None:
        self.engine.instrumentation.batch_progress(batch)

    def _find(self, batch: Batch, count: int = 1) -> None:
        self.engine.counters.count("scans_found", count)
        batch.find(count)

    def _begin(self, planned: _Planned) -> Batch:
        """Begin a batch, or let it wait for its turn; one that waits already and is to do the same is returned in its place."""
        if self.engine.in_line or self.engine.refresher.workers == 0:
            self._crew(planned, lambda: None).run_in_line()
            return planned.batch
        process = self._processes.get()
        with process.mutex:
            # What runs in a batch, and may wait for this one, keeps its own turn meanwhile.
            if process.running >= AT_ONCE and not is_inside():
                for other in process.waiting:
                    if other.about == planned.about and other.batch.kind == planned.batch.kind and not other.batch.cancelled:
                        return other.batch
                process.waiting.append(planned)
                return planned.batch
            process.running += 1
            self._tell_running(process)
        self._start(planned, process)
        return planned.batch

    def _start(self, planned: _Planned, process: _InProcess) -> None:
        crew = self._crew(planned, lambda: self._over(process, crew))
        process.crews.add(crew)
        crew.start(planned.concurrency)

    def _crew(self, planned: _Planned, over: Callable[[], object]) -> Workers:
        return Workers(planned.batch, planned.tasks, self.engine.counters.count, over)

    def _over(self, process: _InProcess, crew: Workers) -> None:
        """Let the next one begin."""
        process.crews.discard(crew)
        with process.mutex:
            following = process.waiting.popleft() if process.waiting else None
            if following is None:
                process.running -= 1
                self._tell_running(process)
                process.mutex.notify_all()
        if following is not None:
            self._start(following, process)

    def _tell_running(self, process: _InProcess) -> None:
        self.engine.registry.gauge("scans_running", process.running)

    def tick(self) -> None:
        """Give up what takes too long; called about once a second."""
        process = self._processes.peek()
        for crew in () if process is None else list(process.crews):
            crew.give_up(self.engine.settings.refresh_deadline, TOO_LONG)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the batches of this process are over, and return whether they are.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        process = self._processes.get()
        with process.mutex:
            return process.mutex.wait_for(lambda: process.running == 0, timeout)


_all_scans: weakref.WeakSet[BatchScheduler] = weakref.WeakSet()


def drain_all_scans(timeout: float | None = None) -> bool:
    """Wait until all batches in this process are over, and return whether they are.

    :param timeout: seconds to wait at most, for all together. Default: no limit.
    """
    until = None if timeout is None else time.monotonic() + timeout
    return all(scans.drain(_left(until)) for scans in list(_all_scans))


def drain_with(scans: Callable[[float | None], bool], refreshes: Callable[[float | None], bool], timeout: float | None) -> bool:
    """Wait until batches are over, and then the refreshes that these may have handed over; return whether both are.

    :param timeout: seconds to wait at most, for all together; ``None``: no limit.
    """
    until = None if timeout is None else time.monotonic() + timeout
    return scans(_left(until)) and refreshes(_left(until))


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _chunks(items: Iterator[_T]) -> Iterator[list[_T]]:
    """Yield what comes, some at a time."""
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _new_names(found: Iterator[Entry], selector: Selector) -> Iterator[tuple[str, str]]:
    """Yield the name and the title of each URL, once: its variants have the same."""
    known: set[str] = set()
    for entry in found:
        for name in url_names(entry):
            mark = digest(name)
            if mark not in known:
                if len(known) >= REMEMBERED:
                    known.clear()
                known.add(mark)
                yield name, title_of(entry)


class FinishedTask:
    """Something that was done already, with others together."""

    def __init__(self, outcome: Outcome) -> None:
        self.url = outcome.url
        self._outcome = outcome

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Say what came of it."""
        return self._outcome
