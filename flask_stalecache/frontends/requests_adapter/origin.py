"""A request of a session as an :class:`~flask_stalecache.engine.origin.Origin`, and its refresh."""

from __future__ import annotations

import time
from functools import partial

from requests import Response

from ...core.model.entry import Entry
from ...core.rules.serving import ServeOptions
from ...core.rules.shared_cache import directives_of, honored
from ...core.rules.storability import Verdict
from ...core.rules.variants import Located, locate
from ...engine.origin import Answer, Origin, RefreshJob, Start
from ...stats.tally import Tally
from ...stores.base import Copy
from ..request.request_origin import share_alike
from .app_context import AppContext
from .fetch import NOTHING_SAID, FetchRequest, ThirdPartyFetch
from .request import CONDITIONS, OutgoingRequest, environ_of, has_failed
from .rules import SessionRules

#: A caller's directives to caches. A refresh has none.
_SAID = ("Cache-Control", "Pragma")


class SessionOrigin(Origin):
    """One request of a session that may be answered from the store.

    :param context: the app.
    :param rules: the rules of the session.
    :param outgoing: the request.
    :param url: the URL in the key.
    :param in_background: the request is part of a refresh, which no visitor waits for.
    :ivar url_key: the key of the URL, without variants.
    :ivar key: the key of the response: of the URL, or of a variant.
    :ivar located: the place of the response.
    :ivar said: the caller's Cache-Control, if there is one.
    """

    key: str
    tally: Tally
    terms: ServeOptions

    __slots__ = ("context", "environ", "key", "located", "outgoing", "rules", "said", "tally", "terms", "url", "url_key")

    def __init__(
        self, context: AppContext, rules: SessionRules, outgoing: OutgoingRequest, url: str, in_background: bool = False
    ) -> None:
        self.context = context
        self.rules = rules
        self.outgoing = outgoing
        self.url = url
        self.environ = environ_of(outgoing.request)
        self.tally = context.tally(url)
        self.url_key = rules.url_key(url, self.environ, outgoing.route(url))
        self.located = self._locate()
        self.key = self.located.key
        self.said = directives_of(self.environ)
        self.terms: ServeOptions = context.terms(rules)
        if in_background:
            # The page is refreshed as a whole: a stale part would make it stale again.
            self.terms = self.terms._replace(wait_for_fresh=True)
        if self.said is not None:
            self.terms = honored(self.terms, self.said, context.engine.look_up(self.key).entry, time.time())

    def _locate(self) -> Located:
        return locate(self.url_key, self.environ, self.context.engine.look_up, time.time())

    def stands_in(self) -> Copy | None:
        """Return the stored response that the caller's own ``stale-if-error`` allows instead of a failure (RFC 5861 section 4)."""
        limit = None if self.said is None else self.said.stale_if_error
        copy = self.context.engine.look_up(self.key)
        entry = copy.entry
        if limit is None or entry is None or entry.never_stale or self.is_barred_from(entry):
            return None
        return copy if entry.age(time.time()) < entry.windows.max_age + limit else None

    @property
    def label(self) -> str:
        """The name of the response in the log: without the query, which may contain a secret."""
        return self.url.partition("?")[0]

    @property
    def lock_timeout(self) -> float:
        """The longest time in seconds to wait for another caller's request."""
        return self.context.lock_timeout(self.rules)

    @property
    def wait(self) -> float | None:
        """The longest time in seconds to wait for a refresh if a stored response can be returned."""
        return self.rules.policy.wait  # type: ignore[no-any-return]

    @property
    def is_authorized(self) -> bool:
        """Whether the request has an Authorization field."""
        return "HTTP_AUTHORIZATION" in self.environ

    @property
    def may_collapse(self) -> bool:
        """Whether other callers may wait for its response: not if it is unlikely to be stored, or stored only once it was read."""
        says_no = self.said is not None and self.said.no_store
        return (
            self.outgoing.request.method == "GET"
            and not (self.is_authorized or says_no or self.outgoing.stream)
            and self.located.has_room
        )

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry must not be returned for this request: it has Authorization, and the entry is not shared."""
        return self.is_authorized and not entry.shared

    def share_of(self, failure: Answer, *, again: bool) -> Answer | None:
        """Return the form in which this request may share the failure of another one; ``None`` if it may not."""
        return share_alike(failure, self.environ, super().share_of(failure, again=again), again=again)

    def relocate(self) -> bool:
        """Look up the variant again, since another response may have given the URL variants. Return whether the key has changed."""
        before = self.key
        self.located = self._locate()
        self.key = self.located.key
        return self.key != before

    def call_uncached(self) -> Answer:
        """Send the request as if there were no cache."""
        try:
            response = self.outgoing.send(self.outgoing.request, self.outgoing.stream)
        except Exception as error:
            return Answer(Verdict.UNSTORABLE, error=error, failed=True)
        return Answer(Verdict.UNSTORABLE, response, failed=has_failed(response))

    def call(self, start: Start) -> Answer:
        """Send the request and judge the response."""
        return ThirdPartyFetch(self.fetch_request(), start).run()

    def fetch_request(self) -> FetchRequest:
        """Return the request for the third party."""
        said = self.said or NOTHING_SAID
        return FetchRequest(self.context, self.rules, self.outgoing, self.url, self.url_key, self.environ, said, self.terms)

    def refresh(self) -> RefreshJob:
        """Return the refresh: the caller's own request, which is kept in memory until it is sent."""
        # A stored recipe could not name the credentials of the caller, so the request itself is kept, in memory only.
        outgoing = self.outgoing._replace(request=self.outgoing.changed((*CONDITIONS, *_SAID), []), stream=False)
        outgoing.request.method = "GET"
        # A new origin, without the directives of this caller.
        origin = SessionOrigin(self.context, self.rules, outgoing, self.url)
        return RefreshJob(
            key=self.key,
            label=origin.label,
            terms=origin.terms,
            tally=origin.tally,
            pool=self.context.pool,
            run=partial(_refreshed, origin),
        )

    @property
    def reason(self) -> str:
        """The value of ``fwd`` (RFC 9211 section 2.2), if the status does not determine it; else ""."""
        return "request" if self.terms.reload else ""


def _refreshed(origin: SessionOrigin, start: Start) -> Answer:
    """Send the request, read the whole response, and judge it."""
    until = time.monotonic() + origin.context.settings.refresh_deadline
    answer = ThirdPartyFetch(origin.fetch_request(), start, until).run()
    if isinstance(answer.value, Response):
        answer.value.close()
    return answer
