"""The WSGI app behind a gateway, its settings, and what can be observed of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES, RequestInputs
from ...core.model.policy import Policy
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal
from ...core.model.titles import endpoint_of
from ...core.rules.prefer_stale import PreferStale, RequestFlag, carried_values, preference
from ...core.rules.serving import ServeOptions
from ...core.rules.variants import Fields, locate
from ...engine.engine import Engine
from ...engine.log import RateLimitedLog
from ...stats.tally import Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

#: The policy of an app that has nothing about caching in its code.
UNSAID = Policy(jitter=0)


@dataclass(frozen=True, slots=True)
class Observation:
    """How an app came to its answer, as far as that can be observed.

    :param names: cookies and request fields that were read.
    :param own: why the answer is one visitor's own, if no names say so; ``None`` if it is not.
    :param is_ours: a view with ``cached()`` answered, and did its own caching.
    :param policy: the policy in code of the view that answered.
    :param endpoint: the endpoint that answered; ``None`` if the app has none.
    :param answered: fields in ``Vary`` that ``names`` describe more precisely.
    :param is_blind: nothing can be observed of this app: ``names`` does not tell what was read.
    """

    names: RequestInputs = NO_NAMES
    own: Refusal | None = None
    is_ours: bool = False
    policy: Policy = UNSAID
    endpoint: str | None = None
    answered: frozenset[str] = frozenset()
    is_blind: bool = False

    @property
    def label(self) -> str:
        """The name of what answered in the log."""
        return "a response" if self.endpoint is None else f"the endpoint {self.endpoint}"


NOTHING_OBSERVED = Observation(is_blind=True)


def observe_nothing(environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
    """Observe nothing: the responses of an app that is not Flask's speak for themselves."""
    return NOTHING_OBSERVED


@dataclass(frozen=True, slots=True)
class Backend:
    """A WSGI app behind a gateway.

    :param app: the app.
    :param observe: returns how the app answered a request, by the environ that it was given and the query parameters that are not
        part of the key.
    :param only_coded: only views with ``gateway=True`` are stored.
    :param guards: an answer to a request that says who asks is stored only if it says that it is for everybody.
    :param honors: a client's own ``Cache-Control`` is obeyed.
    :param max_entry_size: the largest body that is stored, in bytes.
    :param lock_timeout: the longest time in seconds that a request waits for another one's call.
    :param terms: the serving options where no rule sets others.
    :param asked_by: the fields and cookies by which a client prefers stale responses, where no rule decides that.
    :param preferred: how stale responses are served to such a client.
    :param renew: refreshes values of fetch functions by their keys, and waits for them.
    :param debugs: whether ``Cache-Status`` contains the debug detail; called once, at the first request.
    """

    app: WSGIApplication
    engine: Engine
    complaints: RateLimitedLog
    observe: Callable[[WSGIEnvironment, NamePatterns], Observation]
    only_coded: bool
    guards: bool
    honors: bool
    max_entry_size: int
    lock_timeout: float
    terms: ServeOptions
    asked_by: tuple[RequestFlag, ...]
    preferred: PreferStale
    renew: Callable[[tuple[str, ...]], None]
    debugs: Callable[[], bool]

    @classmethod
    def of(
        cls,
        app: WSGIApplication,
        engine: Engine,
        terms: ServeOptions,
        observe: Callable[[WSGIEnvironment, NamePatterns], Observation] = observe_nothing,
        renew: Callable[[tuple[str, ...]], None] = lambda keys: None,
        *,
        only_coded: bool = False,
        debugs: Callable[[], bool] = lambda: False,
    ) -> Backend:
        """Return the backend of an app with the settings of its engine."""
        settings = engine.settings
        return cls(
            app=app,
            engine=engine,
            complaints=engine.complaints,
            observe=observe,
            only_coded=only_coded,
            guards=settings.credentials_need_public,
            honors=settings.honor_request_cache_control,
            max_entry_size=settings.max_entry_size,
            lock_timeout=settings.lock_timeout,
            terms=terms,
            asked_by=carried_values(settings.prefer_stale_header, settings.prefer_stale_cookie),
            preferred=preference(True, settings.prefer_stale_refresh),
            renew=renew,
            debugs=debugs,
        )

    def tally_of(self, entry: Entry | None) -> Tally:
        """Return the counters of a stored response."""
        return self.tally(None if entry is None else endpoint_of(entry))

    def tally(self, endpoint: str | None) -> Tally:
        """Return the counters of an endpoint; an app without endpoints has one set of counters."""
        return self.engine.registry.tally("endpoint", endpoint or "")

    def locate(self, url_key: str, environ: WSGIEnvironment) -> tuple[str, Fields]:
        """Return the key of the response to a request (of the URL, or of a variant), and the request fields in it."""
        return locate(url_key, environ, self.engine.look_up, time.time())
