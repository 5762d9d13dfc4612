"""The WSGI app behind a gateway, its settings, and what can be observed of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ...core.http.accept import CODINGS, AcceptReads
from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES, HoldsKeys, RequestInputs
from ...core.model.policy import Policy
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal
from ...core.model.titles import endpoint_of
from ...core.rules.advice import FrontEnd
from ...core.rules.named import NOTHING_NAMED, NamedValues, values_of
from ...core.rules.prefer_stale import PreferStale, RequestFlag, carried_values, preference
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Judgement
from ...core.rules.variants import Located, locate
from ...engine.engine import Engine
from ...engine.log import RateLimitedLog
from ...stats.tally import Tally
from ..observation.read_log import ReadLog
from ..request.kept_values import KeptValues
from .own_answers import OwnAnswers
from .rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

#: The policy of an app whose code sets none.
UNSAID = Policy(jitter=0)


@dataclass(frozen=True, slots=True)
class Observation:
    """The way in which an app came to its answer, as far as that can be observed.

    :param names: cookies and request fields that were read.
    :param own: why the answer is one visitor's own, for a reason that no name expresses; ``None`` if it is not.
    :param is_by_view: the request got past middleware and hooks: none of them answered in place of the view.
    :param is_ours: a view with ``cached()`` answered, and did its own caching.
    :param policy: the policy in code of the view that answered.
    :param endpoint: the endpoint that answered; ``None`` if the app has none.
    :param answered: fields in ``Vary`` that ``names`` describe more precisely.
    :param is_blind: the reads of this app can't be observed: ``names`` does not list them.
    :param is_stream: the body is made while it is sent, so the app may still read the request.
    :param given: the environ as the gateway passed it on; ``None`` if it is the visitor's.
    :param seen: the environs as the app saw them, by which its answer is judged.
    :param last_seen: the environ as the app saw it last, whichever part of it answered; ``None`` if the app did not see it.
    :param kept: the names and values that look random and that the app keeps for this request.
    :param sessions: the names of the cookies in which the app keeps its sessions.
    :param has_changed_session: the app has changed a session.
    :param accepts: how the app has read the Accept fields.
    :param changed: the variables of the environ that the app has changed.
    :param codings: the codings that the app may answer with.
    :param harmless: the names of the session cookies whose sessions have not changed, but for marks that make no difference.
    :param holds: returns whether a session that the app has used has, or has had, one of some keys.
    :param readers: the fields that middleware between gateway and app has read, in lower case, and the module that read each.
    :param unobserved: replaces this observation if another WSGI app within, such as a mounted one, gave an answer that speaks for
        itself; ``None`` if no other app can have answered.
    :param refused: why the answer is not stored, for a reason that lies in the page rather than in this visitor.
    :param held: returns the sessions that the app has used and whose keys can be looked up at hits.
    :param reader_of: returns the module of the app that has read a name of a kind (:class:`.InputKind`), if it is known.
    """

    names: RequestInputs = NO_NAMES
    own: Refusal | None = None
    is_by_view: bool = True
    is_ours: bool = False
    policy: Policy = UNSAID
    endpoint: str | None = None
    answered: frozenset[str] = frozenset()
    is_blind: bool = False
    is_stream: bool = False
    given: Mapping[str, Any] | None = None
    seen: tuple[Mapping[str, Any], ...] = ()
    last_seen: Mapping[str, Any] | None = None
    kept: tuple[tuple[str, str], ...] = ()
    sessions: frozenset[str] = frozenset()
    has_changed_session: bool = False
    accepts: AcceptReads = field(default_factory=AcceptReads)
    changed: frozenset[str] = frozenset()
    codings: tuple[str, ...] = CODINGS
    harmless: frozenset[str] = frozenset()
    holds: HoldsKeys = lambda keys: False
    readers: Mapping[str, str] = field(default_factory=dict)
    unobserved: Observation | None = None
    refused: Refusal | None = None
    held: Callable[[], Iterable[Mapping[str, Any]]] = tuple
    reader_of: Callable[[str, str], str] = lambda kind, name: "the app"

    @property
    def label(self) -> str:
        """The name in the log of the endpoint that answered."""
        return "a response" if self.endpoint is None else f"the endpoint {self.endpoint}"


class AppObserver(Protocol):
    """Observes how an app comes to its answers."""

    def hand_in(self, environ: WSGIEnvironment, told: Callable[[ReadLog], object] | None = None) -> WSGIEnvironment:
        """Return the environ that the app is called with for an answer that may be stored.

        :param environ: a copy of the visitor's.
        :param told: called after each read of an Accept field, and when reads of another log are added.
        """

    def accompany(self, environ: WSGIEnvironment) -> None:
        """Prepare the environ of a request whose answer is not stored."""

    def __call__(self, environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
        """Return how the app answered a request.

        :param environ: the environ that the app was called with.
        :param ignored: query parameters that are not part of the key.
        """


class Sessions(Protocol):
    """Looks up keys of visitors' sessions without entering the app."""

    def hold(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        """Whether the session of a request has, or may have, one of some keys."""

    def bar(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        """Whether a request has to be sent to the app: its session has one of some keys, or has to be prolonged."""

    def values(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the values of some keys of the session of a request, without those that it lacks.

        :raises ConfigError: if they can't be looked up.
        """

    def give(self, environ: WSGIEnvironment, values: Mapping[str, Any]) -> None:
        """Give a refresh a session with these values and nothing else."""


class UnknownSessions:
    """Sessions that can't be looked up: a visitor with a cookie may have one with any keys."""

    def hold(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        """Whether the request has a cookie."""
        return "HTTP_COOKIE" in environ

    bar = hold

    def values(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> Mapping[str, Any]:
        """Not called: no rule of such an app names values of the session."""
        raise AssertionError(keys)

    def give(self, environ: WSGIEnvironment, values: Mapping[str, Any]) -> None:
        """Not called: no rule of such an app names values of the session."""
        raise AssertionError(values)


class Unobserved:
    """Observes an app that is not a Flask app: only its changes to the environ itself. Its responses speak for themselves."""

    def hand_in(self, environ: WSGIEnvironment, told: Callable[[ReadLog], object] | None = None) -> WSGIEnvironment:
        """Return the environ itself: PEP 3333 wants a plain ``dict``."""
        return environ

    def accompany(self, environ: WSGIEnvironment) -> None:
        """Change nothing."""

    def __call__(self, environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
        """Return an observation with the environ as the app has left it, and without reads."""
        return Observation(is_blind=True, seen=(environ,), last_seen=environ)


class Endpoints(Protocol):
    """Predicts which requests can't have an answer that is stored, and learns from the answers."""

    def may_store(self, environ: Mapping[str, Any]) -> bool:
        """Whether the answer to a request may be stored, as far as is known before the call."""

    def learn(self, environ: Mapping[str, Any], endpoint: str | None, status: int, judgement: Judgement) -> None:
        """Note how an answer was judged by its head.

        :param environ: its request, as the gateway got it.
        :param endpoint: the endpoint that answered.
        :param status: its status.
        """


class NoEndpoints:
    """Stands for the endpoints of an app without any: only its answers tell, URL by URL."""

    def may_store(self, environ: Mapping[str, Any]) -> bool:
        """Return true: any answer may be stored."""
        return True

    def learn(self, environ: Mapping[str, Any], endpoint: str | None, status: int, judgement: Judgement) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A WSGI app behind a gateway.

    :param app: the app.
    :param observe: observes how the app comes to its answers.
    :param only_coded: only views with ``gateway=True`` are stored.
    :param guards: an answer to a request that identifies the client is stored only if it says that it is for everybody.
    :param honors: a client's own ``Cache-Control`` is obeyed.
    :param max_entry_size: the largest body that is stored, in bytes.
    :param lock_timeout: the longest time in seconds that a request waits for another one's call.
    :param remote_addr: the address that refreshes come from.
    :param refresh_headers: the fields that refreshes carry, by their names in lower case.
    :param terms: the serving options where no rule sets others.
    :param asked_by: the fields and cookies by which a client prefers stale responses, where no rule decides that.
    :param preferred: how stale responses are served to such a client.
    :param renew: refreshes values of fetch functions by their keys, and waits for them.
    :param kept: distinguishes random values from settings.
    :param debugs: returns whether ``Cache-Status`` contains the debug detail; called at the first request and for personal answers.
    :param endpoints: predicts which requests can't have an answer that is stored.
    :param tag_fields: the response fields that list tags, in lower case.
    :param removed: the fields among ``tag_fields`` that are not sent to clients.
    :param sessions: looks up keys of visitors' sessions.
    :param own_answers: remembers the URLs for which the app has no answer for everybody.
    :param counts_rules: the app has no endpoints, so its requests are counted by the pattern of their rule.
    """

    app: WSGIApplication
    engine: Engine
    complaints: RateLimitedLog
    observe: AppObserver
    only_coded: bool
    guards: bool
    honors: bool
    max_entry_size: int
    lock_timeout: float
    remote_addr: str
    refresh_headers: Mapping[str, str]
    terms: ServeOptions
    asked_by: tuple[RequestFlag, ...]
    preferred: PreferStale
    renew: Callable[[tuple[str, ...]], None]
    debugs: Callable[[], bool]
    endpoints: Endpoints
    tag_fields: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    kept: KeptValues = field(default_factory=KeptValues)
    counts_rules: bool = False
    sessions: Sessions = field(default_factory=UnknownSessions)
    own_answers: OwnAnswers = field(default_factory=OwnAnswers)

    @classmethod
    def of(
        cls,
        app: WSGIApplication,
        engine: Engine,
        terms: ServeOptions,
        observe: AppObserver | None = None,
        renew: Callable[[tuple[str, ...]], None] = lambda keys: None,
        *,
        only_coded: bool = False,
        debugs: Callable[[], bool] = lambda: False,
        endpoints: Endpoints | None = None,
        sessions: Sessions | None = None,
    ) -> Backend:
        """Return the backend of an app with the settings of its engine."""
        settings = engine.settings
        return cls(
            app=app,
            engine=engine,
            complaints=engine.complaints,
            observe=observe or Unobserved(),
            only_coded=only_coded,
            guards=settings.credentials_need_public,
            honors=settings.honor_request_cache_control,
            max_entry_size=settings.max_entry_size,
            lock_timeout=settings.lock_timeout,
            remote_addr=settings.refresh_remote_addr,
            refresh_headers=settings.refresh_headers,
            terms=terms,
            asked_by=carried_values(settings.prefer_stale_header, settings.prefer_stale_cookie),
            preferred=preference(True, settings.prefer_stale_refresh),
            renew=renew,
            debugs=debugs,
            endpoints=endpoints or NoEndpoints(),
            counts_rules=endpoints is None,
            sessions=sessions or UnknownSessions(),
            tag_fields=settings.tag_fields,
            removed=frozenset() if settings.send_tag_fields else settings.tag_fields,
        )

    def tally_of(self, entry: Entry | None, pattern: str) -> Tally:
        """Return the counters of a stored response.

        :param pattern: the pattern of the rule for its path.
        """
        return self.tally(None if entry is None else endpoint_of(entry), pattern)

    def tally(self, endpoint: str | None, pattern: str) -> Tally:
        """Return the counters of an endpoint; an app without endpoints has counters for each rule.

        :param pattern: the pattern of the rule for the path; "" if there is none.
        """
        return self.engine.registry.tally("endpoint", pattern if self.counts_rules else endpoint or "")

    def front_end(self, seen: Observation) -> FrontEnd:
        """Return the front end that an answer came through, for advice."""
        if self.counts_rules:
            return FrontEnd.WSGI
        return FrontEnd.CODED if self.only_coded or seen.policy.gateway else FrontEnd.RULES

    def named(self, rule: Rule, environ: WSGIEnvironment) -> NamedValues:
        """Return the request's cookies and session values that its rule names.

        :raises ConfigError: if a normaliser fails, or if they can't be looked up.
        """
        if not rule.named:
            return NOTHING_NAMED
        field, look_up = environ.get("HTTP_COOKIE"), partial(self.sessions.values, environ)
        return values_of(rule.policy, field, look_up, is_flasks=not rule.hides_cookies)

    def locate(self, url_key: str, environ: WSGIEnvironment, rule: Rule, named: NamedValues) -> Located:
        """Return the place of the response to a request: under the key of the URL, or under that of a variant.

        :param rule: the rule for its path.
        :param named: its cookies and session values that the rule names.
        """
        holds = partial(self.sessions.hold, environ)
        hints = self.engine.hints
        return locate(url_key, environ, self.engine.look_up, time.time(), holds, hints, rule.named, named.values)
