"""What is done to many stored responses at once, where there is no Flask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..core.model.base_url import request_fields
from ..engine.engine import Engine
from ..errors import ConfigError
from .batch import Batch, concurrency_of
from .scheduler import BatchScheduler, drain_with
from .selector import Selector
from .warmer import Urls, Warmer, checked_flag

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Operations:
    """The part of :class:`~flask_stalecache.GatewayCache` that works on what is stored."""

    _engine: Engine
    _scans: BatchScheduler

    def purge(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        soft: bool = False,
    ) -> Batch | None:
        """Drop stored responses, or with ``soft`` end their freshness: every worker sees it at its next request.

        :param url: a path with its query, on all hosts; or a full URL, on its own.
        :param tag: the responses with this tag.
        :param prefix: the responses whose path begins so, on all hosts; or those whose full URL does. They are looked for in the
            background.
        :param all: everything in the store.
        :return: with ``prefix`` a :class:`Batch`, which tells how far it is; else ``None``: it is done.
        :raises ConfigError: unless exactly one of ``url``, ``tag``, ``prefix`` and ``all`` is given, and it makes sense.
        :raises StoreError: if the store can't be written.
        """
        if not isinstance(soft, bool):
            raise ConfigError(f"soft={soft!r}: give True or False")
        return self._scans.purge(self._selector("a purge", url, tag, prefix, all), soft=soft)

    def refresh(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Ask the app again for what is stored, fresh or not, in the background: as :meth:`StaleCache.refresh` does.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are asked for at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        """
        return self._scans.refresh(self._selector("a refresh", url, tag, prefix, all), concurrency_of(concurrency))

    def publish(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Purge softly, and refresh what that was of: as :meth:`StaleCache.publish` does.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are asked for at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        :raises StoreError: if the store can't be written.
        """
        return self._scans.refresh(self._selector("a publish", url, tag, prefix, all), concurrency_of(concurrency), publish=True)

    def warm(
        self,
        urls: Urls,
        *,
        concurrency: int = 4,
        force: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Batch:
        """Fill the store before clients come: as :meth:`StaleCache.warm` does, but without endpoints.

        :param urls: a path, or a full URL; a list of those; or a sitemap.
        :param concurrency: how many are asked for at a time, 1 to 64. Default 4.
        :param force: ask for what is fresh again too. Default false.
        :param headers: request fields to send.
        :return: how far it is, and what came of each.
        :raises ConfigError: if ``base_url`` is missing; for a URL of another host, what is no URL or no sitemap, or a value that is
            not accepted. Then nothing has been asked for.
        """
        settings = self._engine.settings
        if settings.base_url is None:
            raise ConfigError("warm() needs to know where the app is: give GatewayCache base_url='https://shop.example'")
        warmer = Warmer(
            app=self,
            base=settings.base_url,
            fields=request_fields(headers),
            with_raw=True,
            force=checked_flag("force", force),
            max_size=settings.max_entry_size,
            path_of=None,
        )
        return self._scans.run("warm", warmer.tasks(urls), concurrency_of(concurrency))

    @abstractmethod
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the refreshes that this process handed over are done, and its batches; return whether they are.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        return drain_with(self._scans.drain, self._engine.drain, timeout)

    def _selector(self, what: str, url: object, tag: object, prefix: object, everything: object) -> Selector:
        return Selector.of(url, tag, None, prefix, everything, self._engine.settings.ignored_parameters, what=what)
