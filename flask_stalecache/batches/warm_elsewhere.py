"""Lets the worker of the host send warming requests, so that pages that take long to compute do not slow down the web process."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple

from ..core.addressing.recipe import PageRecipe
from ..core.packets.packets import Said
from ..core.packets.warm_data import WarmData
from ..engine.engine import Engine
from ..engine.handover.warm_files import WarmFiles
from ..errors import RefreshRefused
from .batch import Outcome
from .handed_over import RefreshOutcome
from .renewal import TOO_LONG
from .warm_call import WarmCall

#: Maximum length of a reason that is sent back: an exception may quote a whole page.
LONGEST_REASON = 4000


class WarmElsewhere:
    """Hands warming requests over to the worker.

    :param engine: the engine, through which the worker is reached.
    :param files: the files that carry the requests.
    :param version: the version of the app, as its pages have it.
    """

    def __init__(self, engine: Engine, files: WarmFiles, version: str) -> None:
        self._engine = engine
        self._files = files
        self._version = version

    def warm(self, url: str, recipe: PageRecipe, fields: dict[str, str], *, force: bool) -> Outcome | None:
        """Let the worker request a page, and return the outcome; ``None`` if this process has to do it.

        :param url: the URL in the outcome.
        :param fields: additional request fields to send, as in an environ.
        :param force: refresh a fresh entry too.
        """
        delegation = self._engine.runtime.delegation
        data = WarmData(app=delegation.app, version=self._version, url=url, recipe=recipe, fields=fields, force=force)
        asked: list[str] = []

        def ask() -> str | None:
            address = self._files.ask(data)
            asked.extend([] if address is None else [address])
            return address

        try:
            said = delegation.warm_elsewhere(self._version, ask)
            if said is Said.TAKEN:
                # It may still run in the worker: this process must not send it as well, now that its deadline is over.
                return Outcome(url, None, self._engine.settings.refresh_deadline, reason=TOO_LONG, failed=True)
            return self._outcome(asked[0], url) if said is Said.ENDED else None
        finally:
            for address in asked:
                self._files.remove(address)

    def _outcome(self, address: str, url: str) -> Outcome | None:
        try:
            return self._files.answered(address, partial(outcome_from_json, url))
        except ValueError as error:
            self._engine.complaints.error_every_minute("warmed", "what the worker has warmed is warmed again here: %s", error)
            return None


class HandedWarmings:
    """Sends, in the worker, the warming requests that web processes have handed over.

    :param engine: the engine of the app.
    :param files: the files that carry the requests; ``None``: the store has no directory.
    :param target: returns the call that sends them, and the version of the app.
    """

    def __init__(self, engine: Engine, files: WarmFiles | None, target: Callable[[], tuple[WarmCall, str | None]]) -> None:
        self._engine = engine
        self._files = files
        self._target = target

    def run(self, address: str) -> RefreshOutcome:
        """Send a request in this thread, and write its outcome to the file beside it.

        :param address: the address of the request.
        :raises RefreshRefused: if it can't be sent here.
        """
        try:
            data = None if self._files is None else self._files.asked(address)
        except ValueError as error:
            raise RefreshRefused(f"a request that warms a page can't be sent: {error}") from None
        if self._files is None or data is None:
            return RefreshOutcome.EXPIRED
        call, version = self._target()
        if (data.app, data.version) != (self._engine.name, version):
            raise RefreshRefused(
                f"a request of version {data.version!r} of the app {data.app!r} was handed to version {version!r} of the app "
                f"{self._engine.name!r}: restart the worker"
            )
        # In an empty context: the request must not see the context variables of the caller.
        outcome = Context().run(_warmed, call, data)
        self._files.answer(address, outcome_to_json(outcome))
        return RefreshOutcome.STORED if outcome.stored else RefreshOutcome.FAILED


def _warmed(call: WarmCall, data: WarmData) -> Outcome:
    try:
        return call.warm(data.url, data.recipe, data.fields, force=data.force)
    except BaseException as error:
        # As in the threads of a batch, SystemExit and its like end only the request.
        return Outcome(data.url, None, reason=repr(error), failed=True)


class _Form(NamedTuple):
    """The parts of an outcome, besides its URL, which the waiting process knows."""

    status: Any
    seconds: Any
    stored: Any
    reason: Any
    skipped: Any
    failed: Any


def outcome_to_json(outcome: Outcome) -> list[Any]:
    """Return an outcome as data of JSON, without its URL."""
    return list(outcome._replace(reason=outcome.reason[:LONGEST_REASON])[1:])


def outcome_from_json(url: str, data: Any) -> Outcome:
    """Return the outcome for a URL.

    :param data: the data of :func:`outcome_to_json`.
    :raises ValueError: for anything else; likewise :class:`TypeError`.
    """
    if not isinstance(data, list):
        raise TypeError(data)
    found = _Form(*data)
    flags = (found.stored, found.skipped, found.failed)
    is_status = found.status is None or (type(found.status) is int and 100 <= found.status <= 999)
    is_time = type(found.seconds) in (int, float) and math.isfinite(found.seconds) and found.seconds >= 0
    is_reason = isinstance(found.reason, str) and len(found.reason) <= LONGEST_REASON
    if not (is_status and is_time and is_reason and all(isinstance(flag, bool) for flag in flags)):
        raise ValueError(data)
    return Outcome(url, *found)
