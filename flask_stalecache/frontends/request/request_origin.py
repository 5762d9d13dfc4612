"""Decides which requests may share an answer, for cached views and for the gateway alike.

===========================  =============================================================================
:attr:`may_collapse`         only a GET without Authorization and body is likely to be stored, so others wait for it
:meth:`is_barred_from`       an entry is not served to a request with a name that was absent when it was made
:meth:`carries`              a request with a name that kept an answer out of the store does not wait
===========================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...core.addressing.keys import FORWARDED_FIELDS
from ...core.model.entry import Entry
from ...core.model.environ import environ_name
from ...core.model.inputs import AUTHORIZATION, RequestInputs
from ...engine.origin import Answer, Origin
from .request_body import has_unannounced_body

_NO_DIFFERENCE = frozenset({"REMOTE_PORT"})
_TOLD_APART_BY = frozenset(
    {"AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_METHOD", "REQUEST_URI"}
)


def all_fields(environ: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return all variables of a request that may distinguish visitors: requests that agree in them may get one visitor's answer."""
    return tuple(
        sorted(
            (name, str(value))
            for name, value in environ.items()
            if name in _TOLD_APART_BY or (name.startswith(("HTTP_", "REMOTE_", "SSL_")) and name not in _NO_DIFFERENCE)
        )
    )


def share_alike(failure: Answer, environ: Mapping[str, Any], whole: Answer | None, *, again: bool) -> Answer | None:
    """Return the part of another request's failure that a request may be given: the whole if both are alike, else its bare form.

    Return ``None`` if it may be given neither.

    :param environ: the request.
    :param whole: the failure, if it may be given to requests that are alike.
    :param again: the request has met a failure before, so the failure may not be due to one visitor.
    """
    if whole is not None and failure.asked in (None, all_fields(environ)):
        return whole
    if not again or (failure.error is None and failure.bare is None):
        return None
    # An exception shows nothing of a visitor's page.
    return failure if failure.error is not None else replace(failure, shared=failure.bare)


#: A value of at least this length does not appear in a page by chance.
_TELLING = 5
_IN_KEY = frozenset(map(environ_name, ("host", *FORWARDED_FIELDS)))
#: Fields with values that many visitors have in common.
_COMMON = _IN_KEY | {"HTTP_CONNECTION", "HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_UPGRADE_INSECURE_REQUESTS"}
_COMMON_PREFIXES = ("HTTP_ACCEPT", "HTTP_SEC_", "HTTP_IF_")


def shows_request(environ: Mapping[str, Any], body: bytes) -> bool:
    """Whether a page contains the value of a request field or the address of the visitor, which the key lacks."""
    return any(value in body for value in _telling_values(environ))


def _telling_values(environ: Mapping[str, Any]) -> Iterator[bytes]:
    for name, value in environ.items():
        is_field = name.startswith("HTTP_") and name not in _COMMON and not name.startswith(_COMMON_PREFIXES)
        if (is_field or name == "REMOTE_ADDR") and isinstance(value, str) and len(value) >= _TELLING:
            yield value.encode("latin-1", "replace")


class RequestOrigin(Origin):
    """An origin for one WSGI request.

    :ivar environ: the WSGI environ of the request.
    """

    environ: dict[str, Any]

    __slots__ = ()

    @property
    def may_collapse(self) -> bool:
        """Whether other requests may wait for this one's call: not if its answer is unlikely to be stored."""
        is_plain = self.environ["REQUEST_METHOD"] == "GET" and "HTTP_AUTHORIZATION" not in self.environ
        return is_plain and not self.has_body

    @property
    def has_body(self) -> bool:
        """Whether the request has a body although no field announces one."""
        return has_unannounced_body(self.environ)

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry must not be served to this request: it carries an absent name of the entry, or Authorization."""
        # Only a response that allows it may answer a request with Authorization (RFC 9111 section 3.5).
        if "HTTP_AUTHORIZATION" in self.environ and not entry.shared:
            return True
        return entry.absent.present_in(self.environ, self.holds)

    def barred_by(self, entry: Entry) -> RequestInputs:
        """Return the absent names of an entry that the request carries, or Authorization."""
        return self.carried_part(entry.absent) or AUTHORIZATION

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these cookies, session keys or fields."""
        return names.present_in(self.environ, self.holds)

    def carried_part(self, names: RequestInputs) -> RequestInputs:
        """Return those of some names that the request carries."""
        return names.carried_part(self.environ, self.holds)

    def holds(self, keys: tuple[str, ...]) -> bool:
        """Whether the session of the request has one of these keys. If that is unknown, any visitor with a cookie may have them."""
        return "HTTP_COOKIE" in self.environ
