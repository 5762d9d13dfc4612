"""Decides which requests may share an answer: the same for cached views and for the gateway.

===========================  =============================================================================
:attr:`may_collapse`         only a GET without Authorization and body is likely to be stored, so others wait for it
:meth:`is_barred_from`       an entry is not for requests with a name that was absent when it was made
:meth:`carries`              a request with a name that kept an answer from the store does not wait
===========================  =============================================================================
"""

from __future__ import annotations

from typing import Any

from ..core.model.entry import Entry
from ..core.model.inputs import RequestInputs
from ..engine.origin import Origin
from .request_body import has_unannounced_body


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
        # Only a response that says so may answer a request with Authorization (RFC 9111 section 3.5).
        if "HTTP_AUTHORIZATION" in self.environ and not entry.shared:
            return True
        return entry.absent.present_in(self.environ)

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these cookies or fields."""
        return names.present_in(self.environ)
