"""A request for a cached view as an :class:`~.origin.Origin`."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...batches.warm_request import warming_of
from ...core.http.cache_control import Directives, response_directives
from ...core.http.fields import stored_fields
from ...core.http.freshness import forbids_stale
from ...core.http.storing import may_be_shared
from ...core.model.checks import tags as checked_tags
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING, WARMING
from ...core.model.inputs import NO_NAMES, RequestInputs
from ...core.model.keys import page_key
from ...core.model.policy import FAILURE_STATUSES, Policy, Windows
from ...core.model.purge_names import page_names, tag_name, tags_in
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.model.recipe import PageRecipe
from ...core.rules.cacheability import Cacheability, collecting
from ...core.rules.serving import Facts, Judgement, ServeOptions, Verdict, judge
from ...engine.origin import Answer, Origin, RefreshJob, Served, Start
from ...errors import ConfigError
from ...stats.tally import Tally
from ..flask_internals import RequestContext, handle_user_exception
from ..hooks import ask
from .bound_view import BoundView, EndpointCounters
from .refresh import page_refresh, visitor_fields
from .request_recorder import session_cookie
from .responses import body_size, freeze, frozen_failure
from .session_recorder import SessionReads
from .watch import (
    KEY_FIELDS,
    Covered,
    covered_by_key,
    names_beyond_key,
    read_beyond_names,
    reader_of,
    reads_of,
    watched,
)

_AUTHORIZATION = RequestInputs(headers=("authorization",))
#: On the request: the cached pages that were served within it, as (origin, served, the one before).
_SERVED = "_stalecache_served"
_NOTHING_IGNORED = NamePatterns(())


class PageOrigin(Origin):
    """One request for a cached view.

    :param plan: the view in this app.
    :param context: the request's context.
    :param args: what the view is called with.
    :param kwargs: likewise.
    :param place: the view's endpoint. Views that one function makes have one name, so it is in the key too.
    :ivar tally: where it is counted.
    """

    key: str
    tally: Tally
    terms: ServeOptions

    __slots__ = ("_covered_by_key", "args", "context", "environ", "key", "kwargs", "plan", "tally", "terms")

    def __init__(self, plan: BoundView, context: RequestContext, args: Any, kwargs: Any, place: EndpointCounters) -> None:
        self.plan = plan
        self.tally = place.tally
        self.context = context
        self.environ: dict[str, Any] = context.request.environ
        self.args = args
        self.kwargs = kwargs
        self._covered_by_key: Covered | None = None
        #: What is said of serving what is stored to this request.
        self.terms: ServeOptions = plan.terms_of(context) if plan.asks_each else plan.terms
        policy = plan.cached.policy
        custom = None if policy.key is None else self._custom_key(policy.key)
        self.key = page_key(place.view, self.environ, policy.vary, plan.ignored, custom)

    def _custom_key(self, key: Callable[[], object]) -> object:
        """Call the ``key`` callable; what is read meanwhile is covered by the key."""
        with covered_by_key(self.context) as (read, session):
            custom = key()
        if custom is None:
            raise ConfigError("a key callable returned None: return a string, a number or a tuple of those; see unless=")
        ignored = self.plan.cached.policy.ignore_session
        headers = self.plan.uncounted | read.headers.keys()
        self._covered_by_key = Covered(headers, frozenset(read.cookies), None if ignored else session)
        return custom

    @property
    def label(self) -> str:
        """What a log line calls it."""
        return f"{self.plan.cached.name} at {self.environ.get('PATH_INFO', '')}"

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's call at most."""
        return self.plan.lock_timeout

    @property
    def wait(self) -> float | None:
        """Seconds to wait for a renewal at most where a copy can stand in; who fills waits for as long as it takes."""
        return None if WARMING in self.environ else self.plan.cached.policy.wait

    @property
    def may_collapse(self) -> bool:
        """Whether others may wait for this request's call: not if it is unlikely to be stored."""
        return self.environ["REQUEST_METHOD"] == "GET" and "HTTP_AUTHORIZATION" not in self.environ

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry can't be served to this request: it carries an absent name, or Authorization."""
        if "HTTP_AUTHORIZATION" in self.environ and not entry.shared:
            return True
        return entry.absent.present_in(self.environ)

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these names."""
        return names.present_in(self.environ)

    def call_uncached(self) -> Answer:
        """Call the view as if it were not decorated."""
        try:
            response = self.plan.call_view(self.args, self.kwargs)
        except Exception as error:
            return Answer(Verdict.UNSTORABLE, error=error, failed=_verdict_of(error) is Verdict.FAILED)
        return Answer(Verdict.UNSTORABLE, value=response, failed=response.status_code in FAILURE_STATUSES)

    # -- calling the view ----------------------------------------------------------------------------------------

    def call(self, start: Start) -> Answer:
        """Call the view under watch and judge its answer."""
        answer = self._called(start)
        if (warming := warming_of(self.environ)) is not None:
            warming.note_answer(answer)
        return answer

    def _called(self, start: Start) -> Answer:
        covered = self._covered()
        with collecting(in_background=REFRESHING in self.environ) as word, watched(self.context, covered) as watch:
            response, error = self._run()
        self._take_over_names(word)
        names = names_beyond_key(self.context, covered, watch)
        carried = names.carried_part(self.environ)
        own = self._reads_beyond_names()
        anybodys = not carried and own is None
        if response is None:
            verdict = _verdict_of(error)
            if carried and verdict is Verdict.UNSTORABLE:
                verdict = Verdict.PERSONAL
            return Answer(verdict, error=error, carried=carried, anybodys=anybodys and not watch.refusal, absent=names)
        tags = self._tags()
        word.tag(tags or ())
        refusal = watch.refusal or _refusal_in_code(tags, word)
        # What is one visitor's own in a way that no name tells is so for all who come.
        judgement, entry = self._judge(response, start, word, own or refusal, names, NO_NAMES if own else carried)
        self._explain(judgement, carried)
        if _is_for_authorization(judgement):
            carried = carried | _AUTHORIZATION
        failed = judgement.verdict is Verdict.FAILED and not watch.refusal
        return Answer(
            judgement.verdict,
            response,
            entry=entry,
            carried=carried,
            anybodys=anybodys,
            shared=frozen_failure(response) if failed else None,
            absent=names,
            retry_after=self._pause(word, judgement.verdict) if word.in_background else None,
            reason=self._reason(judgement, carried) if self.plan.explains or word.in_background else judgement.reason,
        )

    def _pause(self, word: Cacheability, verdict: Verdict) -> float | None:
        """Return for how long it is not made again, since its refresh has tried to renew what it is made of."""
        settings, coded = self.plan.settings, self.plan.cached.policy.max_age
        pause = word.pause(time.time(), settings.refresh_backoff[0])
        if pause is None or verdict is not Verdict.STORABLE:
            return pause
        # What else is on it is renewed as if nothing were missing.
        return min(pause, max(settings.refresh_backoff[0], settings.max_age if coded is None else coded))

    def _run(self) -> tuple[Response | None, Exception | None]:
        try:
            return self.plan.call_view(self.args, self.kwargs), None
        except HTTPException as error:
            # abort() with a listed status: the app's own page for it is what is stored.
            return self._error_page(error) if error.code in self.plan.cached.policy.statuses else (None, error)
        except Exception as error:
            return None, error

    def _error_page(self, error: HTTPException) -> tuple[Response | None, Exception | None]:
        app = self.plan.app
        try:
            page = handle_user_exception(self.context, error)
            # make_response would take an exception for a WSGI app, and its body for a stream.
            return app.make_response(page.get_response() if isinstance(page, HTTPException) else page), None
        except Exception as raised:
            return None, raised

    def _reads_beyond_names(self) -> Refusal | None:
        ignored = self.plan.ignored if self.plan.cached.policy.key is None else _NOTHING_IGNORED
        return read_beyond_names(reads_of(self.context), self.environ.get("QUERY_STRING", ""), ignored)

    def remember(self, served: Served) -> None:
        """Remember that this page was served, for a view that may have it in its own."""
        state = self.context.request.__dict__
        state[_SERVED] = self, served, state.get(_SERVED)

    def _take_over_names(self, word: Cacheability) -> None:
        """Note names and tags of the pages that were served within this request: this one may be made of them."""
        log = reads_of(self.context)
        before = self.context.request.__dict__.get(_SERVED)
        while before is not None:
            origin, served, before = before
            names = origin.depends_on(served)
            log.cookies.update(dict.fromkeys(names.cookies, __name__))
            log.headers.update(dict.fromkeys(names.headers, __name__))
            if (entry := served.entry) is not None:
                word.tag(tags_in(entry.names))

    def depends_on(self, served: Served) -> RequestInputs:
        """Return the names that this page depends on, beside what is in every key."""
        covered = self._covered()
        names = RequestInputs(tuple(covered.cookies), tuple(covered.headers - KEY_FIELDS - self.plan.settings.ignored_headers))
        if covered.session:
            names |= RequestInputs(cookies=(session_cookie(self.context.app),))
        return names if served.entry is None else names | served.entry.absent

    def _covered(self) -> Covered:
        if self._covered_by_key is not None:
            return self._covered_by_key
        session = None if self.plan.cached.policy.ignore_session else SessionReads()
        return Covered(self.plan.uncounted, frozenset(), session)

    # -- judging its answer --------------------------------------------------------------------------------------

    def _judge(
        self,
        response: Response,
        start: Start,
        word: Cacheability,
        refusal: Refusal | None,
        names: RequestInputs,
        carried: RequestInputs,
    ) -> tuple[Judgement, Entry | None]:
        settings, policy, now = self.plan.settings, self.plan.cached.policy, time.time()
        directives = _directives(response)
        facts = Facts(
            status=response.status_code,
            headers=list(response.headers),
            size=body_size(response),
            directives=directives,
            in_key=self.plan.in_key,
            refusal=refusal,
            carried=carried,
            had_content=start.previous is not None and bool(start.previous.body),
            said_max_age=word.limit(now),
            stood_in=word.stood_in,
            has_better=_may_stand_in(start.previous, now),
        )
        judgement = judge(facts, policy, settings.windows, settings.max_entry_size, now)
        if judgement.verdict is Verdict.STORABLE:
            judgement = self._second_look(response, directives) or judgement
        if judgement.verdict is not Verdict.STORABLE:
            return judgement, None
        body = freeze(response)
        if body is None:
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.WRONG_LENGTH)), None
        purged_by = (*self._names(), *map(tag_name, word.tags))
        entry = self._entry(response, body, start, judgement.windows, directives, names, purged_by, now)
        return judgement, replace(entry, calls=tuple(word.calls), stood_in=word.stood_in)

    def _second_look(self, response: Response, directives: Directives) -> Judgement | None:
        """Return what keeps a storable answer from being stored after all: the request, or the developer's filter."""
        if (method := self.environ["REQUEST_METHOD"]) != "GET":
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.NOT_GET, method))
        if "HTTP_AUTHORIZATION" in self.environ and not may_be_shared(directives):
            return Judgement(Verdict.PERSONAL, Refusal(StoreRefusal.AUTHORIZATION))
        keep = self.plan.cached.policy.response_filter
        if keep is not None and not self._keeps(keep, response):
            return Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.RESPONSE_FILTER))
        return None

    def _keeps(self, keep: Callable[[Response], object], response: Response) -> bool:
        log, name = self.plan.complaints, self.plan.cached.name
        return ask(lambda: bool(keep(response)), False, log, ("filter", name), "the response_filter of %s raised: %r", name)

    def _tags(self) -> tuple[str, ...] | None:
        """Return the view's tags for these arguments; ``None`` if the developer's callable raises, or returns what is none."""
        given, name = self.plan.cached.policy.tags, self.plan.cached.name
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(**self.kwargs)),
            None,
            self.plan.complaints,
            ("tags", name),
            "%s is not stored, since it could not be purged by its tags: %s",
            name,
        )

    def _entry(
        self,
        response: Response,
        body: bytes,
        start: Start,
        windows: Windows,
        directives: Directives,
        names: RequestInputs,
        purged_by: tuple[str, ...],
        now: float,
    ) -> Entry:
        if response.status_code == 200 and "ETag" not in response.headers:
            response.set_etag(blake2b(body, digest_size=16).hexdigest())
        policy = self.plan.cached.policy
        return start.build_entry(
            self.plan.terms,
            key=self.key,
            names=purged_by,
            answered=now,
            windows=windows.shortened(policy.jitter * random.random()),
            never_stale=forbids_stale(directives),
            shared=may_be_shared(directives),
            absent=RequestInputs(names.cookies, names.headers),
            varied=_varied(policy, names),
            status=response.status_code,
            headers=stored_fields(response.headers),
            body=body,
            recipe={} if policy.key is not None else self._recipe().to_json(),
        )

    def _names(self) -> tuple[str, ...]:
        return page_names(str(self.context.request.endpoint), self.environ, self.plan.ignored)

    def _explain(self, judgement: Judgement, carried: RequestInputs) -> None:
        """Say once what keeps a page from being stored, if the developer can mend it."""
        complaints, label = self.plan.complaints, self.plan.cached.name
        refusal = judgement.reason
        if judgement.verdict is Verdict.UNSTORABLE and refusal is not None and refusal.reason.is_fixable:
            complaints.warn_once((label, refusal.log_key), "%s is not stored: %s", label, refusal.log_text)
        if judgement.verdict is not Verdict.PERSONAL:
            return
        for name in carried.headers:
            complaints.warn_once(
                (label, "header", name),
                "%s is not stored: the request field %s was read by %s and is not in the key; write vary=[%r], "
                "or name it in STALECACHE_IGNORED_HEADERS if the page does not depend on it",
                label, name, reader_of(self.context, "headers", name), name,
            )  # fmt: skip
        for name in carried.cookies:
            complaints.warn_once(
                (label, "cookie", name),
                "%s is live for who carries the cookie %s, which was read by %s; if the page does not depend on it, write "
                "ignore_session=True (for the session), or take the reading out of the view",
                label, name, reader_of(self.context, "cookies", name), level=logging.INFO,
            )  # fmt: skip

    def _reason(self, judgement: Judgement, carried: RequestInputs) -> Refusal | None:
        """Return why a page is not stored, and who read what is not in its key."""
        if judgement.verdict is not Verdict.PERSONAL or _is_for_authorization(judgement):
            return judgement.reason
        names = ("cookie", "cookies", carried.cookies), ("field", "headers", carried.headers)
        read = [f"the {word} {name} was read by {reader_of(self.context, kind, name)}" for word, kind, of in names for name in of]
        return Refusal(StoreRefusal.READ_BY, " and ".join(read))

    # -- refreshing ----------------------------------------------------------------------------------------------

    def _recipe(self) -> PageRecipe:
        return PageRecipe.from_environ(self.environ, self.plan.cached.policy.vary, self.plan.ignored)

    def refresh(self) -> RefreshJob:
        """Return the refresh of this page. With a ``key`` callable or ``ignore_session`` it carries its visitor's fields."""
        plan, policy = self.plan, self.plan.cached.policy
        if policy.key is None and not policy.ignore_session:
            return page_refresh(plan, self.key, self.label, self._recipe(), None, self.tally)
        # A key callable may look at anything in the query.
        ignored = plan.ignored if policy.key is None else _NOTHING_IGNORED
        recipe = PageRecipe.from_environ(self.environ, policy.vary, ignored)
        return page_refresh(plan, self.key, self.label, recipe, visitor_fields(self.environ), self.tally)


def _verdict_of(error: Exception | None) -> Verdict:
    """An exception is a failure, unless it is an HTTP answer such as 404."""
    status = None
    if isinstance(error, HTTPException):
        status = error.code if error.response is None else error.response.status_code
    return Verdict.FAILED if status is None or status in FAILURE_STATUSES else Verdict.UNSTORABLE


def _refusal_in_code(tags: tuple[str, ...] | None, word: Cacheability) -> Refusal | None:
    if tags is None:
        return Refusal(StoreRefusal.TAGS_UNKNOWN)
    return Refusal(StoreRefusal.NO_STORE, "the view") if word.forbidden else None


def _is_for_authorization(judgement: Judgement) -> bool:
    return judgement.reason is not None and judgement.reason.reason is StoreRefusal.AUTHORIZATION


def _directives(response: Response) -> Directives:
    """Return what the view said of storing. The bare ``no-cache`` of a file is Werkzeug's word to browsers, not the developer's."""
    if response.direct_passthrough and response.headers.getlist("Cache-Control") == ["no-cache"]:
        return Directives()
    return response_directives(response.headers)


def _may_stand_in(previous: Entry | None, now: float) -> bool:
    """Whether what is stored is better than an answer that was made with a fallback."""
    return previous is not None and not previous.stood_in and (previous.in_swr(now) or previous.in_sie(now))


def _varied(policy: Policy, names: RequestInputs) -> tuple[str, ...]:
    """Return the fields to add to Vary: what the key has beyond the URL, and what the absent names are."""
    fields = [*policy.vary, *names.headers, *(["cookie"] if names.cookies else [])]
    return tuple(field.title() for field in dict.fromkeys(fields))
