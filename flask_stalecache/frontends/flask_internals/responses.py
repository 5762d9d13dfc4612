"""Responses from the store, made and sent without the checks that they have passed already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class StoredResponse(Response):
    """A response with status 200 from the store, which Werkzeug has checked and encoded when the view answered.

    Werkzeug would copy and check each field and encode each chunk again, which costs as much as the rest of a hit. It still does so
    if a hook has changed the response.

    :ivar given_fields: the fields it was made with.
    :ivar given_body: the body it was made with.
    """

    given_fields: list[tuple[str, str]] | None = None
    given_body: tuple[bytes] | None = None

    def get_wsgi_response(self, environ: WSGIEnvironment) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return body, status and fields as they are, where Werkzeug would return the same."""
        fields, body = self.given_fields, self.given_body
        if fields is None or body is None or self.headers._list != fields or self.response is not body:
            return super().get_wsgi_response(environ)
        if self._on_close or self._status_code != 200 or environ["REQUEST_METHOD"] != "GET":
            return super().get_wsgi_response(environ)
        return body, self._status, fields


def is_as_cloned(response: Response) -> bool:
    """Whether a response has the fields that :func:`clone_response` gave it, and no others."""
    return response.headers._list == response.__dict__.get("given_fields")


def clone_response(prepared: Response, more: list[tuple[str, str]]) -> Response:
    """Return a copy of a response with more fields. It runs on every hit; calling the class would cost several times as much."""
    kind = prepared.__class__
    fields = prepared.headers._list + more
    if kind.__init__ is not Response.__init__:
        # The constructor of the app's own class may create state that must not be shared.
        response = kind(prepared.response, status=prepared.status)
    else:
        response = kind.__new__(kind)
        response.__dict__.update(prepared.__dict__)
        response._on_close = []
    response.__dict__["given_fields"] = fields
    # Not Headers(fields), which would check and convert every field again.
    headers = response.headers = Headers.__new__(Headers)
    headers._list = fields.copy()
    return response
