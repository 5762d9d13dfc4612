"""A session's request to a third party as an :class:`~.origin.Origin`."""

from __future__ import annotations

import time
from functools import partial

from requests import Response

from ...core.model.entry import Entry
from ...core.rules.serving import ServeOptions
from ...core.rules.shared_cache import directives_of, honored
from ...core.rules.storability import Verdict
from ...core.rules.variants import Fields, locate
from ...engine.origin import Answer, Origin, RefreshJob, Start
from ...stats.tally import Tally
from ...stores.base import Copy
from .app_context import AppContext
from .fetch import NOTHING_SAID, FetchRequest, ThirdPartyFetch
from .request import CONDITIONS, OutgoingRequest, environ_of, has_failed
from .rules import SessionRules

#: What a caller says to caches; nobody says it in the background.
_SAID = ("Cache-Control", "Pragma")


class SessionOrigin(Origin):
    """One request of a session for what may be stored.

    :param plan: the app.
    :param rules: those of the session.
    :param sending: the request.
    :param url: the URL that is in the key.
    :param in_background: nobody waits for it.
    :ivar url_key: the key of the URL, whatever variants it has.
    :ivar key: the key of what is asked for.
    :ivar fields: the request fields that are in it.
    :ivar said: what the caller says of caching, if anything.
    """

    key: str
    tally: Tally
    terms: ServeOptions

    __slots__ = ("environ", "fields", "key", "plan", "rules", "said", "sending", "tally", "terms", "url", "url_key")

    def __init__(
        self, plan: AppContext, rules: SessionRules, sending: OutgoingRequest, url: str, in_background: bool = False
    ) -> None:
        self.plan = plan
        self.rules = rules
        self.sending = sending
        self.url = url
        self.environ = environ_of(sending.request)
        self.tally = plan.tally(url)
        self.url_key = rules.url_key(url, self.environ, sending.way(url))
        self.key, self.fields = self._locate()
        self.said = directives_of(self.environ)
        self.terms: ServeOptions = plan.terms(rules)
        if in_background:
            self.terms = self.terms._replace(in_line=True)
        if self.said is not None:
            self.terms = honored(self.terms, self.said, plan.engine.look_up(self.key).entry, time.time())

    def _locate(self) -> tuple[str, Fields]:
        return locate(self.url_key, self.environ, self.plan.engine.look_up, time.time())

    def stands_in(self) -> Copy | None:
        """Return what the caller's own ``stale-if-error`` allows in place of a failure (RFC 5861 section 4)."""
        limit = None if self.said is None else self.said.stale_if_error
        copy = self.plan.engine.look_up(self.key)
        entry = copy.entry
        if limit is None or entry is None or entry.never_stale or self.is_barred_from(entry):
            return None
        return copy if entry.age(time.time()) < entry.windows.max_age + limit else None

    @property
    def label(self) -> str:
        """What a log line calls it: without the query, which may have a secret in it."""
        return self.url.partition("?")[0]

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's request at most."""
        return self.plan.lock_timeout(self.rules)

    @property
    def wait(self) -> float | None:
        """Seconds to wait for a renewal at most where a copy can stand in."""
        return self.rules.policy.wait  # type: ignore[no-any-return]

    @property
    def is_authorized(self) -> bool:
        """Whether it has Authorization."""
        return "HTTP_AUTHORIZATION" in self.environ

    @property
    def may_collapse(self) -> bool:
        """Whether others may wait for its answer: not if that is unlikely to be stored."""
        says_no = self.said is not None and self.said.no_store
        return self.sending.request.method == "GET" and not self.is_authorized and not says_no

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry can't be served to this request: it has Authorization, and the response is not for all."""
        return self.is_authorized and not entry.shared

    def relocate(self) -> bool:
        """Find the variant anew: another response may have shown that the URL has some."""
        before = self.key
        self.key, self.fields = self._locate()
        return self.key != before

    def call_uncached(self) -> Answer:
        """Let the third party answer this request as if there were no cache."""
        try:
            response = self.sending.send(self.sending.request, self.sending.stream)
        except Exception as error:
            return Answer(Verdict.UNSTORABLE, error=error, failed=True)
        return Answer(Verdict.UNSTORABLE, response, failed=has_failed(response))

    def call(self, start: Start) -> Answer:
        """Ask the third party and judge its answer."""
        return ThirdPartyFetch(self.question(), start).answer()

    def question(self) -> FetchRequest:
        """Return what the third party is asked."""
        said = self.said or NOTHING_SAID
        return FetchRequest(self.plan, self.rules, self.sending, self.url, self.url_key, self.environ, said, self.terms)

    def refresh(self) -> RefreshJob:
        """Return the renewal of what is asked for: the caller's own request, kept in memory until it is sent."""
        sending = self.sending._replace(request=self.sending.changed((*CONDITIONS, *_SAID), []), stream=False)
        sending.request.method = "GET"
        # Without what its caller alone wanted.
        origin = SessionOrigin(self.plan, self.rules, sending, self.url)
        return RefreshJob(
            key=self.key,
            label=origin.label,
            terms=origin.terms,
            tally=origin.tally,
            pool=self.plan.pool,
            run=partial(_refreshed, origin),
        )

    @property
    def reason(self) -> str:
        """Why the third party was asked, in the words of RFC 9211 section 2.2, where it is not what is stored that says so."""
        return "request" if self.terms.reload else ""


def _refreshed(origin: SessionOrigin, start: Start) -> Answer:
    """Call the third party, read all of its answer, and judge it."""
    until = time.monotonic() + origin.plan.settings.refresh_deadline
    answer = ThirdPartyFetch(origin.question(), start, until).answer()
    if isinstance(answer.value, Response):
        answer.value.close()
    return answer
