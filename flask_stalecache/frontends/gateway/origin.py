"""A request at the gateway as an :class:`~.origin.Origin`."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...batches.warm_request import Warming, warming_of
from ...core.http.fields import lines_of
from ...core.http.validators import CONDITIONS
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING, WARMING
from ...core.model.inputs import RequestInputs
from ...core.model.keys import page_key
from ...core.model.recipe import PageRecipe
from ...core.rules.prefer_stale import is_set
from ...core.rules.serving import ServeOptions, Verdict
from ...core.rules.shared_cache import directives_of, honored
from ...core.rules.variants import is_variant_of
from ...engine.origin import Answer, Origin, RefreshJob, Served, Start
from ...errors import StaleCacheError
from ...stats.tally import Tally
from ...stores.base import Copy
from ..debug_detail import debug_detail
from .backend import Backend
from .fetch import NOTHING_SAID, AppFetch
from .rules import Rule, Rules

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class GatewayOrigin(Origin):
    """One request for what may be stored.

    :param plan: the app behind the gateway.
    :param rule: what holds for the path.
    :param environ: the request.
    :param start_response: the server's.
    :ivar url_key: the key of the URL, whatever variants it has.
    :ivar fields: the request fields that are in the key beside those of the rule.
    :ivar asked: what the app was asked, if it was.
    :ivar said: what the client says of caching, if that is obeyed.
    :ivar met: what was stored when it came, noted with ``app.debug``.
    """

    key: str
    terms: ServeOptions

    __slots__ = ("asked", "environ", "fields", "key", "met", "plan", "rule", "said", "start_response", "terms", "url_key")

    def __init__(self, plan: Backend, rule: Rule, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.plan = plan
        self.rule = rule
        self.environ = environ
        self.start_response = start_response
        self.url_key = page_key("gateway", environ, rule.policy.vary, rule.ignored)
        self.key, self.fields = plan.locate(self.url_key, environ)
        self.asked: AppFetch | None = None
        self.met: Copy | None = None
        self.terms: ServeOptions = rule.terms
        if plan.asked_by and rule.policy.prefer_stale is None and is_set(plan.asked_by, environ):
            self.terms = self.terms._replace(prefer_stale=plan.preferred)
        self.said = directives_of(environ) if plan.honors else None
        if self.said is not None:
            terms = honored(self.terms, self.said, plan.engine.look_up(self.key).entry, time.time())
            self.terms = terms._replace(if_error=self.said.stale_if_error or 0.0)

    @property
    def may_be_known(self) -> bool:
        """Whether later hits may be answered by what is found out for this one: nobody is asked about each request."""
        policy, environ = self.rule.policy, self.environ
        is_plain = policy.unless is None and not policy.vary and not self.plan.honors
        return is_plain and environ["REQUEST_METHOD"] == "GET" and "HTTP_HOST" in environ

    @property
    def label(self) -> str:
        """What a log line calls it."""
        return f"the page at {self.environ.get('PATH_INFO', '')}"

    @property
    def tally(self) -> Tally:
        """Where it is counted: once the app was asked, under the endpoint that answered; before, under that of what is stored."""
        if self.asked is not None:
            return self.asked.tally
        return self.plan.tally_of(self.plan.engine.look_up(self.key).entry)

    @property
    def is_visit(self) -> bool:
        """Whether it is counted as one: not if it only warms or renews something."""
        return REFRESHING not in self.environ

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's call at most."""
        given: float | None = self.rule.policy.lock_timeout
        return self.plan.lock_timeout if given is None else given

    @property
    def wait(self) -> float | None:
        """Seconds to wait for a renewal at most where a copy can stand in; who fills waits for as long as it takes."""
        return None if WARMING in self.environ else self.rule.policy.wait

    @property
    def may_collapse(self) -> bool:
        """Whether others may wait for this request's call: not if it is unlikely to be stored, or its sender says no-store."""
        wants_none = self.said is not None and self.said.no_store
        is_plain = self.environ["REQUEST_METHOD"] == "GET" and "HTTP_AUTHORIZATION" not in self.environ
        return is_plain and not wants_none and not self._needs_confirming()

    def _needs_confirming(self) -> bool:
        """Whether the app has to confirm what is stored for each visitor: to wait for that of another would save nothing."""
        entry = self.plan.engine.look_up(self.key).entry
        return entry is not None and entry.needs_confirming

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry can't be served to this request: it carries an absent name, or Authorization."""
        if "HTTP_AUTHORIZATION" in self.environ and not entry.shared:
            return True
        return entry.absent.present_in(self.environ)

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these names."""
        return names.present_in(self.environ)

    def relocate(self) -> bool:
        """Find the variant anew: another request may have shown that the URL has some."""
        before = self.key
        self.key, self.fields = self.plan.locate(self.url_key, self.environ)
        return self.key != before

    def _ask(self) -> AppFetch:
        self.close()
        self.asked = AppFetch(self.plan, self.rule, self.environ, self.url_key, self.start_response)
        return self.asked

    def call_uncached(self) -> Answer:
        """Let the app answer this request as if there were no gateway."""
        return self._ask().call_uncached()

    def call(self, start: Start) -> Answer:
        """Ask the app and judge its answer."""
        answer = self._ask().fetch(start, self.said or NOTHING_SAID)
        if (warming := warming_of(self.environ)) is not None:
            warming.note_answer(answer)
        return answer

    def tell(self, warming: Warming, served: Served) -> None:
        """Tell who fills what came of it, unless a decorator of ours has in the app."""
        if self.asked is not None and self.asked.is_ours:
            return
        warming.note(served)
        if served.answer is not None and served.answer.later is not None:
            warming.later = self._is_stored

    def _is_stored(self) -> bool:
        """Whether what the app has answered is stored, now that all of it has come."""
        assert self.asked is not None
        self.relocate()
        entry = self.plan.engine.look_up(self.key).entry
        return entry is not None and entry.serial == self.asked.serial

    def close(self) -> None:
        """Close what the app has answered, if it was asked."""
        if self.asked is not None:
            self.asked.call.close()

    def break_off(self) -> None:
        """Tell those who wait for the app's answer that it will not come to its end."""
        if self.asked is not None:
            self.asked.break_off()

    @property
    def has_conditions(self) -> bool:
        """Whether the request asks for less than the whole."""
        return any(name in self.environ for name in CONDITIONS)

    @property
    def app_status(self) -> int:
        """The status of the app's answer."""
        return 0 if self.asked is None else self.asked.call.code

    @property
    def cookies_set(self) -> list[str]:
        """The cookies that the app's answer sets."""
        return [] if self.asked is None else lines_of(self.asked.call.fields, "set-cookie")

    @property
    def reason(self) -> str:
        """Why the app was asked, in the words of RFC 9211 section 2.2, where it is not what is stored that says so; else ""."""
        if self.terms.reload:
            return "request"
        return "vary-miss" if self.fields and self.asked is not None and self.asked.finds_nothing else ""

    def debug_detail(self, served: Served) -> str:
        """Return what ``Cache-Status`` says more with ``app.debug``, else ""."""
        if self.met is None:
            return ""
        pending = self.plan.engine.is_pending(self.key)
        return debug_detail(self, self.met, served, time.time(), pending=pending)

    def refresh(self) -> RefreshJob:
        """Return the refresh of what is stored: a new request, made of what is in the key."""
        varied = (*self.rule.policy.vary, *self.fields)
        recipe = PageRecipe.from_environ(self.environ, varied, self.rule.ignored)
        return _refresh_job(self.plan, self.rule, self.key, self.url_key, self.label, recipe, self.tally)


def refresh_of(plan: Backend, rules: Rules, entry: Entry) -> RefreshJob | str:
    """Return the refresh of what a gateway has stored, from its entry's head alone; or why it can't be made again."""
    try:
        recipe = PageRecipe.from_json(entry.recipe)
    except (LookupError, TypeError, ValueError):
        return "what it takes to make it again is not known"
    environ = recipe.to_environ()
    rule = rules.of(environ)
    url_key = page_key("gateway", environ, rule.policy.vary, rule.ignored)
    if entry.key != url_key and not is_variant_of(url_key, entry.key):
        return "nobody asks for it any more, since the rules have changed"
    return _refresh_job(plan, rule, entry.key, url_key, f"the page at {recipe.path}", recipe, plan.tally_of(entry))


def _refresh_job(plan: Backend, rule: Rule, key: str, url_key: str, label: str, recipe: PageRecipe, tally: Tally) -> RefreshJob:
    """Describe the refresh of a stored response: a new request to the app from the recipe, never a copy of the visitor's."""
    return RefreshJob(
        key=key,
        label=label,
        terms=rule.terms,
        tally=tally,
        run=partial(_refreshed, plan, rule, url_key, recipe),
        refresh_dependencies=plan.renew,
    )


def _refreshed(plan: Backend, rule: Rule, url_key: str, recipe: PageRecipe, start: Start) -> Answer:
    """Call the app, read all of its answer, and judge it."""
    asked = AppFetch(plan, rule, recipe.to_environ(), url_key, None)
    try:
        with closing(asked.call):
            answer = asked.fetch(start)
            answer = _gone_through(asked) if answer.later is not None else answer
    except Exception as error:
        answer = Answer(Verdict.FAILED, error=error)
    # Another endpoint may have answered than the one of the stored response.
    return replace(answer, tally=asked.tally)


def _gone_through(asked: AppFetch) -> Answer:
    """Read a body that is still to come, and return what is to be stored then."""
    answers: list[Answer | None] = []
    asked.when_complete(answers.append)
    for _ in asked.copied():
        if answers:
            # Whole, or too large: an endless one is not read any further.
            break
    told = answers[0] if answers else None
    return told or Answer(Verdict.FAILED, error=StaleCacheError("the app's answer broke off"))
