"""The variants of a page: the parts of Accept fields that it depends on, and the keys under which it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ...core.http.accept import ACCEPT_FIELDS, Named, field_of_selector, in_order, names_of
from ...core.http.fields import Headers, vary_names
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.named import NOTHING_NAMED, NamedValues
from ...core.rules.variant_index import Fields
from ...core.rules.variants import StoragePlace, lookup, place_of
from ...engine.engine import Engine
from ...engine.origin import Start
from ..flask_internals.contexts import RequestContext
from ..observation.read_log import ReadLog
from .watching.request_recorder import arrived_environ
from .watching.watch import Covered, reads_of


class PageVariants(NamedTuple):
    """The variants of one page, for one request.

    :ivar engine: looks up the index.
    :ivar url_key: the key of the page, without variants.
    :ivar aimed: the selectors in the key that is looked up for the request.
    :ivar named: the cookies and values of the session that are always in the key.
    :ivar values: their values in the request.
    """

    engine: Engine
    url_key: str
    aimed: Fields
    named: Fields = ()
    values: NamedValues = NOTHING_NAMED

    def tell(self, fields: Fields) -> bool:
        """Whether requests that wait for this one agree with it in all of these selectors."""
        return {*self.aimed}.issuperset(fields)

    def place(self, context: RequestContext, fields: Fields) -> StoragePlace | Refusal:
        """Return where a page is stored, or why it is not: it has too many variants.

        :param fields: the selectors that it depends on.
        """
        known = self.engine.look_up(self.url_key).entry
        get = lookup(arrived_environ(context.request), self.values.values)
        fields = in_order((*self.named, *fields)) if self.named else fields
        place = place_of(self.url_key, fields, get, known, self.engine.is_in_use)
        return place or Refusal(StoreRefusal.TOO_MANY_VARIANTS, " and ".join(names_of(fields)))


def fields_read(context: RequestContext, covered: Covered, headers: Headers = ()) -> Fields:
    """Return the selectors of the Accept fields that a page depends on so far.

    :param covered: what the key covers.
    :param headers: the fields of its response.
    """
    reads_of(context).settle()
    return _fields_so_far(context, covered, headers)


def _fields_so_far(context: RequestContext, covered: Covered, headers: Headers = ()) -> Fields:
    log = reads_of(context)
    read, announced = log.headers.keys() - covered.headers, vary_names(headers) - covered.headers
    if ACCEPT_FIELDS.isdisjoint(read | announced):
        return ()
    return log.accepts.selectors(read, announced, arrived_environ(context.request).get, log.changed)


@contextmanager
def told_early(context: RequestContext, covered: Covered, start: Start) -> Iterator[None]:
    """Report the selectors that a page depends on as soon as its view reads them: requests that differ in them need not wait.

    :param covered: what the key covers.
    :param start: the call that they are reported to.
    """
    log = reads_of(context)
    before = log.accept_read

    def tell(log: ReadLog) -> None:
        if fields := _fields_so_far(context, covered):
            start.depends_on(fields)

    # A hook may have read an Accept field before.
    tell(log)
    log.accept_read = tell
    try:
        yield
    finally:
        # The callback refers to the request, which would be left to the garbage collector.
        log.accept_read = before


def inherit_dependence(context: RequestContext, fields: Fields, reader: str) -> None:
    """Record the Accept fields that a page within this one depends on, as read by this one.

    :param fields: the selectors in its key.
    :param reader: its view.
    """
    log, get = reads_of(context), arrived_environ(context.request).get
    for selector in fields:
        if isinstance(selector, Named):
            # It is recorded by add_inherited(), among the names that the page depends on.
            continue
        log.headers.setdefault(field_of_selector(selector), reader)
        log.accepts.inherit(selector, get)
