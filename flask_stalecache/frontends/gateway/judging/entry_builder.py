"""Builds the entry of an app's response: under which key, for which visitors, and for how long."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ....core.addressing.arrival import root_name
from ....core.addressing.keys import FORWARDED_FIELDS
from ....core.addressing.purge_names import page_names, tag_name, target_name
from ....core.http.accept import ACCEPT_FIELDS, COOKIE, Chosen, in_order, names_of
from ....core.http.fields import Headers, first_of, listed
from ....core.http.freshness import is_explicit
from ....core.http.tags import tags_in_fields
from ....core.http.tracing import TRACING, shown_fields
from ....core.http.vary import selecting_fields
from ....core.model.checks import tags as checked_tags
from ....core.model.entry import Entry
from ....core.model.environ import environ_name
from ....core.model.inputs import RequestInputs
from ....core.model.policy import Windows
from ....core.model.reasons import Refusal, StoreRefusal
from ....core.rules.cacheability import Cacheability
from ....core.rules.named import NOTHING_NAMED, NamedValues, recipe_of, session_values
from ....core.rules.request_changes import PARTS, PARTS_IN_PLACE, changed_fields, changed_parts, may_explain, repeated_parameters
from ....core.rules.shared_cache import Exchange, entry_fields
from ....core.rules.variant_index import Fields, index_with, is_told_by
from ....core.rules.variants import lookup, place_of
from ....engine.origin import Start
from ....errors import ConfigError, StoreError
from ...app_code.hooks import ask
from ...observation.read_log import ReadLog
from ...request.request_body import has_unannounced_body
from ..backend import Backend, Observation
from ..rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Request fields that are part of every key.
_IN_KEY = frozenset({"host", *FORWARDED_FIELDS})


class BuiltEntry(NamedTuple):
    """The entries to store.

    :ivar beside: the index that leads to the entry, if it changes.
    """

    entry: Entry
    beside: Entry | None


class EntryBuilder:
    """Builds the entries of the responses to one request.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param environ: the request.
    :param url_key: the key of its URL.
    :param hints: the cacheability hints of the code that makes the response.
    :param named: the request's cookies and session values that the rule names.
    """

    def __init__(
        self,
        backend: Backend,
        rule: Rule,
        environ: WSGIEnvironment,
        url_key: str,
        hints: Cacheability,
        named: NamedValues = NOTHING_NAMED,
    ) -> None:
        self._named = named
        self._backend = backend
        self._rule = rule
        self._environ = environ
        self._url_key = url_key
        self._hints = hints

    # -- for which visitors ------------------------------------------------------------------------------------------------

    def fields(self, seen: Observation, headers: Headers) -> Fields:
        """Return the selectors of a response among the variants of the URL: fields that it names in ``Vary``, and Accept fields.

        :param headers: the fields of the response.
        """
        varied = {name for name in selecting_fields(headers) or () if name not in seen.answered and not self._is_in_url_key(name)}
        if self._rule.hides_cookies or (self._rule.named and not seen.is_blind):
            # The names of cookies tell how the response depends on the Cookie field.
            varied.discard(COOKIE)
        return in_order((*(varied - ACCEPT_FIELDS), *self._accepts(seen, varied & ACCEPT_FIELDS, headers)))

    def _accepts(self, seen: Observation, announced: Collection[str], headers: Headers) -> Fields:
        read = [name for name in seen.names.headers if name in ACCEPT_FIELDS and not self._is_in_url_key(name)]
        if not read and not announced:
            return ()
        used = listed(first_of(headers, "content-encoding") or "")
        codings = seen.codings if {*seen.codings, "identity"}.issuperset(used) else None
        return seen.accepts.selectors(read, announced, self._environ.get, seen.changed, codings)

    def tell(self, start: Start, log: ReadLog) -> None:
        """Report the selectors of an answer before it is made, if the app has used Accept fields only for best matches so far.

        :param start: gets the selectors.
        :param log: the reads of the app so far.
        """
        ignored = self._backend.engine.settings.ignored_headers
        read = [name for name in log.headers if name in ACCEPT_FIELDS and name not in ignored and not self._is_in_url_key(name)]
        fields = log.accepts.selectors(read, (), self._environ.get, log.changed, None)
        if fields and all(isinstance(each, Chosen) for each in fields):
            start.depends_on(fields)

    def _is_in_url_key(self, name: str) -> bool:
        return name in _IN_KEY or name in self._rule.policy.vary

    def beyond_key(self, seen: Observation, headers: Headers) -> RequestInputs:
        """Return the cookies and fields that were read and that are not part of the key."""
        fields = names_of(self.fields(seen, headers))
        names = tuple(name for name in seen.names.headers if name not in fields and not self._is_in_url_key(name))
        if COOKIE in fields:
            return RequestInputs(headers=names, variables=seen.names.variables)
        policy = self._rule.policy
        cookies = tuple(name for name in seen.names.cookies if name not in (policy.cookies or ()))
        keys = tuple(key for key in seen.names.session if key not in policy.session)
        return replace(seen.names, headers=names, cookies=cookies, session=keys)

    def varied(self, seen: Observation, headers: Headers) -> tuple[str, ...]:
        """Return the request fields that a response depends on without naming them in ``Vary``."""
        names = self.beyond_key(seen, headers)
        fields = (
            *self._rule.policy.vary,
            *names_of((*self._rule.named, *self._accepts(seen, (), headers))),
            *names.headers,
            *(["cookie"] if names.cookies or names.session else []),
        )
        return tuple(name.title() for name in dict.fromkeys(fields))

    def own(self, seen: Observation, headers: Headers) -> Refusal | None:
        """Return why an answer is one visitor's own, for a reason that no name expresses; ``None`` if it is not."""
        if has_unannounced_body(self._environ):
            return Refusal(StoreRefusal.REQUEST_BODY)
        return self._changed(seen, headers) or seen.own or self._repeated(headers) or self._other_session(seen)

    def _other_session(self, seen: Observation) -> Refusal | None:
        """Return the refusal if the app's session has other values than the key.

        A session that is kept on a server may have changed since.
        """
        policy = self._rule.policy
        if not policy.session or seen.is_blind:
            return None
        try:
            found = [session_values(policy, session) for session in seen.held()]
        except ConfigError:
            # The values of the look-up could be part of a key, so the app has changed them.
            return Refusal(StoreRefusal.OTHER_SESSION)
        is_same = all(self._named.values[variable] == value for values in found for variable, value in values.items())
        return None if is_same else Refusal(StoreRefusal.OTHER_SESSION)

    def _changed(self, seen: Observation, headers: Headers) -> Refusal | None:
        """Return the refusal if middleware has given the app another request than the key describes."""
        added = (*self._rule.policy.vary, *names_of(self.fields(seen, headers)))
        if seen.is_blind:
            is_explained = any(may_explain(name) and environ_name(name) in self._environ for name in added)
        else:
            is_explained = any(name in seen.readers for name in added)
        compared = PARTS_IN_PLACE if seen.is_blind else PARTS
        given = self._environ if seen.given is None else seen.given
        for environ in seen.seen:
            parts = changed_parts(given, environ, self._rule.ignored, is_explained=is_explained)
            parts = (*(part for part in parts if part in compared), *changed_fields(given, environ, seen.names))
            if parts:
                return Refusal(StoreRefusal.CHANGED_REQUEST, " and ".join(parts))
        return None

    def _repeated(self, headers: Headers) -> Refusal | None:
        """Return the refusal if a redirect repeats ignored parameters of this request."""
        repeated = repeated_parameters(self._environ, headers, self._rule.ignored)
        return Refusal(StoreRefusal.REPEATS_IGNORED, ", ".join(sorted(repeated))) if repeated else None

    def made_for_one(self, headers: Headers, body: bytes, seen: Observation, previous: Entry | None) -> Refusal | None:
        """Return the refusal if the body shows a value that was made for this response alone; ``None`` if it does not.

        :param headers: the fields as they came, since a field that is unset may have the value.
        """

        def stored() -> bytes | None:
            whole = None if previous is None else self.in_memory(previous)
            return None if whole is None else whole.body

        return self._backend.kept.refusal(self._url_key, headers, body, seen.kept, stored)

    def traced(self, headers: Headers, body: bytes) -> RequestInputs:
        """Return the tracing fields of the request whose values a response shows."""
        names = TRACING.difference(selecting_fields(headers) or (), self._rule.policy.vary)
        return RequestInputs(headers=shown_fields(self._environ, names, headers, body))

    # -- the entry -------------------------------------------------------------------------------------------------

    def build(self, exchange: Exchange, seen: Observation, windows: Windows, body: bytes, start: Start) -> BuiltEntry | Refusal:
        """Return the entries to store, or the reason to store none.

        The tags may be unknown, so that the entry could not be purged by them, or the URL may have too many variants.
        """
        tags = self._tags()
        if tags is None:
            return Refusal(StoreRefusal.TAGS_UNKNOWN)
        tags = (*tags, *self._hints.tags, *self._sent_tags(exchange.headers))
        fields = self.fields(seen, exchange.headers)
        engine = self._backend.engine
        index = engine.look_up(self._url_key).entry
        fields = in_order((*self._rule.named, *fields))
        place = place_of(self._url_key, fields, lookup(self._environ, self._named.values), index, engine.is_in_use)
        if place is None:
            return Refusal(StoreRefusal.TOO_MANY_VARIANTS, " and ".join(names_of(fields)))
        entry = self._entry(place.key, exchange, seen, windows, tags, place.fields, body, start)
        return BuiltEntry(entry, None if place.listing is None else index_with(place.listing, entry, self._url_key))

    def _entry(
        self,
        key: str,
        exchange: Exchange,
        seen: Observation,
        windows: Windows,
        tags: tuple[str, ...],
        fields: Fields,
        body: bytes,
        start: Start,
    ) -> Entry:
        policy, ignored, environ, as_seen = self._rule.policy, self._rule.ignored, self._environ, seen.last_seen or self._environ
        urls = *page_names(seen.endpoint, as_seen, ignored, environ), target_name(environ, ignored), *root_name(environ, as_seen)
        return start.build_entry(
            self._backend.terms,
            key=key,
            names=tuple(dict.fromkeys((*urls, *map(tag_name, tags)))),
            absent=self.beyond_key(seen, exchange.headers),
            varied=self.varied(seen, exchange.headers),
            status=exchange.status,
            body=body,
            recipe=recipe_of(environ, policy.vary, fields, self._named, ignored, as_seen).to_json(),
            calls=tuple(self._hints.calls),
            stood_in=self._hints.stood_in,
            by_file=True,
            **entry_fields(exchange, self.jittered(windows, seen, exchange)),
        )

    def jittered(self, windows: Windows, seen: Observation, exchange: Exchange) -> Windows:
        """Return the windows with freshness shortened at random, unless the response names its lifetime."""
        if seen.policy.gateway:
            return windows.shortened(seen.policy.jitter * random.random())
        if is_explicit(exchange.directives, exchange.headers):
            return windows
        return windows.shortened(self._rule.policy.jitter * random.random())

    def _tags(self) -> tuple[str, ...] | None:
        """Return the rule's tags for this request; ``None`` if the developer's callable raises, or does not return tags."""
        given = self._rule.policy.tags
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(self._environ)),
            None,
            self._backend.complaints,
            "tags",
            "a page is not stored, since it could not be purged by its tags: %s",
        )

    def _sent_tags(self, headers: Headers) -> tuple[str, ...]:
        """Return the tags in the fields of a response."""
        return tags_in_fields(headers, self._backend.tag_fields)

    # -- a confirmation ---------------------------------------------------------------------------------------------------

    def is_elsewhere(self, headers: Headers, previous: Entry, seen: Observation) -> bool:
        """Whether a 304 depends on other fields than the stored response: then it belongs to another key."""
        if selecting_fields(headers) is None:
            return False
        is_other = self.fields(seen, headers) != self.fields(seen, previous.headers)
        return is_other or not is_told_by(previous.key, self._accepts(seen, (), headers))

    def renewed(self, exchange: Exchange, windows: Windows, start: Start, previous: Entry) -> Entry:
        """Return the stored response with the fields of a confirmation."""
        return start.renew_entry(
            previous,
            self._backend.terms,
            names=self._names_renewed(previous, exchange.headers),
            **entry_fields(exchange, windows),
        )

    def _names_renewed(self, previous: Entry, headers: Headers) -> tuple[str, ...]:
        """Return the names of a stored response with the tags of a confirmation, whose fields replace the stored ones."""
        before, now = self._sent_tags(previous.headers), self._sent_tags(headers)
        if now == before:
            return previous.names
        other_tags = self._tags()
        # If the rule's callable fails, its tags are unknown, so no name is removed: a name too many only purges too much.
        gone = set() if other_tags is None else {*before}.difference(other_tags, self._hints.tags)
        names = (*previous.names, *map(tag_name, now))
        return tuple(dict.fromkeys(name for name in names if name not in {tag_name(tag) for tag in gone.difference(now)}))

    def in_memory(self, entry: Entry) -> Entry | None:
        """Return an entry with its body, which has to be written again; ``None`` if its file has gone."""
        try:
            return entry.in_memory()
        except StoreError as error:
            self._backend.engine.answer_writer.store_failed(error)
            return None
