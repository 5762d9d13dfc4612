"""A request at the gateway as an :class:`~flask_stalecache.engine.origin.Origin`, and its refresh."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...batches.warm_request import Warming, warming_of
from ...core.addressing.keys import page_key
from ...core.addressing.recipe import PageRecipe
from ...core.http.accept import in_order
from ...core.http.fields import lines_of
from ...core.model.entry import Entry
from ...core.model.environ import CONVERTED, REFRESHING, WARMING
from ...core.model.inputs import RequestInputs
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.model.titles import endpoint_of
from ...core.packets.refresh_data import OriginKind
from ...core.responses.validators import CONDITIONS
from ...core.rules.named import recipe_of
from ...core.rules.prefer_stale import is_set
from ...core.rules.serving import ServeOptions
from ...core.rules.shared_cache import directives_of, honored
from ...core.rules.status import CacheStatus
from ...core.rules.storability import Verdict
from ...core.rules.variant_index import Fields, is_variant_of
from ...core.rules.variants import lookup
from ...engine.origin import Answer, RefreshJob, Served, Start
from ...engine.standing import Standing
from ...errors import StaleCacheError
from ...stats.tally import Tally
from ...stores.base import Copy
from ..request.request_origin import RequestOrigin, share_alike
from ..response.debug_detail import debug_detail
from ..setup.probe import Noted, probe_of
from .backend import Backend, Observation
from .converted_head import as_sent
from .fetch import NOTHING_SAID, AppFetch
from .rules import Rule, Rules

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


#: The key of a permanent session, whose end each request puts off.
PERMANENT = RequestInputs(session=("_permanent",))


class GatewayOrigin(RequestOrigin):
    """One request that may be answered from the store.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param environ: the request.
    :param start_response: the server's.
    :ivar url_key: the key of the URL, without variants.
    :ivar located: the place of the response.
    :ivar fetch: the call of the app, if there was one.
    :ivar said: the client's Cache-Control, if it is obeyed.
    :ivar met: the copy that was found when the request came; recorded only with ``app.debug``.
    """

    key: str
    terms: ServeOptions

    __slots__ = (
        "_known",
        "backend",
        "environ",
        "fetch",
        "key",
        "located",
        "met",
        "named",
        "rule",
        "said",
        "start_response",
        "terms",
        "url_key",
    )

    def __init__(self, backend: Backend, rule: Rule, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.backend = backend
        self.rule = rule
        self.environ = environ
        self.start_response = start_response
        policy = rule.policy
        #: The request's cookies and session values that its rule names.
        self.named = backend.named(rule, environ)
        self.url_key = page_key("gateway", environ, policy.vary, rule.ignored, named=policy.named)
        self.located = backend.locate(self.url_key, environ, rule, self.named)
        self.key = self.located.key
        self.fetch: AppFetch | None = None
        self.met: Copy | None = None
        #: Whether the answers of its endpoint may be stored; ``None`` before the first look-up.
        self._known: bool | None = None
        self.terms: ServeOptions = rule.terms
        if backend.asked_by and rule.policy.prefer_stale is None and is_set(backend.asked_by, environ):
            self.terms = self.terms._replace(prefer_stale=backend.preferred)
        self.said = directives_of(environ) if backend.honors else None
        if self.said is not None:
            # The engine honors stale-if-error only if the call fails (RFC 5861 section 4), the other directives before it.
            terms = honored(self.terms, self.said, backend.engine.look_up(self.key).entry, time.time())
            self.terms = terms._replace(if_error=self.said.stale_if_error or 0.0)

    @property
    def may_take_short_way(self) -> bool:
        """Whether later hits may take the short way: no part of the rule and no directive has to be evaluated for each request."""
        policy, environ = self.rule.policy, self.environ
        # unless, renew, vary and Cache-Control would have to be evaluated for each hit. Without Host, the key has the name of the
        # server, which the short way does not remember.
        is_plain = policy.unless is None and policy.renew is None and not policy.vary and not self.backend.honors
        # The short way distinguishes variants by the fields as received, not by session values or results of normalisers.
        is_plain = is_plain and not policy.session and not any((policy.cookies or {}).values())
        return is_plain and environ["REQUEST_METHOD"] == "GET" and "HTTP_HOST" in environ

    def served_alike_until(self, served: Served, now: float) -> tuple[float, Standing | None]:
        """Return until when requests like this one get the same stored response, and the standing decision if a refresh is due.

        :param served: how this request is answered.
        :param now: seconds since the epoch; returned if the next request needs a decision of its own.
        """
        copy = served.copy
        assert copy is not None
        assert copy.entry is not None
        windows, standing = copy.entry.windows, copy.standing
        until = now + windows.max_age - copy.entry.age(now) - min(self.terms.refresh_ahead, windows.max_age / 2)
        if served.status is CacheStatus.HIT and until > now:
            return until, None
        if standing is None or served.collapsed or served.status is not standing.status or not standing.holds(now, self.terms):
            return now, None
        # After stale-while-revalidate the answer depends on the client's preference, which the short way does not read.
        is_asked = self.backend.asked_by and self.rule.policy.prefer_stale is None
        return (now if is_asked and not copy.entry.in_swr(now) else standing.until), standing

    @property
    def label(self) -> str:
        """The name of the response in the log."""
        return f"the page at {self.environ.get('PATH_INFO', '')}"

    @property
    def tally(self) -> Tally:
        """The counters of the endpoint that answered; before the call, those of the endpoint of the stored response."""
        if self.fetch is not None:
            # The app may have answered with another endpoint than the stored response came from.
            return self.fetch.tally
        return self.backend.tally_of(self.backend.engine.look_up(self.key).entry, self.rule.pattern)

    def count_when_complete(self, answer: Answer) -> None:
        """If the body is still to come, have the reason for no hit counted once it is complete."""
        if answer.later is not None and self.fetch is not None:
            self.fetch.counts = self.tally

    @property
    def is_visit(self) -> bool:
        """Whether it is counted as a visit: not if it refreshes or warms."""
        return REFRESHING not in self.environ

    @property
    def lock_timeout(self) -> float:
        """The longest time in seconds to wait for another request's call."""
        given: float | None = self.rule.policy.lock_timeout
        return self.backend.lock_timeout if given is None else given

    @property
    def wait(self) -> float | None:
        """The longest time in seconds to wait for a refresh if a stored response can be served; no limit to warm or to renew."""
        return None if self.terms.renews or WARMING in self.environ else self.rule.policy.wait

    @property
    def may_collapse(self) -> bool:
        """Whether other requests may wait for this one's call: not if its answer is unlikely to be stored."""
        wants_none = self.said is not None and self.said.no_store
        return super().may_collapse and not wants_none and self._may_be_stored() and self.located.has_room

    def _may_be_stored(self) -> bool:
        """Whether the answer may be stored and served to the waiters, as far as is known before the call."""
        entry = self.backend.engine.look_up(self.key).entry
        if entry is not None:
            # If each request needs a confirmation by the app, waiting for another request's call would save nothing.
            return not entry.needs_confirming
        if self._known is None:
            self._known = self.backend.endpoints.may_store(self.environ)
        return self._known

    def share_of(self, failure: Answer, *, again: bool) -> Answer | None:
        """Return the form in which this request may share the failure of another one: see :mod:`.failures`."""
        return share_alike(failure, self.environ, super().share_of(failure, again=again), again=again)

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry must not be served to this request, for instance since a hit would not prolong its session."""
        return super().is_barred_from(entry) or self._is_to_be_prolonged(entry)

    def barred_by(self, entry: Entry) -> RequestInputs:
        """Return the names that bar the request from an entry: carried absent names, Authorization, or keys of its session."""
        carried = self.carried_part(entry.absent)
        if carried or "HTTP_AUTHORIZATION" in self.environ or not (entry.absent.session or self.rule.policy.session):
            return carried or super().barred_by(entry)
        # A session that is kept on a server may have lost these keys by now, such as a message that was shown.
        return PERMANENT if self._is_to_be_prolonged(entry) else RequestInputs(session=entry.absent.session)

    def _is_to_be_prolonged(self, entry: Entry) -> bool:
        keys = entry.absent.session
        return bool(keys or self.rule.policy.session) and self.backend.sessions.bar(self.environ, keys)

    def holds(self, keys: tuple[str, ...]) -> bool:
        """Whether the session of the request has one of these keys."""
        return self.backend.sessions.hold(self.environ, keys)

    def key_by(self, fields: Fields) -> str | None:
        """Return the key of the first answer to requests like this one, and record its selectors for other requests."""
        get = lookup(self.environ, self.named.values)
        return self.backend.engine.hint(self.url_key, in_order((*self.rule.named, *fields)), get)

    def relocate(self) -> bool:
        """Look up the variant again, since another request may have given the URL variants. Return whether the key has changed."""
        before = self.key
        self.located = self.backend.locate(self.url_key, self.environ, self.rule, self.named)
        self.key = self.located.key
        return self.key != before

    def _new_fetch(self, *, fills: bool) -> AppFetch:
        # A request may need a second call, for example if the file of its stored response has gone.
        self.close()
        # If no answer will be stored, the app would make a whole response to a HEAD for nothing.
        environ = self.environ if fills else as_sent(self.environ)
        self.fetch = AppFetch(self.backend, self.rule, environ, self.url_key, self.start_response, self.named)
        return self.fetch

    @property
    def min_uses(self) -> int:
        """The number of requests from which on the answer is stored. A warming request has it stored at once."""
        return 1 if WARMING in self.environ else self.rule.policy.min_uses

    def call_uncached(self) -> Answer:
        """Call the app as if there were no gateway."""
        return self._new_fetch(fills=False).call_uncached()

    def call(self, start: Start) -> Answer:
        """Call the app and judge its answer."""
        if self._known is False:
            start = start._replace(is_marked=True)
        fetch = self._new_fetch(fills=not start.is_marked)
        answer = fetch.run(start, self.said or NOTHING_SAID, confirms=not self.terms.renews)
        if answer.later is not None and CONVERTED in self.environ:
            answer = self._read_for_nobody(fetch)
        if (warming := warming_of(self.environ)) is not None:
            warming.note_answer(answer)
        return answer

    def _read_for_nobody(self, fetch: AppFetch) -> Answer:
        """Read the body of a HEAD that was converted to a GET, to store it. The client waits, so the time is limited."""
        try:
            answer = _read_to_end(fetch, time.monotonic() + self.lock_timeout)
        except Exception as error:
            answer = Answer(Verdict.FAILED, error=error)
        return answer or Answer(Verdict.UNSTORABLE, fetch.call, anybodys=False, reason=Refusal(StoreRefusal.STILL_TO_COME))

    def tell(self, warming: Warming, served: Served) -> None:
        """Report the outcome to the batch that warms, unless a view with ``cached()`` has done so."""
        if self.fetch is not None and self.fetch.is_ours:
            return
        warming.note(served)
        if served.answer is not None and served.answer.later is not None:
            # The batch reads the body to its end, and then calls this.
            warming.later = self._is_stored

    def _is_stored(self) -> bool:
        """Whether the app's response was stored, now that its body is complete."""
        assert self.fetch is not None
        # The response may have been stored as the first variant of its URL: then the key has changed.
        self.relocate()
        entry = self.backend.engine.look_up(self.key).entry
        return entry is not None and entry.serial == self.fetch.serial

    def close(self) -> None:
        """Close the app's response, if there is one."""
        if self.fetch is not None:
            self.fetch.call.close()

    def break_off(self) -> None:
        """Release the requests that wait for the app's response: it will not be completed."""
        if self.fetch is not None:
            self.fetch.break_off()

    @property
    def asks_for_less(self) -> bool:
        """Whether the client may not want the whole response: it sends conditions, a range, or a HEAD."""
        return any(name in self.environ for name in (*CONDITIONS, CONVERTED))

    @property
    def app_status(self) -> int:
        """The status of the app's response."""
        return 0 if self.fetch is None else self.fetch.call.code

    def cookies_set(self, answer: Answer) -> list[str]:
        """Return the cookies that the app's answer sets for the client."""
        return [] if self.fetch is None else lines_of(self.fetch.fields_for(answer), "set-cookie")

    @property
    def reason(self) -> str:
        """The value of ``fwd`` (RFC 9211 section 2.2), if the status does not determine it; else ""."""
        if self.terms.reload:
            return "request"
        is_variant = self.located.listing.sets or self.located.fields != self.rule.named
        return "vary-miss" if is_variant and self.located.fields and self.fetch is not None and self.fetch.finds_nothing else ""

    def debug_detail(self, served: Served) -> str:
        """Return the debug detail of ``Cache-Status``; "" without ``app.debug``."""
        if self.met is None:
            return ""
        self.note_probe(served)
        pending = self.backend.engine.runtime.is_pending(self.key)
        return debug_detail(self, self.met, served, time.time(), pending=pending)

    def note_probe(self, served: Served) -> None:
        """Note how the request is answered, if it has a probe."""
        if (probe := probe_of(self.environ)) is None:
            return
        fetch = self.fetch
        seen = Observation() if fetch is None else fetch.observe()
        endpoint = seen.endpoint or (None if served.entry is None else endpoint_of(served.entry))
        probe.note(
            Noted(
                self.backend.front_end(seen),
                seen.label,
                endpoint or "",
                self.rule.pattern,
                key=self.key,
                reader_of=lambda kind, name: seen.readers.get(name) or ("" if fetch is None else seen.reader_of(kind, name)),
                served=served,
                terms=self.terms,
                ended=lambda: None if fetch is None else fetch.ended,
            )
        )

    def refresh(self) -> RefreshJob:
        """Return the refresh of the stored response: a new request that is made from the parts of the key."""
        recipe = recipe_of(self.environ, self.rule.policy.vary, self.located.fields, self.named, self.rule.ignored)
        return _refresh_job(self.backend, self.rule, self.key, self.url_key, self.label, recipe, self.tally)


def refresh_of(backend: Backend, rules: Rules, entry: Entry) -> RefreshJob | str:
    """Return the refresh of an entry, from its head alone; or why it can't be refreshed."""
    try:
        recipe = PageRecipe.from_json(entry.recipe)
    except (LookupError, TypeError, ValueError):
        return "what it takes to make it again is not known"
    if recipe.why_incomplete:
        return recipe.why_incomplete
    environ = recipe.to_environ()
    rule = rules.of(environ)
    url_key = page_key("gateway", environ, rule.policy.vary, rule.ignored, named=rule.policy.named)
    # A rule with another vary or other ignored parameters gives the URL another key, so the entry is never looked up again.
    if entry.key != url_key and not is_variant_of(url_key, entry.key):
        return "no request can reach it any more, since the rules have changed"
    tally = backend.tally_of(entry, rule.pattern)
    return _refresh_job(backend, rule, entry.key, url_key, f"the page at {recipe.path}", recipe, tally)


def _refresh_job(backend: Backend, rule: Rule, key: str, url_key: str, label: str, recipe: PageRecipe, tally: Tally) -> RefreshJob:
    """Describe the refresh of a stored response: a new request to the app from the recipe, never a copy of the visitor's."""
    return RefreshJob(
        key=key,
        label=label,
        terms=rule.terms,
        tally=tally,
        kind=OriginKind.GATEWAY,
        run=partial(_refreshed, backend, rule, url_key, recipe),
        refresh_dependencies=backend.renew,
    )


def _refreshed(backend: Backend, rule: Rule, url_key: str, recipe: PageRecipe, start: Start) -> Answer:
    """Call the app, read its whole response, and judge it."""
    environ = recipe.to_environ(backend.remote_addr)
    if recipe.session:
        backend.sessions.give(environ, dict(recipe.session))
    fetch = None
    try:
        fetch = AppFetch(backend, rule, environ, url_key, None, backend.named(rule, environ))
        with closing(fetch.call):
            answer = fetch.run(start)
            if answer.later is not None:
                answer = _read_to_end(fetch) or Answer(Verdict.FAILED, error=StaleCacheError("the app's answer broke off"))
    except Exception as error:
        answer = Answer(Verdict.FAILED, error=error)
    # Another endpoint may have answered than the one of the stored response.
    return answer if fetch is None else replace(answer, tally=fetch.tally)


def _read_to_end(fetch: AppFetch, until: float = math.inf) -> Answer | None:
    """Read the body of a response to its end, and return the answer to store; ``None`` if it broke off.

    :param until: when to stop, on the monotonic clock.
    """
    answers: list[Answer | None] = []
    fetch.when_complete(answers.append)
    with closing(fetch.copied()) as body:
        for _ in body:
            if answers or time.monotonic() > until:
                # The body is complete or too large. An endless one must not be read further.
                break
    return answers[0] if answers else None
