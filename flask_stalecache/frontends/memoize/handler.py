"""``memoize``: handles calls of fetch functions in one app."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, cast

from flask import Flask, has_request_context

from ...batches.renewal import Renewal
from ...config.settings import Settings
from ...core.addressing.purge_names import call_name
from ...core.model.entry import Entry
from ...core.model.reasons import BypassReason, MissReason
from ...core.remembered import MIB, Remembered
from ...core.rules import cacheability
from ...core.rules.prefer_stale import preference
from ...core.rules.serving import Fetch, ServeOptions, decide
from ...core.rules.status import CacheStatus
from ...core.rules.storability import Verdict
from ...core.rules.variant_index import INDEX, keys_in
from ...engine.engine import Engine
from ...engine.origin import Answer
from ...engine.scheduling.thread_pool import ThreadPool
from ...errors import BrokenValue, ConfigError
from ...stats.tally import PLAIN
from ...stores.base import Copy, seq_of_request
from ..app_code.hooks import ask
from ..flask_internals.contexts import request_context_variable
from ..middleware import submit_at_close
from ..request.caller_context import note_beginnings, note_own_purge
from ..request.request_hints import hints_of_request, note_value
from ..setup.app_version import AppVersion
from .bound_function import BoundFunction, FetchFunction, definition_named
from .circuit_breaker import CircuitBreaker, ConcurrencyLimit
from .origin import CallOrigin
from .places import CallerPlace, Places
from .policy import NO_FALLBACK
from .serializers import codec_of, is_immutable

#: Threads that refresh values of functions without ``wait``. They mostly wait for third parties, which costs little.
WORKERS = 8


class Suspended(NamedTuple):
    """A suspended fetch function.

    :ivar name: its module and qualified name.
    :ivar failures: the failures in a row.
    :ivar left: seconds until a call is tried again.
    """

    name: str
    failures: int
    left: float


class Calls:
    """The fetch functions of one app.

    :param app: the app.
    :param settings: its configuration.
    :param engine: answers calls.
    :param version: the version of the app.
    """

    def __init__(self, app: Flask, settings: Settings, engine: Engine, version: AppVersion) -> None:
        self.app = app
        self.settings = settings
        self.engine = engine
        self._version = version
        self._places = Places(app, settings.base_url, engine.look_up)
        engine.purged = note_own_purge
        self._bound_functions: dict[FetchFunction, BoundFunction] = {}
        self._names: dict[str, FetchFunction] = {}
        self.pool = engine.runtime.new_pool(WORKERS, settings.refresh_queue)

    def answer(self, definition: FetchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, waits: bool = False) -> Any:
        """Return the value of a call.

        :param waits: a stale value is renewed before the answer, since it can't be renewed later.
        """
        bound = self._bound_function(definition)
        if definition.policy.windows.unless is not None and self._is_live(bound, args, kwargs):
            # A returned value may be a failure too, but the failures of calls that bypass the cache on purpose are not judged.
            return self.engine.instrumentation.call_bypassed(
                bound.tally, lambda: definition.function(*args, **kwargs), lambda value: False, BypassReason.UNLESS
            )
        word = cacheability.current()
        origin = CallOrigin(bound, args, kwargs, word is not None and word.in_background, waits)
        served = self.engine.serve(origin)
        if origin.key is not origin.call_key:
            origin.tell_caller()
        if served.refresh:
            submit_at_close(self.engine, origin.refresh())
        if served.answer is None:
            # Decoded before it is counted: a broken value is no hit.
            value = self._read(bound, served.copy)
            if value is _BROKEN:
                return self._instead_of_broken(origin, definition, args, kwargs)
        if (took := served.took) is None and served.status is CacheStatus.HIT:
            # Not a method call: it would cost more than the count itself.
            bound.tally.cells[PLAIN] += 1
        else:
            bound.tally.served(served.status, took, waited=served.waited, why=served.why_no_hit(origin.terms))
        if served.answer is not None:
            value = self._of_answer(origin, served.answer, word)
            if not served.stored and served.answer.entry is not None and not has_request_context():
                self._store_in_background(origin, served.answer.entry)
        if word is None and request_context_variable.get(None) is None:
            # No response or value is made from it. Checked first, since hits in commands and tasks end here.
            return value
        # A response or value that is made from this one is not fresher than it, and is purged with it.
        if definition.policy.inherit and (entry := served.entry) is not None:
            if word is None:
                note_value(entry, origin.terms)
            else:
                word.made_from(entry.key)
                cacheability.inherit(word, entry, time.time(), origin.terms)
        return value

    def _instead_of_broken(
        self, origin: CallOrigin, definition: FetchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        # Removed: answer again, as for a missing value. Not removed: another process is writing the value, so don't wait for it.
        if self.engine.answer_writer.remove_if_unlocked(origin.key):
            return self.answer(definition, args, kwargs)
        origin.bound.tally.served(CacheStatus.BYPASS, 0.0, why=MissReason.BROKEN_VALUE)
        return _told(self.engine.bypass(origin))

    def _store_in_background(self, origin: CallOrigin, entry: Entry) -> None:
        """Queue a refresh if a value was not stored since its context began before a purge or refresh.

        The context of a daemon may last for days.
        """
        runtime = self.engine.runtime
        has_threads = runtime.refresher.workers > 0 and not runtime.in_line
        if not has_threads:
            return
        origin.relocate()
        copy = self.engine.answer_writer.load(origin.key)
        is_outdone = copy.entry is not None and entry.started < copy.entry.started
        if (is_outdone or entry.seq < self.engine.store.seq()) and runtime.claim(copy):
            runtime.submit(origin.refresh())

    def refresh(self, definition: FetchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Queue the refreshes of a value for all places, even if it is fresh. Return false if all of them are pending already."""
        origins = self._origins(self._bound_function(definition), args, kwargs)
        wanted = [origin for origin in origins if not self.engine.runtime.is_pending(origin.key)]
        for origin in wanted:
            submit_at_close(self.engine, origin.refresh(forced=True))
        return bool(wanted)

    def _origins(self, bound: BoundFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[CallOrigin]:
        """Return the call for each place that its values are stored for; for the caller's place if there is none."""
        origin, load = CallOrigin(bound, args, kwargs, False), self.engine.answer_writer.load
        index = load(origin.call_key).entry
        if index is None or index.status != INDEX:
            return [origin]
        stored = [entry for key in keys_in(index) if (entry := load(key).entry) is not None]
        others = [self._origin_for(entry, bound, args, kwargs, in_background=False) for entry in stored]
        found = [other for other in others if other is not None]
        if not found:
            origin.relocate()
        return found or [origin]

    def renew(self, keys: Iterable[str]) -> None:
        """Renew the stale values whose arguments are known, all at the same time, and wait for them."""
        copies = [self.engine.answer_writer.load(key) for key in keys]
        stale = [origin for copy in copies if (origin := self._stale_call(copy)) is not None]
        if stale:
            self.engine.runtime.refresh_all([origin.refresh() for origin in stale])

    def _stale_call(self, copy: Copy) -> CallOrigin | None:
        """Return the call that made a value, if the value is stale and may be fetched now."""
        origin = None if copy.entry is None or copy.entry.status == INDEX else self._call_of(copy.entry)
        if origin is None:
            return None
        decision = decide(copy.entry, copy.note, time.time(), origin.terms, pending=False)
        return origin if isinstance(decision, Fetch) and origin.refused(copy) is None else None

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how a value is renewed from its entry's head alone, or why it can't be; ``None`` if no function made it."""
        if "function" not in entry.recipe:
            return None
        if entry.recipe.get("arguments") is None:
            return "only its caller has its arguments"
        origin = self._call_of(entry)
        if origin is None:
            return "this app has no such function, or it takes other arguments by now"
        return Renewal(origin.refresh(forced=True), lambda answer: None)

    def _call_of(self, entry: Entry) -> CallOrigin | None:
        """Return the call that made a value; ``None`` if its function or arguments are unknown, or do not match any more."""
        function, arguments = entry.recipe.get("function"), entry.recipe.get("arguments")
        definition = self._names.get(str(function)) or definition_named(str(function))
        if definition is None or arguments is None:
            return None
        try:
            args, kwargs = definition.arguments.from_json(arguments)
            return self._origin_for(entry, self._bound_function(definition), args, kwargs, in_background=True)
        except Exception as error:
            # The function has changed since: it takes other arguments.
            self.engine.complaints.error_every_minute((function, "recipe"), "%s can't be called as it was: %r", function, error)
            return None

    def _origin_for(
        self, entry: Entry, bound: BoundFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, in_background: bool
    ) -> CallOrigin | None:
        """Return the call that renews an entry; ``None`` if the entry belongs to another call.

        :raises TypeError: if the place in its recipe has another form; likewise :class:`ValueError`.
        """
        data = entry.recipe.get("place")
        origin = CallOrigin(bound, args, kwargs, in_background, place=None if data is None else CallerPlace.from_json(data))
        return origin if origin.stands_for(entry.key) else None

    def purge(self, definition: FetchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Drop the stored value of a call."""
        key = self._bound_function(definition).key(args, kwargs)
        self.engine.counters.count("purges")
        self.engine.purge(call_name(key), soft=False)

    def peek(self, definition: FetchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the stored value of a call, however old, or ``None``."""
        bound = self._bound_function(definition)
        origin = CallOrigin(bound, args, kwargs, False)
        origin.relocate()
        copy = self.engine.answer_writer.load(origin.key)
        value = None if copy.entry is None or copy.entry.status == INDEX else self._read(bound, copy)
        return None if value is _BROKEN else value

    # -- one call ------------------------------------------------------------------------------------------------

    def _read(self, bound: BoundFunction, copy: Copy | None) -> Any:
        """Return the value of a copy: a new one for each caller, or an immutable one; :data:`_BROKEN` if it can't be decoded."""
        assert copy is not None
        read = copy.prepared
        if read is None:
            entry = copy.entry
            assert entry is not None
            try:
                read = copy.prepared = bound.codec.decode(dict(entry.headers).get("Content-Type", ""), entry.body, entry.key)
            except BrokenValue as error:
                self.engine.counters.count("broken_values")
                bound.complaints.error_every_minute(
                    (bound.definition.name, "broken"), "a stored value of %s is dropped: %s", bound.definition.name, error
                )
                return _BROKEN
        return read()

    def _of_answer(self, origin: CallOrigin, answer: Answer, word: cacheability.Cacheability | None) -> Any:
        """Return the value that the function returned, or raise its error; return the fallback if it failed."""
        policy = origin.bound.definition.policy
        if not answer.verdict.is_failure or policy.fallback is NO_FALLBACK:
            return _told(answer)
        if word is None:
            word = hints_of_request()
        if word is not None and policy.inherit:
            word.stand_in(self._tried_again_at(origin.key, answer))
        if answer.verdict is Verdict.FAILED:
            label = origin.label
            self.engine.complaints.error_every_minute(
                (label, "fallback"), "%s failed; its fallback stands in: %r", label, answer.error, exc_info=answer.error
            )
        if callable(policy.fallback):
            return policy.fallback(*origin.args, **origin.kwargs)
        return policy.fallback if is_immutable(policy.fallback) else deepcopy(policy.fallback)

    def _tried_again_at(self, key: str, answer: Answer) -> float:
        """Return when a call that failed, or was refused, may be tried again, in seconds since the epoch."""
        now = time.time()
        return now + max(self.engine.answer_writer.load(key).note.pause_left(now), answer.retry_after or 0.0)

    def _is_live(self, bound: BoundFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call bypasses the cache: the developer's ``unless`` is true, or raises."""
        unless, name = cast("Callable[..., object]", bound.definition.policy.windows.unless), bound.definition.name
        return ask(
            lambda: bool(unless(*args, **kwargs)),
            True,
            bound.complaints,
            (name, "unless"),
            "%s bypasses the cache, since its unless raised: %r",
            name,
        )

    # -- a function in this app ------------------------------------------------------------------------------------

    def _bound_function(self, definition: FetchFunction) -> BoundFunction:
        return self._bound_functions.get(definition) or self._bind(definition)

    def _bind(self, definition: FetchFunction) -> BoundFunction:
        self._check_name(definition)
        self.check([definition])
        # Again: the app may have got another class for its ``g`` since.
        note_beginnings(self.app, seq_of_request(self.engine.store))
        settings, policy = self.settings, definition.policy
        windows = policy.windows
        prefers = settings.prefer_stale if windows.prefer_stale is None else windows.prefer_stale is True
        preferred = preference(prefers, settings.prefer_stale_refresh)
        terms = self.terms()._replace(refresh_ahead=windows.refresh_ahead or 0.0, prefer_stale=preferred)
        bound = BoundFunction(
            app=self.app,
            definition=definition,
            settings=settings,
            complaints=self.engine.complaints,
            codec=codec_of(policy.serializer, definition.function, _secret_keys(self.app), settings.max_entry_size),
            slots=ConcurrencyLimit(policy.max_concurrency),
            suspension=self._suspension_of(definition),
            pool=self._pool_of(definition),
            places=self._places,
            renew=self.renew,
            lock_timeout=settings.lock_timeout if windows.lock_timeout is None else windows.lock_timeout,
            terms=terms,
            in_background=terms._replace(wait_for_fresh=True),
            asks_each=callable(windows.prefer_stale),
            keys=Remembered(most=1024, limit=MIB, longest=4096),
            tally=self.engine.registry.tally("function", definition.name),
        )
        # Two threads that bind it at the same time get the same object: limits and threads must not exist twice.
        return self._bound_functions.setdefault(definition, bound)

    def _suspension_of(self, definition: FetchFunction) -> CircuitBreaker:
        policy, store = definition.policy, self.engine.store
        return CircuitBreaker(
            store, definition.name, policy.suspend_after, policy.suspend_for or 0.0, self.engine.answer_writer.store_failed
        )

    def suspended(self, definitions: Iterable[FetchFunction]) -> list[Suspended]:
        """Return the fetch functions that are suspended now, since they failed too often in a row.

        The workers of a machine share this state, so a worker also returns functions that it never called.
        """
        suspensions = {
            definition.name: self._suspension_of(definition)
            for definition in definitions
            if definition.policy.suspend_after is not None
        }
        return [
            Suspended(name, suspension.failures(), suspension.left())
            for name, suspension in sorted(suspensions.items())
            if suspension.is_on()
        ]

    def terms(self) -> ServeOptions:
        """Return the app's serving options for values of third parties, whose failures are no mistakes of the developer."""
        return self._version.serve_options()._replace(shows_errors=False)

    def _pool_of(self, definition: FetchFunction) -> ThreadPool:
        """Return the threads of a function. With ``wait`` it has its own, so that a hanging call blocks no other function."""
        if definition.policy.windows.wait is None:
            return self.pool
        return self.engine.runtime.new_pool(definition.policy.max_concurrency, 0, replaces_lost=False)

    def check(self, definitions: Iterable[FetchFunction]) -> None:
        """Raise :class:`ConfigError` if a function contradicts the app's settings."""
        deadline = self.settings.refresh_deadline
        for definition in definitions:
            wait = definition.policy.windows.wait
            if wait is not None and wait > deadline:
                raise ConfigError(
                    f"wait={wait:g} of {definition.name} is longer than STALECACHE_REFRESH_DEADLINE={deadline:g}, after which a "
                    "call is given up: lower the one or raise the other"
                )

    def _check_name(self, definition: FetchFunction) -> None:
        """Refuse a second function with the same name: each would get the values of the other."""
        other = self._names.setdefault(definition.name, definition)
        if other is not definition and not _is_same(other.function, definition.function):
            raise ConfigError(
                f"two fetch functions are called {definition.name}, and would be given each other's values: give them names of "
                "their own, and what they close over as arguments"
            )


class _Broken:
    """Marks a value that can't be decoded."""


_BROKEN = _Broken()


def _told(answer: Answer) -> Any:
    if answer.error is not None:
        raise answer.error
    return answer.value


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two functions do the same: they come from one definition and close over the same objects."""
    if getattr(one, "__code__", one) is not getattr(other, "__code__", other):
        return False
    return _enclosed(one) == _enclosed(other)


def _enclosed(function: Callable[..., Any]) -> list[int]:
    return [id(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]


def _secret_keys(app: Flask) -> list[str | bytes]:
    fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or []
    return [*reversed(fallbacks), *([app.secret_key] if app.secret_key else [])]
