"""Runs a refresh that another process has handed over as data: ``run_refresh`` of both public classes, and the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from enum import Enum

from ..core.model.entry import Entry
from ..core.packets.refresh_data import RefreshData
from ..engine.engine import Engine
from ..engine.origin import RefreshResult
from ..errors import RefreshRefused, StoreError
from ..stores.base import QueueingStore, find_key
from .renewal import PATIENCE, Renewal, refresh_patiently


class RefreshOutcome(str, Enum):
    """The outcome of a refresh.

    =========== ===============================================================================================
    `STORED`    the new entry is stored
    `FRESH`     there was nothing to do: another process has refreshed or purged the entry, or its origin is backing off
    `BUSY`      another process is refreshing the entry
    `FAILED`    the origin failed, its answer can't be stored, or the store failed
    `EXPIRED`   it is too late, or the entry is no longer stored
    =========== ===============================================================================================
    """

    STORED = "stored"
    FRESH = "fresh"
    BUSY = "busy"
    FAILED = "failed"
    EXPIRED = "expired"


class HandedOver:
    """Runs refreshes that arrive as data.

    Each holds the lock of its key while it runs, as every refresh does, so it is harmless if one arrives twice.

    :param engine: runs them.
    :param renewal_of: returns how an entry is refreshed, or why it can't be.
    """

    def __init__(self, engine: Engine, renewal_of: Callable[[Entry], Renewal | str]) -> None:
        self._engine = engine
        self._renewal_of = renewal_of

    def run(self, job: object) -> RefreshOutcome:
        """Run a refresh in this thread, and return its outcome.

        :param job: the data of :meth:`.RefreshData.to_json`.
        :raises RefreshRefused: if it can't be run here, for instance because it belongs to another app.
        """
        try:
            data = RefreshData.from_json(job)
        except ValueError as error:
            raise RefreshRefused(f"what was handed over is no refresh: {error}") from None
        try:
            return self.run_data(data)
        finally:
            # The refresh may be queued again from now on; if it has failed, after a pause.
            if isinstance(self._engine.store, QueueingStore):
                self._engine.store.queue_marks.unmark(data.mark)

    def run_data(self, data: RefreshData) -> RefreshOutcome:
        """Run a refresh in this thread, and return its outcome.

        :raises RefreshRefused: if it can't be run here.
        """
        # An empty context: an entry that the caller is making must not inherit anything from the refreshed one.
        return Context().run(self._run, data)

    def _run(self, data: RefreshData) -> RefreshOutcome:
        if data.app != self._engine.name:
            raise RefreshRefused(
                f"a refresh of the app {data.app!r} was handed to the app {self._engine.name!r}: give each app a queue of its own"
            )
        if time.time() >= data.expires:
            return RefreshOutcome.EXPIRED
        try:
            entry = self._entry_at(data.address)
        except StoreError as error:
            self._engine.answer_writer.store_failed(error)
            return RefreshOutcome.FAILED
        if entry is None:
            return RefreshOutcome.EXPIRED
        if entry.serial != data.serial:
            return RefreshOutcome.FRESH
        renewal = self._renewal_of(entry)
        if isinstance(renewal, str):
            raise RefreshRefused(f"a refresh of {entry.key} can't be run from what is stored: {renewal}")
        if renewal.job.kind is not data.kind:
            raise RefreshRefused(f"a refresh of {entry.key} was handed over as kind={data.kind.value!r}, which it is not")
        version = renewal.job.terms.version
        if version != data.version:
            raise RefreshRefused(
                f"a refresh of version {data.version!r} of the app was handed to version {version!r}: restart those who run the "
                "other version; with app.debug each start is a version, unless STALECACHE_VERSION is set"
            )
        # The caller waits for its end in this thread: there is no pool.
        job = replace(renewal.job, pool=None, forced=data.is_forced, max_wait=None)
        # The call that has just stored this entry may not have released its lock yet. If this refresh were given up because of
        # that, the process that has handed it over would wait in vain, and no other process would refresh the entry.
        return _outcome_of(refresh_patiently(self._engine, job, entry, time.monotonic() + PATIENCE))

    def _entry_at(self, address: str) -> Entry | None:
        key = find_key(self._engine.store, address)
        return None if key is None else self._engine.store.load(key).entry


def _outcome_of(result: RefreshResult | None) -> RefreshOutcome:
    if result is None or result.is_busy:
        return RefreshOutcome.BUSY
    if result.error is not None:
        return RefreshOutcome.FAILED
    if result.stored:
        return RefreshOutcome.STORED
    return RefreshOutcome.FRESH if result.answer is None else RefreshOutcome.FAILED
