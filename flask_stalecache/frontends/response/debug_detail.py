"""Builds the debug detail of ``Cache-Status`` (``app.debug``): the key, and why a request was answered as it was. Pure."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol
from urllib.parse import quote

from ...core.addressing.keys import FORWARDED_FIELDS, NAMED
from ...core.model.entry import Entry
from ...core.model.holes import labels_of
from ...core.model.inputs import RequestInputs
from ...core.model.note import Note
from ...core.rules.explain import why_stale
from ...core.rules.prefer_stale import PreferStale
from ...core.rules.serving import ServeOptions, is_fresh
from ...core.rules.status import CacheStatus, key_and_detail
from ...engine.origin import Answer, Served
from ...stores.base import Copy


class Asking(Protocol):
    """A request whose response gets the debug detail."""

    @property
    def key(self) -> str:
        """The key of the response."""

    @property
    def environ(self) -> Mapping[str, Any]:
        """The request."""

    @property
    def terms(self) -> ServeOptions:
        """Its serving options."""

    def carried_part(self, names: RequestInputs) -> RequestInputs:
        """Return the names among these that the request carries."""


def debug_detail(asking: Asking, met: Copy, served: Served, now: float, *, pending: bool) -> str:
    """Return the parameters ``key`` and ``detail`` of ``Cache-Status``.

    :param met: the copy that was found when the request came.
    :param served: how the request is answered.
    :param now: seconds since the epoch.
    :param pending: a refresh is queued or runs in this process.
    """
    if served.answer is None:
        reasons = _of_copy(served, asking.terms, now, pending)
    else:
        reasons = _of_answer(served, served.answer, asking, met.entry, now)
    entry = served.entry
    holes = f"holes: {', '.join(labels_of(entry.holes))}" if entry is not None and entry.holes else ""
    return key_and_detail(readable_key(asking.key), "; ".join(filter(None, (*reasons, holes))))


def _of_copy(served: Served, terms: ServeOptions, now: float, pending: bool) -> Iterable[str]:
    copy = served.copy
    assert copy is not None
    assert copy.entry is not None
    yield _why_stale(copy.entry, terms, now)
    renewal = _renewal(served.refresh, copy.note, now, pending)
    yield renewal
    if served.status is CacheStatus.STALE and not renewal:
        is_left = terms.prefer_stale is PreferStale.ALONE
        yield "preferred stale, and not renewed" if is_left else "its origin has failed, or takes too long"


def _why_stale(entry: Entry, terms: ServeOptions, now: float) -> str:
    return "" if is_fresh(entry, now, terms) else why_stale(entry, now, terms)


def _renewal(is_ours: bool, note: Note, now: float, pending: bool) -> str:
    if is_ours:
        return "this request hands over its refresh"
    if note.backing_off(now):
        until = datetime.fromtimestamp(note.retry_at, timezone.utc).isoformat(timespec="seconds")
        failures = f" (failures so far: {note.failures})" if note.failures else ""
        return f"its origin is not called until {until}{failures}"
    return "its refresh is pending" if pending else ""


def _of_answer(served: Served, answer: Answer, asking: Asking, entry: Entry | None, now: float) -> Iterable[str]:
    is_barred, terms = False, asking.terms
    if entry is not None and served.status is CacheStatus.BYPASS:
        names = asking.carried_part(entry.absent)
        is_barred = bool(names) or ("HTTP_AUTHORIZATION" in asking.environ and not entry.shared)
        if is_barred:
            # If no name bars the request, Authorization does.
            yield f"the request carries {names.text or 'the field authorization'}, and what is stored is for those who don't"
    elif entry is not None:
        wish = "renew said so" if terms.renews else "the request wants it confirmed" if terms.reload else ""
        yield wish or _why_stale(entry, terms, now)
    if served.collapsed:
        yield "another request's call has failed"
    elif not served.stored and not is_barred:
        yield f"not stored: {answer.why_not_stored.text}"


def readable_key(key: str) -> str:
    """Return the key of a page in a readable form: the endpoint, the URL, and the request fields in the key."""
    kind, *parts = literal_eval(key)
    if kind == "variant":
        url_key, *values, names = parts
        return " ".join([readable_key(url_key), *map(_field, names, values)])
    view, (scheme, host, *forwarded), what, varied = parts
    pairs = (*zip(FORWARDED_FIELDS, forwarded, strict=True), *varied)
    # Without the names of cookies and session values: the key of the variant has them together with their values.
    fields = [_field(name, value) for name, value in pairs if value is not None and not (name == NAMED and type(value[0]) is tuple)]
    if len(what) == 1:
        return " ".join([f"{view}:", f"{scheme}://{host}", f"key={what[0][:8]}", *fields])
    script, path, raw, query = what
    # PEP 3333: the environ has the bytes of a path as latin-1.
    shown = raw or quote(f"{script}{path}".encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~")
    return " ".join([f"{view}:", f"{scheme}://{host}{shown}{'?' if query else ''}{query}", *fields])


def _field(name: str | tuple[str, ...], value: str | tuple[str] | None) -> str:
    """Return a part of a key: a request field, what an app has read of an Accept field, or a named cookie or session value."""
    name = name if isinstance(name, str) else " ".join(name[1:]) if name[0] == NAMED else name[0]
    return f"{name}:{value[0][:8] if isinstance(value, tuple) else value or ''}"
