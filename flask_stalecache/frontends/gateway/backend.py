"""A WSGI app behind a gateway, and what is known of it beside its answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES, RequestInputs
from ...core.model.policy import Policy
from ...core.model.purge_names import endpoint_in
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal
from ...core.rules.prefer_stale import PreferStale, RequestFlag, carried_values, preference
from ...core.rules.serving import ServeOptions
from ...core.rules.variants import Fields, locate
from ...engine.engine import Engine
from ...engine.log import RateLimitedLog
from ...stats.tally import Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

#: What rules are for: nothing written in code.
UNSAID = Policy(jitter=0)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of how an app came to its answer.

    :param names: cookies and request fields that were read.
    :param own: why the answer is one visitor's own in a way that no name tells; ``None``: it is not.
    :param is_ours: a decorator of ours has answered, and stores by itself.
    :param policy: what the developer wrote in code for what answered.
    :param endpoint: the endpoint that answered; ``None``: the app has none.
    :param answered: fields in ``Vary`` that ``names`` speak for.
    """

    names: RequestInputs = NO_NAMES
    own: Refusal | None = None
    is_ours: bool = False
    policy: Policy = UNSAID
    endpoint: str | None = None
    answered: frozenset[str] = frozenset()


NOTHING_SEEN = Observation()


def nothing_seen(environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
    """Say of an app that can't be looked into that its answers speak for themselves."""
    return NOTHING_SEEN


@dataclass(frozen=True, slots=True)
class Backend:
    """A WSGI app behind a gateway.

    :param app: the app.
    :param observe: returns what was seen of how the app answered a request, by the environ that it was given and the query
        parameters that are not in the key.
    :param only_coded: nothing is stored but what the developer named in code.
    :param honors: whether a client's own ``Cache-Control`` is obeyed.
    :param max_entry_size: bytes that a body may have.
    :param lock_timeout: seconds that a request waits for another's call at most.
    :param terms: what is said of serving what is stored where no rule says more.
    :param asked_by: the fields and cookies with which a client prefers stale, where no rule says more.
    :param preferred: what becomes of a stale copy then.
    :param renew: renews values of fetch functions by their keys, and waits for that.
    :param debugs: whether ``Cache-Status`` says more; asked once, at the first request.
    """

    app: WSGIApplication
    engine: Engine
    complaints: RateLimitedLog
    observe: Callable[[WSGIEnvironment, NamePatterns], Observation]
    only_coded: bool
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
        observe: Callable[[WSGIEnvironment, NamePatterns], Observation] = nothing_seen,
        renew: Callable[[tuple[str, ...]], None] = lambda keys: None,
        *,
        only_coded: bool = False,
        debugs: Callable[[], bool] = lambda: False,
    ) -> Backend:
        """Return the plan of an app under the settings of its engine."""
        settings = engine.settings
        return cls(
            app=app,
            engine=engine,
            complaints=engine.complaints,
            observe=observe,
            only_coded=only_coded,
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
        """Return where a stored response is counted."""
        return self.tally(None if entry is None else endpoint_in(entry.names))

    def tally(self, endpoint: str | None) -> Tally:
        """Return where the answers of an endpoint are counted; of an app without endpoints all are counted as one."""
        return self.engine.registry.tally("endpoint", endpoint or "")

    def locate(self, url_key: str, environ: WSGIEnvironment) -> tuple[str, Fields]:
        """Return the key of what a request asks for, and the fields that are in it: the URL's own key, or that of a variant."""
        return locate(url_key, environ, self.engine.look_up, time.time())
