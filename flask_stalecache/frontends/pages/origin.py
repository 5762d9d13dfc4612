"""A request for a cached view, as the engine's :class:`~flask_stalecache.engine.origin.Origin`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...batches.warm_request import warming_of
from ...core.addressing.keys import page_key
from ...core.addressing.recipe import PageRecipe
from ...core.http.accept import in_order
from ...core.model.environ import WARMING
from ...core.model.inputs import RequestInputs
from ...core.model.policy import FAILURE_STATUSES, Policy
from ...core.rules.named import NOTHING_NAMED, recipe_of
from ...core.rules.serving import ServeOptions
from ...core.rules.status import CacheStatus
from ...core.rules.storability import Verdict
from ...core.rules.variant_index import Fields, is_variant_of
from ...core.rules.variants import Located, locate, lookup
from ...engine.origin import Answer, RefreshJob, Served, Start
from ...errors import ConfigError
from ...stats.tally import Tally
from ..flask_internals.contexts import RequestContext
from ..flask_internals.sessions import session_cookie
from ..observation.session_log import SessionReads
from ..observation.watched_session import holds_key
from ..request.request_origin import RequestOrigin
from .bound_view import BoundView, EndpointCounters
from .error_pages import ask_handlers
from .fetch import NOTHING_IGNORED, PageFetch
from .named import covered_by_names, look_up_named
from .refresh import page_refresh, visitor_fields
from .variants import PageVariants
from .watching.hook_reads import count_hook_reads
from .watching.request_recorder import arrived_environ
from .watching.watch import (
    KEY_FIELDS,
    Covered,
    covered_by_key,
)


class PageOrigin(RequestOrigin):
    """One request for a cached view.

    :param bound: the view in this app.
    :param context: the request's context.
    :param args: the view's arguments.
    :param kwargs: likewise.
    :param counters: the counters of the endpoint. Its name is in the key too, since all views that a factory makes share a name.
    :ivar tally: the counters of the endpoint.
    :ivar url_key: the key of the page, without variants.
    """

    key: str
    tally: Tally
    terms: ServeOptions

    __slots__ = (
        "_covered_in_key", "_located", "_named", "args", "bound", "context", "environ", "key", "kwargs", "tally", "terms",
        "url_key",
    )  # fmt: skip

    def __init__(self, bound: BoundView, context: RequestContext, args: Any, kwargs: Any, counters: EndpointCounters) -> None:
        self.bound = bound
        self.tally = counters.tally
        self.context = context
        self.environ: dict[str, Any] = arrived_environ(context.request)
        self.args = args
        self.kwargs = kwargs
        self._covered_in_key: Covered | None = None
        #: The serving options of this request.
        self.terms: ServeOptions = bound.terms_of(context) if bound.asks_each else bound.terms
        policy = bound.cached.policy
        custom = None if policy.key is None else self._custom_key(policy.key)
        #: The place where the page is looked up, once it may be under the key of a variant.
        self._located: Located | None = None
        self._named = NOTHING_NAMED
        self.url_key = self.key = page_key(counters.view, self.environ, policy.vary, bound.ignored, custom, policy.named)
        if policy.named:
            self._look_up_named(policy)

    def _custom_key(self, key: Callable[[], object]) -> object:
        """Call the ``key`` callable. The key covers all that it reads."""
        with covered_by_key(self.context, self.bound.settings.ignored_headers) as (read, session):
            custom = key()
        if custom is None:
            raise ConfigError("a key callable returned None: return a string, a number or a tuple of those; see unless=")
        ignored = self.bound.cached.policy.ignore_session
        headers = self.bound.uncounted | read.headers.keys()
        self._covered_in_key = Covered(headers, frozenset(read.cookies), frozenset(read.variables), None if ignored else session)
        return custom

    def _look_up_named(self, policy: Policy) -> None:
        """Look up the cookies and values of the session that the view has named. The key covers them."""
        self._named = look_up_named(self.context, policy)
        self._covered_in_key = covered_by_names(self.context, policy, self._covered())
        self.relocate()

    @property
    def label(self) -> str:
        """Its name in log lines."""
        return f"{self.bound.cached.name} at {self.environ.get('PATH_INFO', '')}"

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait at most for the call of another request."""
        return self.bound.lock_timeout

    @property
    def wait(self) -> float | None:
        """Seconds to wait at most for a refresh if a stale copy can be served; no limit for a request that warms or renews."""
        return None if self.terms.renews or WARMING in self.environ else self.bound.cached.policy.wait

    @property
    def min_uses(self) -> int:
        """The number of requests from which on the answer is stored. A warming request stores it at once."""
        return 1 if WARMING in self.environ else self.bound.cached.policy.min_uses

    def holds(self, keys: tuple[str, ...]) -> bool:
        """Whether the visitor's session has one of these keys, has had it, or may have it."""
        return holds_key(self.context, self.environ, keys)

    @property
    def fields(self) -> Fields:
        """The selectors in the key."""
        return () if self._located is None else self._located.fields

    @property
    def may_collapse(self) -> bool:
        """Whether other requests may wait for this one's call: not if its answer is unlikely to be stored."""
        return super().may_collapse and (self._located is None or self._located.has_room)

    def relocate(self) -> bool:
        """Look up the variant again, since the page may have new variants by now. Return whether the key has changed."""
        before = self.key
        self._located = locate(
            self.url_key,
            self.environ,
            self.bound.engine.look_up,
            time.time(),
            self.holds,
            self.bound.engine.hints,
            self.bound.cached.named,
            self._named.values,
        )
        self.key = self._located.key
        return self.key != before

    def key_by(self, fields: Fields) -> str | None:
        """Return the key of the page's first answer, and record its selectors for requests that arrive meanwhile.

        ``None`` if the page has an answer already.
        """
        fields = in_order((*self.bound.cached.named, *fields))
        return self.bound.engine.hint(self.url_key, fields, lookup(self.environ, self._named.values))

    def stands_for(self, key: str) -> bool:
        """Take over the key of the page, or of a variant of it. Return false if the key belongs to another page."""
        if key != self.url_key and not is_variant_of(self.url_key, key):
            return False
        self.relocate()
        self.key = key
        return True

    def call_uncached(self) -> Answer:
        """Call the view as if it were not decorated."""
        count_hook_reads(self.context)
        try:
            response = self.bound.call_view(self.args, self.kwargs)
        except Exception as error:
            return Answer(Verdict.UNSTORABLE, error=error, failed=ask_handlers(self.context, error).has_failed)
        return Answer(Verdict.UNSTORABLE, value=response, failed=response.status_code in FAILURE_STATUSES)

    def call(self, start: Start) -> Answer:
        """Call the view under watch and judge its answer."""
        variants = PageVariants(self.bound.engine, self.url_key, self.fields, self.bound.cached.named, self._named)
        answer = PageFetch(self.bound, self.context, self.key, variants, self.args, self.kwargs, self._covered()).answer(start)
        if (warming := warming_of(self.environ)) is not None:
            warming.note_answer(answer)
        return answer

    def made_anew(self) -> Served:
        """Make a page as if it were not stored, since its copy has a hole that this app does not know."""
        self.terms = self.terms.renewing()
        served = self.bound.engine.serve(self)
        # Another request may hold the lock of the key.
        return served if served.answer is not None else Served(CacheStatus.BYPASS, answer=self.call_uncached())

    # -- within the page of another view -----------------------------------------------------------------------------

    def depends_on(self, served: Served) -> RequestInputs:
        """Return the names that this page depends on, besides those in every key."""
        covered = self._covered()
        names = RequestInputs(
            tuple(covered.cookies),
            tuple(covered.headers - KEY_FIELDS - self.bound.settings.ignored_headers),
            tuple(covered.variables),
        )
        if covered.session and (covered.session.whole or self.bound.cached.policy.key is not None):
            names |= RequestInputs(cookies=(session_cookie(self.context.app),))
        elif covered.session:
            names |= RequestInputs(session=tuple(sorted(covered.session.names)))
        return names if served.entry is None else names | served.entry.absent

    def _covered(self) -> Covered:
        if self._covered_in_key is not None:
            return self._covered_in_key
        session = None if self.bound.cached.policy.ignore_session else SessionReads()
        return Covered(self.bound.uncounted, frozenset(), frozenset(), session)

    # -- refreshing ----------------------------------------------------------------------------------------------

    def _recipe(self) -> PageRecipe:
        return recipe_of(self.environ, self.bound.cached.policy.vary, self.fields, self._named, self.bound.ignored)

    def refresh(self) -> RefreshJob:
        """Return the refresh of this page. With a ``key`` callable or ``ignore_session`` it carries its visitor's fields."""
        bound, policy = self.bound, self.bound.cached.policy
        if policy.key is None and not policy.ignore_session:
            return page_refresh(bound, self.key, self.label, self._recipe(), None, self.tally)
        # A key callable may read any parameter, so that the replayed query must have them all.
        ignored = bound.ignored if policy.key is None else NOTHING_IGNORED
        recipe = PageRecipe.from_environ(self.environ, policy.vary, ignored)
        visitor = visitor_fields(self.environ, self._covered().variables)
        return page_refresh(bound, self.key, self.label, recipe, visitor, self.tally)
