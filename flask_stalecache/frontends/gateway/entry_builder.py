"""How an answer of an app is stored: under which key, for whom, for how long."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from ...core.http.fields import Headers
from ...core.http.freshness import is_explicit
from ...core.http.vary import selecting_fields
from ...core.model.checks import tags as checked_tags
from ...core.model.entry import Entry
from ...core.model.inputs import RequestInputs
from ...core.model.keys import FORWARDED_FIELDS
from ...core.model.policy import Windows
from ...core.model.purge_names import page_names, tag_name
from ...core.model.recipe import PageRecipe
from ...core.rules.cacheability import Cacheability
from ...core.rules.shared_cache import Exchange, entry_fields
from ...core.rules.variants import Fields, index_with, place_of
from ...engine.origin import Start
from ...errors import StoreError
from ..hooks import ask
from .backend import Backend, Observation
from .rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: In every key, whatever varies.
_IN_KEY = frozenset({"host", *FORWARDED_FIELDS})


class Filed(NamedTuple):
    """What is to be stored.

    :ivar beside: what leads there, if that is to be written anew.
    """

    entry: Entry
    beside: Entry | None


class EntryBuilder:
    """How the answers to one request are stored.

    :param plan: the app behind the gateway.
    :param rule: what holds for the path.
    :param environ: the request.
    :param url_key: the key of its URL.
    :param word: what the app itself says of its answer.
    """

    def __init__(self, plan: Backend, rule: Rule, environ: WSGIEnvironment, url_key: str, word: Cacheability) -> None:
        self._plan = plan
        self._rule = rule
        self._environ = environ
        self._url_key = url_key
        self._word = word

    # -- for whom ------------------------------------------------------------------------------------------------

    def fields(self, seen: Observation, headers: Headers) -> Fields:
        """Return the request fields that tell an answer from others of the URL.

        :param headers: the answer's fields.
        """
        varied = selecting_fields(headers) or ()
        return tuple(name for name in varied if name not in seen.answered and not self._is_in_url_key(name))

    def _is_in_url_key(self, name: str) -> bool:
        return name in _IN_KEY or name in self._rule.policy.vary

    def beyond_key(self, seen: Observation, headers: Headers) -> RequestInputs:
        """Return the names that were read and that the key does not cover."""
        fields = self.fields(seen, headers)
        names = tuple(name for name in seen.names.headers if name not in fields and not self._is_in_url_key(name))
        return RequestInputs(() if "cookie" in fields else seen.names.cookies, names)

    def varied(self, seen: Observation, headers: Headers) -> tuple[str, ...]:
        """Return the request fields that an answer depends on beside those that it names itself."""
        names = self.beyond_key(seen, headers)
        fields = (*self._rule.policy.vary, *names.headers, *(["cookie"] if names.cookies else []))
        return tuple(name.title() for name in dict.fromkeys(fields))

    # -- as what -------------------------------------------------------------------------------------------------

    def filed(self, exchange: Exchange, seen: Observation, windows: Windows, body: bytes, start: Start) -> Filed | None:
        """Return what is to be stored of an answer; ``None`` if it could not be purged by its tags."""
        tags = self._tags()
        if tags is None:
            return None
        fields = self.fields(seen, exchange.headers)
        index = self._plan.engine.look_up(self._url_key).entry
        place = place_of(self._url_key, fields, self._environ.get, index)
        entry = self._entry(place.key, exchange, seen, windows, (*tags, *self._word.tags), fields, body, start)
        return Filed(entry, None if place.is_known else index_with(fields, index, entry, self._url_key))

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
        policy, ignored = self._rule.policy, self._rule.ignored
        return start.build_entry(
            self._plan.terms,
            key=key,
            names=(*page_names(seen.endpoint, self._environ, ignored), *map(tag_name, dict.fromkeys(tags))),
            absent=self.beyond_key(seen, exchange.headers),
            varied=self.varied(seen, exchange.headers),
            status=exchange.status,
            body=body,
            recipe=PageRecipe.from_environ(self._environ, (*policy.vary, *fields), ignored).to_json(),
            calls=tuple(self._word.calls),
            stood_in=self._word.stood_in,
            by_file=True,
            **entry_fields(exchange, self.jittered(windows, seen, exchange)),
        )

    def jittered(self, windows: Windows, seen: Observation, exchange: Exchange) -> Windows:
        """Return the windows with freshness shortened at random, unless it is the response's own word."""
        if seen.policy.gateway:
            return windows.shortened(seen.policy.jitter * random.random())
        if is_explicit(exchange.directives, exchange.headers):
            return windows
        return windows.shortened(self._rule.policy.jitter * random.random())

    def _tags(self) -> tuple[str, ...] | None:
        """Return the rule's tags for this request; ``None`` if the developer's callable raises, or returns what is none."""
        given = self._rule.policy.tags
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(self._environ)),
            None,
            self._plan.complaints,
            "tags",
            "a page is not stored, since it could not be purged by its tags: %s",
        )

    # -- renewed ---------------------------------------------------------------------------------------------------

    def is_elsewhere(self, headers: Headers, previous: Entry, seen: Observation) -> bool:
        """Whether a confirmed response is told from others of the URL by other request fields than before: it has another key."""
        is_any = selecting_fields(headers) is not None
        return is_any and self.fields(seen, headers) != self.fields(seen, previous.headers)

    def renewed(self, exchange: Exchange, windows: Windows, start: Start, previous: Entry) -> Entry:
        """Return what is stored, renewed with fields that came just now."""
        return start.renew_entry(
            previous,
            self._plan.terms,
            **entry_fields(exchange, windows),
        )

    def in_memory(self, entry: Entry) -> Entry | None:
        """Return an entry with its body, which is written anew; ``None`` if that has gone."""
        try:
            return entry.in_memory()
        except StoreError as error:
            self._plan.engine.answer_writer.store_failed(error)
            return None
