"""``cached``: handles requests for decorated views.

A request takes one of four ways:

==========  ==============================================================================
bypass      the view runs as if it were not decorated: see ``_why_not_for_us``
replay      a refresh of ours: the engine holds the lock, the view runs, its answer is kept
warming     a request that fills the store: it waits for a fresh copy
visit       :meth:`Engine.serve <flask_stalecache.engine.engine.Engine.serve>` decides
==========  ==============================================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask, request
from flask.views import View
from werkzeug.wrappers import Response

from ...batches.renewal import Renewal
from ...batches.warm_request import Warming, warming_of
from ...config.settings import Settings
from ...core.addressing.keys import is_key_of_page, page_key
from ...core.addressing.recipe import PageRecipe
from ...core.http.content_policy import has_nonce_in_body
from ...core.http.vary import STAR
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING, REPLAY, REPORT
from ...core.model.policy import FAILURE_STATUSES
from ...core.model.reasons import BypassReason, Refusal, StoreRefusal
from ...core.model.titles import endpoint_of, title_of
from ...core.rules.cacheability import unheard
from ...core.rules.serving import ServeOptions
from ...core.rules.status import CacheStatus, forwarded_field, key_and_detail, status_fields
from ...core.rules.storability import Verdict
from ...engine.engine import Engine
from ...engine.origin import Answer, Served
from ...stats.tally import PLAIN, Tally
from ..app_code.hooks import ask
from ..flask_internals.contexts import RequestContext
from ..middleware import HANDOVER
from ..observation.observed_environ import ObservedEnviron
from ..request.kept_values import KeptValues
from ..response.conditional_answer import ASKED
from ..response.debug_detail import debug_detail
from ..setup.app_version import AppVersion
from .bound_view import BoundView, CachedView, EndpointCounters, cached_view, is_dispatched
from .dependence import add_to_vary, fields_of_answer, follow_error
from .error_pages import HANDLED
from .fetch import FILLED, SERVED_WITHIN
from .filling_holes.filled_copies import respond_with_filled
from .filling_holes.filling import FILLED_HOLES, AppHoles, holes_of, keep_private
from .origin import PageOrigin
from .probed import note_bypass, note_served
from .refresh import AnyView, PageReplay, page_refresh
from .responses import add_fields, leave_conditions, respond_with_answer, respond_with_copy, stored_page, tell_end_of_freshness
from .view_call import answer_for_gateway
from .watching.hook_reads import count_hook_reads
from .watching.request_recorder import ObservedRequest, plain_environ
from .watching.watch import reads_of

#: Bypass reasons of requests whose answers depend on something that is in no field: the server's own login, or a body.
_UNNAMED = frozenset({BypassReason.REMOTE_USER, BypassReason.BODY})
#: In the environ: a view under ``cached`` has answered, and stores its own response.
ANSWERED = "flask_stalecache.answered"


class Pages:
    """The cached views of one app.

    :param app: the app.
    :param settings: its configuration.
    :param engine: answers requests.
    :param version: the version of the app.
    :param holes: fills the holes of its pages.
    :param explains: ``Cache-Status`` has a detail, even without ``app.debug``.
    """

    def __init__(
        self, app: Flask, settings: Settings, engine: Engine, version: AppVersion, holes: AppHoles, *, explains: bool = False
    ) -> None:
        self.app = app
        self.settings = settings
        self.engine = engine
        self._version = version
        self._explains = explains
        self._kept = KeptValues()
        self._holes = holes
        self._bound_views: dict[CachedView, BoundView] = {}

    def respond(self, cached: CachedView, context: RequestContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
        """Answer a request for a cached view."""
        bound = self._bound_views.get(cached) or self._bind(cached)
        # plain_environ() written out, since every hit gets here.
        held, rule = context.request.__dict__["environ"], context.request.url_rule
        environ: dict[str, Any] = held._plain if isinstance(held, ObservedEnviron) else held
        endpoint = None if rule is None else rule.endpoint
        counters = bound.endpoints.get(endpoint) or self._new_endpoint(bound, endpoint)
        # A call by another cached view, a refresh and a warming are no visits: they are not counted.
        is_visit = ANSWERED not in environ and REFRESHING not in environ
        # The gateway must not store the same response a second time.
        environ[ANSWERED] = True
        if REPORT in environ:
            # Middleware may have copied the environ, but all copies share the report.
            environ[REPORT].has_cached = True
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._bypass(bound, context, args, kwargs, BypassReason.METHOD, counters.tally, is_visit)
        if (reason := self._why_not_for_us(bound, context, environ, args, kwargs)) is not None:
            return self._bypass(bound, context, args, kwargs, reason, counters.tally, is_visit)
        origin: PageOrigin | None
        if cached.calls_for_key:
            origin = self._with_key(bound, context, args, kwargs, counters)
        else:
            origin = PageOrigin(bound, context, args, kwargs, counters)
        if origin is None:
            return self._bypass(bound, context, args, kwargs, BypassReason.KEY, counters.tally, is_visit)
        if REFRESHING in environ:
            return self._in_background(cached, origin)
        if bound.explains:
            return self._explained(origin, is_visit)
        return self._answered(origin, self.engine.serve(origin), is_visit)

    def call_for_gateway(self, cached: CachedView, context: RequestContext, args: Any, kwargs: Any) -> Response:
        """Call a view whose pages the gateway stores. A page with holes is filled, and the next one is stored by the app."""
        return answer_for_gateway(self._bound_views.get(cached) or self._bind(cached), context, args, kwargs)

    def _bind(self, cached: CachedView) -> BoundView:
        bound = self._bound_views[cached] = BoundView.of(
            self.app, cached, self.engine, self.settings, self._version, self._kept, self._holes, explains=self._explains
        )
        return bound

    def _new_endpoint(self, bound: BoundView, endpoint: str | None) -> EndpointCounters:
        tally = self.engine.registry.tally("endpoint", endpoint or "")
        counters = bound.endpoints[endpoint] = EndpointCounters(f"{bound.cached.name} as {endpoint}", tally)
        return counters

    def response_is_finished(self, context: RequestContext, response: Response) -> None:
        """Remove the pages that this request has stored, if hooks have added a Content-Security-Policy with a nonce that they show.

        Called with the final response of each request. A response with filled holes is made private.
        """
        state = context.request.__dict__
        if state.pop(FILLED_HOLES, False):
            keep_private(response)
        # It is still there if its exception did not reach Flask.
        state.pop(HANDLED, None)
        # They refer to the request: the cycle of references would leave it to the garbage collector.
        state.pop(SERVED_WITHIN, None)
        filled = state.pop(FILLED, None)
        if filled is None:
            return
        # A hook may have encoded the body that is sent, but not the stored one.
        fields = [(name, value) for name, value in response.headers if name.lower() != "content-encoding"]
        for bound, entry in filled:
            if has_nonce_in_body(fields, entry.body):
                self._take_back(context, bound, entry)

    def _take_back(self, context: RequestContext, bound: BoundView, entry: Entry) -> None:
        refusal, name = Refusal(StoreRefusal.CSP_NONCE), bound.name_at(context.request.endpoint)
        bound.complaints.warn_once((name, refusal.log_key), "%s is not stored: %s", name, refusal.log_text)
        replay = context.request.environ.get(REPLAY)
        if replay is not None and replay.answer is not None and replay.answer.entry is entry:
            # The refresh has not stored it yet.
            replay.answer = replace(replay.answer, verdict=Verdict.UNSTORABLE, entry=None, reason=refusal)
        else:
            self.engine.answer_writer.remove_if_unlocked(entry.key)

    def keys_of(self, environ: Mapping[str, Any]) -> list[str]:
        """Return the keys under which the page of a request may be stored, from the views that this process has served.

        Views with a ``key`` callable are left out: their keys can only be computed for a request that arrives.
        """
        views = [bound for bound in list(self._bound_views.values()) if bound.cached.policy.key is None]
        return [
            page_key(counters.view, environ, bound.cached.policy.vary, bound.ignored, named=bound.cached.policy.named)
            for bound in views
            for counters in list(bound.endpoints.values())
        ]

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how a page is renewed from its entry's head alone, or why it can't be; ``None`` if no view made it."""
        if not is_key_of_page(entry.key):
            return None
        if not entry.recipe:
            return "its key= needs a visitor's request"
        try:
            recipe = PageRecipe.from_json(entry.recipe)
        except (LookupError, TypeError, ValueError):
            return "what it takes to make it again is not known"
        if recipe.why_incomplete:
            return recipe.why_incomplete
        endpoint = endpoint_of(entry) or ""
        tally, maker = (
            self.engine.registry.tally("endpoint", endpoint),
            AnyView(self.app, self._terms_at(endpoint), self.settings.refresh_remote_addr, self.settings.refresh_headers),
        )
        return Renewal(page_refresh(maker, entry.key, title_of(entry), recipe, None, tally), _status_of)

    def _terms_at(self, endpoint: str) -> ServeOptions:
        """Return the serving options of the view of an endpoint; those of the app, if the view is not known."""
        cached = cached_view(self.app.view_functions.get(endpoint))
        if cached is None:
            return self._version.serve_options()
        return (self._bound_views.get(cached) or self._bind(cached)).terms

    def _why_not_for_us(
        self, bound: BoundView, context: RequestContext, environ: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BypassReason | None:
        """Return why a request bypasses the cache; ``None`` if it does not."""
        request = context.request
        if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
            return BypassReason.BODY
        if environ.get("REMOTE_USER"):
            return BypassReason.REMOTE_USER
        if not isinstance(request, ObservedRequest):
            bound.complaints.warn_once(
                "request_class",
                "nothing is cached: %s after init_app, so that reads of the request can't be seen; %s",
                BypassReason.REQUEST_CLASS.text,
                BypassReason.REQUEST_CLASS.advice,
            )
            return BypassReason.REQUEST_CLASS
        if kwargs != request.view_args or (args and not (len(args) == 1 and isinstance(args[0], View))):
            bound.complaints.warn_once(
                ("arguments", bound.name_at(request.endpoint)),
                "%s bypasses the cache, since %s, which does not tell what it returns: %s",
                bound.name_at(request.endpoint),
                BypassReason.ARGUMENTS.text,
                BypassReason.ARGUMENTS.advice,
            )
            return BypassReason.ARGUMENTS
        unless = bound.cached.policy.unless
        if unless is None:
            return None
        name = bound.name_at(request.endpoint)
        said = ask(
            lambda: bool(unheard(unless)),
            True,
            bound.complaints,
            ("unless", name),
            "%s bypasses the cache, since its unless raised: %r",
            name,
        )
        return BypassReason.UNLESS if said else None

    def _with_key(
        self, bound: BoundView, context: RequestContext, args: Any, kwargs: Any, counters: EndpointCounters
    ) -> PageOrigin | None:
        """Return the origin of a request. Return ``None`` if the view's ``key`` or one of its normalisers raises."""
        name = bound.name_at(context.request.endpoint)
        return ask(
            lambda: unheard(lambda: PageOrigin(bound, context, args, kwargs, counters)),
            None,
            bound.complaints,
            ("key", name),
            "%s bypasses the cache, since its key can't be made: %s",
            name,
        )

    def _bypass(
        self, bound: BoundView, context: RequestContext, args: Any, kwargs: Any, reason: BypassReason, tally: Tally, is_visit: bool
    ) -> Response:
        warming = warming_of(request.environ)
        if warming is not None and not warming.is_met:
            warming.is_met = True
            warming.note_bypass(reason.text)
        try:
            count_hook_reads(context)
            response = self.engine.instrumentation.call_bypassed(
                tally, lambda: bound.call_view(args, kwargs), _has_failed, reason, is_visit=is_visit
            )
        except Exception:
            follow_error(bound, context)
            raise
        add_to_vary(response, {*fields_of_answer(bound, context), *([STAR] if reason in _UNNAMED else [])})
        if (asked := plain_environ(context.request).get(ASKED)) is not None:
            leave_conditions(asked, response, None, is_last=is_dispatched(context, bound.cached))
        field = forwarded_field(reason.forwarded, status=response.status_code)
        if bound.explains:
            field += key_and_detail("", reason.text)
            note_bypass(bound, context, reason)
        return add_fields(response, status_fields(CacheStatus.BYPASS, field, self.settings.status_headers))

    def _in_background(self, cached: CachedView, origin: PageOrigin) -> Response:
        """Answer a refresh or a warming: no visitor waits for it."""
        replay = origin.environ.get(REPLAY)
        if replay is not None and replay.is_for(cached):
            return self._replayed(replay, origin)
        warming = warming_of(origin.environ)
        if warming is not None and not warming.is_met:
            return self._warmed(warming, origin)
        # A page within the one that is renewed: if it stayed stale, the outer page would be stale too.
        origin.terms = origin.terms._replace(wait_for_fresh=True)
        return self._answered(origin, self.engine.serve(origin), False)

    def _replayed(self, replay: PageReplay, origin: PageOrigin) -> Response:
        """Answer the request of a refresh: the engine holds the lock, and stores the answer of the view."""
        if not origin.stands_for(replay.key):
            # The app computes another key for the replayed request than for the visitor's: nothing is stored.
            answer = origin.call_uncached()
        else:
            replay.is_met = True
            answer = replay.answer = origin.call(replay.start)
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[no-any-return]

    def _warmed(self, warming: Warming, origin: PageOrigin) -> Response:
        """Answer a request that fills the store. It waits even if a stale copy could be served, and its outcome is recorded."""
        warming.is_met = True
        origin.terms = warming.terms(origin.terms)
        served = self.engine.serve(origin)
        warming.note(served)
        return self._answered(origin, served, False)

    def _explained(self, origin: PageOrigin, is_visit: bool) -> Response:
        """Answer a request, and explain in ``Cache-Status`` how it was answered."""
        origin.relocate()
        met = self.engine.look_up(origin.key)
        served = self.engine.serve(origin)
        note_served(origin, _named(origin, served))
        more = debug_detail(origin, met, _named(origin, served), time.time(), pending=self.engine.runtime.is_pending(origin.key))
        return self._answered(origin, served, is_visit, more)

    def _answered(self, origin: PageOrigin, served: Served, is_visit: bool, more: str = "") -> Response:
        bound, entry = origin.bound, None if served.answer is not None else served.copy.entry  # type: ignore[union-attr]
        if entry is not None and entry.holes and not self._holes.know(served.copy):
            served, entry = origin.made_anew(), None
        if served.refresh:
            self._submit(origin)
        # Noted before the copy is sent, since the view that called this one may put it into its own page.
        state = origin.context.request.__dict__
        state[SERVED_WITHIN] = origin, served, state.get(SERVED_WITHIN)
        if served.answer is None:
            if is_visit:
                if served.took is None and served.status is CacheStatus.HIT:
                    # Not a method call: it would cost as much again as the count itself.
                    origin.tally.cells[PLAIN] += 1
                else:
                    why = served.why_no_hit(origin.terms)
                    origin.tally.served(served.status, served.took, waited=served.waited, why=why)
            if entry is not None and entry.holes:
                chosen = self.settings.status_headers
                response = respond_with_filled(self._holes, origin.context, origin.environ, served, chosen, more)
            else:
                response = respond_with_copy(self.app, served, self.settings.status_headers, more)
                if served.status is not CacheStatus.HIT:
                    tell_end_of_freshness(response, served, origin.terms)
                if ASKED in origin.environ:
                    self._leave_conditions(origin, served, response)
            # The key callable may have read other fields of this request than when the copy was made.
            return response if bound.cached.policy.key is None else add_to_vary(response, reads_of(origin.context).by_key)
        return self._respond_with_answer(origin, _named(origin, served), is_visit, more)

    def _respond_with_answer(self, origin: PageOrigin, served: Served, is_visit: bool, more: str) -> Response:
        """Answer with what the view has just returned or raised."""
        if is_visit:
            origin.tally.served(served.status, served.took, waited=served.waited, why=served.why_no_hit(origin.terms))
        answer, fields = served.answer, fields_of_answer(origin.bound, origin.context)
        if answer is not None and answer.error is not None:
            follow_error(origin.bound, origin.context)
            handled = origin.context.request.__dict__.get(HANDLED)
            if handled is not None and handled.page is not None:
                self._holes.fill(origin.context, handled.page)
            raise answer.error
        # The stored page may be fresh: then only the request kept it from being served (RFC 9211 section 2.2).
        forwarded = "request" if origin.terms.renews and served.status is CacheStatus.EXPIRED else ""
        response = respond_with_answer(self.app, served, self.settings.status_headers, more, forwarded)
        if holes_of(response):
            self._holes.fill(origin.context, response)
        elif ASKED in origin.environ:
            self._leave_conditions(origin, served, response)
        return add_to_vary(response, fields)

    def _leave_conditions(self, origin: PageOrigin, served: Served, response: Response) -> None:
        is_last = is_dispatched(origin.context, origin.bound.cached)
        leave_conditions(origin.environ[ASKED], response, stored_page(served), is_last=is_last)

    def _submit(self, origin: PageOrigin) -> None:
        job = origin.refresh()
        waiting = origin.environ.get(HANDOVER)
        if waiting is None:
            # The view was called without a WSGI server: no middleware of ours sees this response closed.
            self.engine.runtime.submit(job)
        else:
            waiting.append(job)


def _has_failed(response: Response) -> bool:
    return response.status_code in FAILURE_STATUSES


def _named(origin: PageOrigin, served: Served) -> Served:
    """Return how a request is answered, with the status to send: BYPASS if its call can't be shared and nothing is stored."""
    is_past = served.answer is not None and not origin.may_collapse and not served.stored
    return served._replace(status=CacheStatus.BYPASS) if is_past else served


def _status_of(answer: Answer) -> int | None:
    return answer.value.status_code if isinstance(answer.value, Response) else None
