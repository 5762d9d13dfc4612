"""Sends one warming request to the app in this process, and returns the outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.addressing.recipe import PageRecipe
from ..core.http.fields import is_event_stream
from ..core.model.environ import WARMING
from ..core.wsgi import AppReply
from .batch import Outcome
from .warm_request import FRESH, Warming

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Reply(AppReply):
    """The app's response to one request.

    :ivar error: the exception that the app raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._chunks: list[bytes] = []

    @property
    def code(self) -> int | None:
        """The status code; ``None`` without a response."""
        return int(self.status[:3]) if self.status[:3].isdigit() else None

    @property
    def body(self) -> bytes:
        """The part of the body that was read."""
        return b"".join(self._chunks)

    def go(self, app: WSGIApplication, environ: dict[str, Any], limit: int) -> None:
        """Call the app, and read its body up to a limit. An event stream never ends, and is not read."""
        size = 0
        with self.of(app, environ) as body:
            for chunk in body:
                self.write(chunk)
                size += len(chunk)
                if size > limit or is_event_stream(self.headers):
                    break

    def write(self, data: bytes) -> None:
        """Collect a part of the body."""
        self._chunks.append(data)


@dataclass(frozen=True, slots=True)
class WarmCall:
    """Calls an app in this process.

    :param app: the app, with all middleware.
    :param max_size: the maximum number of bytes to read of a page.
    :param remote_addr: the address that the requests come from.
    """

    app: WSGIApplication
    max_size: int
    remote_addr: str

    def ask(self, recipe: PageRecipe, fields: Mapping[str, str], warming: Warming | None, limit: int) -> Reply:
        """Send a request.

        :param fields: additional request fields to send, as in an environ.
        :param warming: records how the app answers; ``None`` for the request for a sitemap.
        :param limit: the maximum number of bytes to read of the body.
        """
        environ = {**recipe.to_environ(self.remote_addr), **fields}
        if warming is not None:
            environ[WARMING] = warming
        reply = Reply()
        try:
            reply.go(self.app, environ, limit)
        except Exception as error:
            reply.error = error
        return reply

    def warm(self, url: str, recipe: PageRecipe, fields: Mapping[str, str], *, force: bool) -> Outcome:
        """Request a page, and read the response to its end so that it is stored.

        :param url: the URL in the outcome.
        :param force: refresh a fresh entry too.
        """
        began = time.monotonic()
        warming = Warming(force)
        reply = self.ask(recipe, fields, warming, self.max_size)
        seconds = time.monotonic() - began
        if reply.error is not None:
            return Outcome(url, reply.code, seconds, reason=warming.reason or repr(reply.error), failed=True)
        if warming.is_fresh:
            return Outcome(url, reply.code, seconds, stored=True, reason=FRESH, skipped=True)
        if warming.stored or (warming.later is not None and warming.later()):
            return Outcome(url, reply.code, seconds, stored=True)
        reason = warming.reason or "nothing caches it"
        failed = warming.failed or (reply.code or 500) >= 500
        return Outcome(url, reply.code, seconds, reason=reason, skipped=warming.is_backing_off, failed=failed)
