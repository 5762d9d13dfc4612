"""The request of a caller, and how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.utils import select_proxy

from ...core.model.environ import environ_name
from ...core.model.policy import FAILURE_STATUSES

#: Conditions that the stored response answers, so they are not sent to the third party.
CONDITIONS = ("If-None-Match", "If-Modified-Since")


class OutgoingRequest(NamedTuple):
    """A request and how it is sent.

    :ivar adapter: sends it.
    :ivar options: the other arguments of the adapter.
    """

    adapter: BaseAdapter
    request: PreparedRequest
    stream: bool
    options: Mapping[str, Any]

    def send(self, request: PreparedRequest, stream: bool) -> Response:
        """Send a request the same way."""
        return self.adapter.send(request, stream=stream, **self.options)

    def changed(self, less: tuple[str, ...], more: list[tuple[str, str]]) -> PreparedRequest:
        """Return the request without some fields and with some more."""
        request = self.request.copy()
        for name in less:
            request.headers.pop(name, None)
        request.headers.update(more)
        return request

    def route(self, url: str) -> tuple[object, ...]:
        """Return how the third party is reached and verified. A response that came unverified must not reach callers who verify."""
        proxy = select_proxy(url, dict(self.options.get("proxies") or {}))
        parts = urlsplit(proxy) if proxy else None
        through = f"{parts.hostname}:{parts.port}" if parts is not None else None
        # Without TLS there is nothing to verify, so verify and cert make no difference.
        if not url.startswith("https:"):
            return (through,)
        return (through, _plain(self.options.get("verify")), _plain(self.options.get("cert")))


def has_failed(response: Response) -> bool:
    """Whether the third party's response is a failure."""
    return response.status_code in FAILURE_STATUSES


def _plain(value: Any) -> object:
    if isinstance(value, (tuple, list)):
        return tuple(map(str, value))
    return value if value is None or isinstance(value, bool) else str(value)


def text_of(value: Any) -> str:
    """Return a field's value as a string: ``requests`` takes bytes too."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def environ_of(request: PreparedRequest) -> dict[str, str]:
    """Return the fields of a request under their names in a WSGI environ."""
    environ: dict[str, str] = {}
    for name, value in request.headers.items():
        known = environ_name(text_of(name))
        environ[known] = f"{environ[known]}, {text_of(value)}" if known in environ else text_of(value)
    return environ
