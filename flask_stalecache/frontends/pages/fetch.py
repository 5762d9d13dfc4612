"""Calls a cached view under watch, and judges whether its response is stored.

The order of the reasons not to store a response; the first one counts:

==============================================  ===================================================================
a failure, a fallback, names in the request     :func:`~flask_stalecache.core.rules.storability.judge`
a hole                                          it was a plain call, since marks were altered
a body                                          sent by the client, though no field announces it
all headers or cookies, an ignored parameter    read by the view: no name distinguishes visitors
session, ``after_this_request``                 changed or used by the view (:mod:`.watch`)
tags that raise, ``no_store()``                 the developer's code
Cache-Control, status, Set-Cookie, Vary, size   :func:`~flask_stalecache.core.rules.storability.judge` again
method, Authorization, ``response_filter``      checked only for a response that would be stored
length, a random value, too many variants       checked last, once the body is frozen
==============================================  ===================================================================
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...core.addressing.purge_names import page_names, tag_name, tags_in
from ...core.http.accept import ACCEPT_FIELDS, COOKIE, names_of
from ...core.http.dates import pause_asked
from ...core.http.fields import stored_fields
from ...core.http.freshness import S_MAXAGE, forbids_stale, switches_off
from ...core.http.storing import may_be_shared
from ...core.http.tracing import TRACING, shown_fields
from ...core.http.unset import SET_COOKIE, cookie_refusal, without_unset
from ...core.model.checks import tags as checked_tags
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING, as_arrived
from ...core.model.inputs import AUTHORIZATION, NO_NAMES, RequestInputs
from ...core.model.policy import TOO_MANY, Windows
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import Cacheability, collecting, current
from ...core.rules.named import recipe_of
from ...core.rules.storability import Facts, Judgement, Verdict, failures_now, judge
from ...core.rules.variant_index import Fields, index_with
from ...core.rules.variants import StoragePlace
from ...engine.origin import Answer, Served, Start
from ..app_code.hooks import ask
from ..flask_internals.contexts import RequestContext
from ..flask_internals.readers import packages_of_view
from ..flask_internals.sessions import session_cookie
from ..request.request_body import has_unannounced_body, take_body_away
from ..request.request_hints import pass_on
from ..request.request_origin import shows_request
from ..request.request_values import values_kept_for
from ..response.holes import Making
from .advice import detailed_reason, is_for_authorization, log_advice
from .bound_view import BoundView
from .filling_holes.filling import holes_of
from .made import Filling, Made, Seen, is_better_than_fallback, refusal_in_code, view_directives
from .responses import body_size, freeze, frozen_failure
from .variants import PageVariants, fields_read, inherit_dependence, told_early
from .view_call import ViewCall
from .watching.request_recorder import arrived_environ, plain_environ
from .watching.watch import Covered, Watch, add_inherited, holds_of, names_beyond_key, read_beyond_names, reads_of, watched

#: On the request: the cached pages that were served within it, as a chain of (page, served, the link before).
SERVED_WITHIN = "_stalecache_served"
#: On the request: the pages that were made for the store within it, as pairs of view and entry, until the response is finished.
FILLED = "_stalecache_filled"
NOTHING_IGNORED = NamePatterns(())
NO_FIELDS: frozenset[str] = frozenset()
_PERHAPS_RANDOM = frozenset({StoreRefusal.SHOWS_RANDOM, StoreRefusal.SHOWS_MAYBE_RANDOM})


class InnerPage(Protocol):
    """A cached page that was served within a request for another one."""

    @property
    def bound(self) -> BoundView:
        """Its view."""

    @property
    def fields(self) -> Fields:
        """The selectors in its key."""

    def depends_on(self, served: Served) -> RequestInputs:
        """Return the names that the page depends on."""


@dataclass(frozen=True, slots=True)
class PageFetch:
    """One call of a cached view.

    :param bound: the view in this app.
    :param context: the request's context.
    :param key: the key of the page, or of the variant that the request looks for.
    :param variants: the variants of the page.
    :param args: the view's arguments.
    :param kwargs: likewise.
    :param covered: the parts of the request that the key covers: reading them does not count.
    """

    bound: BoundView
    context: RequestContext
    key: str
    variants: PageVariants
    args: Any
    kwargs: Any
    covered: Covered

    @property
    def _name(self) -> str:
        return self.bound.name_at(self.context.request.endpoint)

    def answer(self, start: Start) -> Answer:
        """Call the view under watch and judge its response."""
        environ = self.context.request.environ
        if not has_unannounced_body(environ):
            take_body_away(environ)
        in_background = REFRESHING in environ
        before, view = current(), ViewCall(self.bound, self.context, self.key, self.args, self.kwargs)
        with collecting(in_background=in_background) as word:
            pass_on(self.context.request.__dict__, before, word)
            with watched(self.context, self.covered) as watch, told_early(self.context, self.covered, start):
                response, error, page = view.answer()
            # Before the names are collected: those of inner pages count as read by this view.
            self._inherit_from_inner_pages(word)
            # Before the handlers read anything: requests that are given the exception call their own handlers.
            failure = None if error is None else self._failure(error, self._seen(None, watch, in_background), page)
            if error is not None:
                response, page = view.error_page(error, watch, page, self.covered)
        if response is None:
            return failure or Answer(Verdict.FAILED)
        tags = self._tags()
        word.tag(tags or ())
        seen = self._seen(response, watch, in_background)
        refusal = page.refusal() or seen.unnamed or seen.refusal or refusal_in_code(tags, word)
        fields = self._fields_to_store(response)
        made = Made(response, fields, view_directives(response), start, word, seen, refusal, time.time(), holes_of(response))
        judgement, filling = self._judge(made)
        # The app's own page for a listed abort() may have another status: it is judged like a response of the view.
        is_listed = isinstance(error, HTTPException) and error.code in self.bound.cached.policy.statuses
        if failure is None or is_listed or judgement.verdict is Verdict.STORABLE:
            return self._answer_of_response(made, judgement, filling)
        return self._answer_of_error(made, failure, judgement)

    def _seen(self, response: Response | None, watch: Watch, in_background: bool) -> Seen:
        names = names_beyond_key(self.context, self.covered, watch).without_fields(ACCEPT_FIELDS) | self._traced(response)
        fields = fields_read(self.context, self.covered, () if response is None else response.headers)
        carried = names.carried_part(arrived_environ(self.context.request), holds_of(self.context))
        if in_background:
            # The operator's own fields say nothing about a visitor.
            carried = carried.without_fields(self.bound.settings.refresh_headers)
        return Seen(names, carried, self._reads_beyond_names(), watch.refusal, fields, self.variants.tell(fields))

    def _failure(self, error: Exception, seen: Seen, page: Making) -> Answer:
        is_told = shows_request(self.context.request.environ, str(error).encode(errors="replace"))
        is_anybodys = seen.is_anybodys and seen.is_aimed and not (seen.refusal or is_told or page.has_holes)
        return Answer(Verdict.FAILED, error=error, carried=seen.carried, anybodys=is_anybodys, absent=seen.names)

    def _answer_of_error(self, made: Made, failure: Answer, judgement: Judgement) -> Answer:
        """Return the answer for an exception whose page is not stored. The exception goes on to Flask, which sends that page."""
        seen, is_too_much = made.seen, made.response.status_code == TOO_MANY
        pause = self._retry_after(made.word, judgement.verdict, made.response)
        if judgement.verdict is Verdict.FAILED:
            # A 429 is about how often this visitor sends requests: others must not get it.
            return replace(failure, anybodys=failure.anybodys and not is_too_much, retry_after=pause)
        is_anybodys = seen.is_anybodys and not seen.refusal
        return replace(
            failure,
            verdict=judgement.verdict,
            carried=seen.carried,
            anybodys=is_anybodys,
            absent=seen.names,
            retry_after=pause,
            reason=judgement.reason,
        )

    def _answer_of_response(self, made: Made, judgement: Judgement, filling: Filling | None) -> Answer:
        seen, response, in_background = made.seen, made.response, made.word.in_background
        carried, is_anybodys = seen.carried, seen.is_anybodys and (seen.is_aimed or judgement.verdict is not Verdict.FAILED)
        counters = self.bound.endpoints.get(self.context.request.endpoint)
        is_never_hit = counters is not None and counters.tally.is_never_hit
        log_advice(self.bound.complaints, self._name, self.context, judgement, carried, is_never_hit=is_never_hit)
        if is_for_authorization(judgement):
            # It is added as a name that the request carries, so that requests with it don't wait for each other.
            carried = carried | AUTHORIZATION
        if judgement.reason is not None and judgement.reason.reason in _PERHAPS_RANDOM:
            # The stored page is kept: it does not show this value.
            is_anybodys = False
        has_failed = judgement.verdict is Verdict.FAILED and not seen.refusal
        if response.status_code == TOO_MANY:
            # It is about how often this visitor sends requests.
            has_failed = is_anybodys = False
        if made.holes or made.is_altered:
            # A request that waited would be given it with its holes unfilled.
            has_failed = is_anybodys = False
        explains = self.bound.explains or in_background
        return Answer(
            judgement.verdict,
            response,
            entry=None if filling is None else filling.entry,
            beside=None if filling is None else filling.beside,
            carried=carried,
            anybodys=is_anybodys,
            shared=self._shareable_failure(response) if has_failed else None,
            absent=seen.names,
            retry_after=self._retry_after(made.word, judgement.verdict, response),
            reason=detailed_reason(self.context, judgement, carried) if explains else judgement.reason,
        )

    def _shareable_failure(self, response: Response) -> tuple[tuple[bytes, ...], str, list[tuple[str, str]]] | None:
        """Return a failure in the form for requests that waited; ``None`` if it may be one visitor's own."""
        frozen = frozen_failure(response, self.context.request.environ)
        if frozen is None:
            return None
        body, kept = b"".join(frozen[0]), values_kept_for(self.context.request)
        return frozen if self.bound.kept.refusal(self.key, frozen[2], body, kept, lambda: None) is None else None

    # -- calling the view ----------------------------------------------------------------------------------------------

    def _inherit_from_inner_pages(self, word: Cacheability) -> None:
        """Take over names and tags of the pages that were served within this request: this one may contain them."""
        for page, served in self._inner_pages():
            add_inherited(self.context, page.depends_on(served), page.bound.cached.name)
            inherit_dependence(self.context, page.fields, page.bound.cached.name)
            if (entry := served.entry) is not None:
                word.tag(tags_in(entry.names))

    def _inner_pages(self) -> Iterator[tuple[InnerPage, Served]]:
        before = self.context.request.__dict__.get(SERVED_WITHIN)
        while before is not None:
            page, served, before = before
            yield page, served

    def _traced(self, response: Response | None) -> RequestInputs:
        """Return the tracing fields that the view has read, or whose values its response shows."""
        request, app = self.context.request, self.bound.app
        names = reads_of(self.context).traced_by(packages_of_view(app, request.endpoint))
        # Not is_streamed, since some servers give their file wrapper a length.
        if response is not None and response.is_sequence:
            names.update(shown_fields(plain_environ(request), TRACING, response.headers, response.get_data()))
        return RequestInputs(headers=tuple(sorted(names - self.bound.in_key)))

    def _reads_beyond_names(self) -> Refusal | None:
        if has_unannounced_body(self.context.request.environ):
            return Refusal(StoreRefusal.REQUEST_BODY)
        ignored = self.bound.ignored if self.bound.cached.policy.key is None else NOTHING_IGNORED
        return read_beyond_names(reads_of(self.context), plain_environ(self.context.request), ignored)

    def _failures(self, start: Start) -> frozenset[int]:
        """Return the statuses that mean that the view has failed."""
        return failures_now(self.bound.settings.failure_statuses, has_copy=start.previous is not None)

    def _retry_after(self, word: Cacheability, verdict: Verdict, response: Response) -> float | None:
        """Return the seconds until the next call: as the answer asks, or until missing values can be renewed."""
        asked = pause_asked(response.status_code, response.headers, time.time())
        return asked if asked is not None or not word.in_background else self._pause(word, verdict)

    def _pause(self, word: Cacheability, verdict: Verdict) -> float | None:
        """Return the seconds until the next refresh of a page made from stale or missing values: this one tried to renew them."""
        settings, coded = self.bound.settings, self.bound.cached.policy.max_age
        pause = word.pause(time.time(), settings.refresh_backoff[0])
        if pause is None or verdict is not Verdict.STORABLE:
            return pause
        # Not later than the page would be refreshed if nothing were missing.
        return min(pause, max(settings.refresh_backoff[0], settings.max_age if coded is None else coded))

    # -- judging its response ------------------------------------------------------------------------------------------

    def _judge(self, made: Made) -> tuple[Judgement, Filling | None]:
        settings, policy = self.bound.settings, self.bound.cached.policy
        judgement = judge(self._facts(made), policy, settings.windows, settings.max_entry_size, made.now)
        if judgement.reason is not None and judgement.reason.reason is StoreRefusal.SETS_COOKIE:
            judgement = judgement._replace(reason=self._cookie_refusal(made.response) or judgement.reason)
        if judgement.verdict is Verdict.STORABLE:
            judgement = self._last_objection(made) or judgement
        if judgement.verdict is not Verdict.STORABLE:
            return judgement, None
        body = freeze(made.response)
        if body is None:
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.WRONG_LENGTH)), None
        random = self._made_for_one(made, body)
        if random is not None:
            return Judgement(Verdict.UNSTORABLE, random), None
        place = self.variants.place(self.context, made.seen.fields)
        if isinstance(place, Refusal):
            return Judgement(Verdict.UNSTORABLE, place), None
        if switches_off(made.directives, judgement.windows, settings.windows):
            self.bound.complaints.warn_once(("s-maxage", self._name), S_MAXAGE, self._name)
        for name in policy.unset:
            # The visitor whose request has made the page gets the same fields as all others.
            made.response.headers.remove(name)
        entry = self._entry(made, body, judgement.windows, place)
        self.context.request.__dict__.setdefault(FILLED, []).append((self.bound, entry))
        index = None if place.listing is None else index_with(place.listing, entry, self.variants.url_key)
        return judgement, Filling(entry, index)

    def _facts(self, made: Made) -> Facts:
        """Return the facts about a response that the rules of storing need."""
        previous = made.start.previous
        return Facts(
            status=made.response.status_code,
            headers=made.fields,
            size=body_size(made.response),
            directives=made.directives,
            # If cookies are named, Vary may contain Cookie: the other cookies that a page depends on are recorded by name.
            in_key=self.bound.in_key | ACCEPT_FIELDS | ({COOKIE} if self.bound.cached.policy.named else NO_FIELDS),
            refusal=made.refusal,
            # If it is personal for a reason without a name, it is so for every request, and its names don't matter.
            carried=NO_NAMES if made.seen.unnamed or made.is_altered else made.seen.carried,
            had_content=previous is not None and bool(previous.body),
            said_max_age=made.word.limit(made.now),
            stood_in=made.word.stood_in,
            has_better=is_better_than_fallback(previous, made.now),
            failures=self._failures(made.start),
        )

    def _fields_to_store(self, response: Response) -> list[tuple[str, str]]:
        unset = self.bound.cached.policy.unset
        fields = list(response.headers)
        return without_unset(fields, unset, self._cookie_refusal(response)) if unset else fields

    def _cookie_refusal(self, response: Response) -> Refusal | None:
        """Return why ``unset`` does not remove the cookies of a response; ``None`` if it does, or does not name Set-Cookie."""
        if SET_COOKIE not in self.bound.cached.policy.unset:
            return None
        return cookie_refusal(list(response.headers), {session_cookie(self.bound.app)})

    def _made_for_one(self, made: Made, body: bytes) -> Refusal | None:
        """Return the refusal if the body shows a value that was made for this response alone; ``None`` if it does not."""
        previous, kept = made.start.previous, values_kept_for(self.context.request)
        stored = None if previous is None else previous.body
        return self.bound.kept.refusal(self.key, list(made.response.headers), body, kept, lambda: stored)

    def _last_objection(self, made: Made) -> Judgement | None:
        """Return what keeps a storable response from being stored after all: the request, or the developer's filter."""
        environ = self.context.request.environ
        if (method := environ["REQUEST_METHOD"]) != "GET":
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.NOT_GET, method))
        if "HTTP_AUTHORIZATION" in environ and not may_be_shared(made.directives):
            return Judgement(Verdict.PERSONAL, Refusal(StoreRefusal.AUTHORIZATION))
        keep = self.bound.cached.policy.response_filter
        if keep is not None and not self._keeps(keep, made.response):
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.RESPONSE_FILTER))
        return None

    def _keeps(self, keep: Callable[[Response], object], response: Response) -> bool:
        log, name = self.bound.complaints, self._name
        return ask(lambda: bool(keep(response)), False, log, ("filter", name), "the response_filter of %s raised: %r", name)

    def _tags(self) -> tuple[str, ...] | None:
        """Return the view's tags for these arguments; ``None`` if the developer's callable raises or returns no tags."""
        given, name = self.bound.cached.policy.tags, self._name
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(**self.kwargs)),
            None,
            self.bound.complaints,
            ("tags", name),
            "%s is not stored, since it could not be purged by its tags: %s",
            name,
        )

    def _entry(self, made: Made, body: bytes, windows: Windows, place: StoragePlace) -> Entry:
        bound, policy, response, names = self.bound, self.bound.cached.policy, made.response, made.seen.names
        # Without a validator, a browser's conditional request for the copy could not be answered with 304.
        if response.status_code == 200 and not made.holes and "ETag" not in response.headers and "etag" not in policy.unset:
            response.set_etag(blake2b(body, digest_size=16).hexdigest())
        request = self.context.request
        environ, fields = arrived_environ(request), names_of(place.fields)
        return made.start.build_entry(
            bound.terms,
            key=place.key,
            names=(*page_names(str(request.endpoint), environ, bound.ignored, as_arrived(environ)), *map(tag_name, made.word.tags)),
            answered=made.now,
            windows=windows.shortened(policy.jitter * random.random()),
            never_stale=forbids_stale(made.directives, windows),
            shared=may_be_shared(made.directives),
            absent=names,
            varied=_varied((*policy.vary, *fields), names),
            status=response.status_code,
            headers=stored_fields(response.headers),
            body=body,
            holes=made.holes,
            recipe={}
            if policy.key is not None
            else recipe_of(environ, policy.vary, place.fields, self.variants.values, bound.ignored).to_json(),
            calls=tuple(made.word.calls),
            stood_in=made.word.stood_in,
        )


def _varied(in_key: Iterable[str], names: RequestInputs) -> tuple[str, ...]:
    """Return the fields to add to Vary: those in the key beyond the URL, and those of the absent names."""
    fields = [*in_key, *names.headers, *(["cookie"] if names.cookies or names.session else [])]
    return tuple(field.title() for field in dict.fromkeys(fields))
