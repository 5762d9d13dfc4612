"""``GatewayCache``: a shared HTTP cache in front of a whole WSGI app. A hit never enters the app."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ...batches.batch import Batch
from ...batches.operations import BulkOperations, WarmTarget
from ...batches.purged import Purged
from ...batches.scheduler import BatchScheduler
from ...batches.selector import Selection
from ...batches.warmer import Urls
from ...config import settings as config
from ...config import values as config_values
from ...core.model.policy import Policy
from ...core.rules.prefer_stale import preference
from ...engine.engine import Engine
from ...errors import ConfigError
from ...stats.schema import Stats
from ...stores.base import Store
from ..setup.app_version import AppVersion
from ..setup.engine_setup import make_engine
from .backend import Backend
from .handler import Gateway
from .rules import Rules, base_policy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class GatewayCache(Gateway):
    """A shared HTTP cache in front of any WSGI app. It obeys the Cache-Control of the app's responses.

    :param wsgi_app: the app.
    :param store: where entries are stored; ``"memory"``: separately in the memory of each process. Default: in files in ``dir``.
    :param rules: pairs of a path pattern (``"/news/*"``) and a :class:`Policy`, for responses without Cache-Control. The first one
        that matches applies. Its callables are called with the WSGI environ, ``response_filter`` with the status line and the
        fields.
    :param settings: the ``STALECACHE_*`` keys in lower case without the prefix: ``dir=``, ``max_size=``,
        ``honor_request_cache_control=`` … Windows apply only if they are given here, and only where neither a response nor a rule
        sets one: the defaults of Flask apps do not apply.
    :raises ConfigError: for an unknown setting or a value that is not accepted, or without ``dir`` and ``store``.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        *,
        store: Store | Literal["file", "memory"] | None = None,
        rules: Mapping[str, Policy] | Iterable[tuple[str, Policy]] = (),
        **settings: Any,
    ) -> None:
        if not callable(wsgi_app):
            raise ConfigError(f"GatewayCache() needs a WSGI app, and {wsgi_app!r} is not callable")
        for name, advice in _OF_FLASK.items():
            if name in settings:
                raise ConfigError(f"{name}={settings[name]!r} has no effect on GatewayCache(): {advice}")
        # The same names as in a Flask configuration, so that one table of keys checks both.
        given = {f"{config.PREFIX}{name.upper()}": value for name, value in settings.items()}
        checked = config.read(given)
        own = None if store is None else config_values.store("store", store)
        engine = make_engine(self, checked, given, own, default_dir=None)
        # Entries of another version are stale if their version was deployed before this start.
        version = AppVersion(checked.version, time.time())
        terms = version.serve_options(prefer_stale=preference(checked.prefer_stale, checked.prefer_stale_refresh))
        backend = Backend.of(wsgi_app, engine, terms)
        preferred = preference(True, checked.prefer_stale_refresh)
        base = base_policy(checked, given)
        super().__init__(backend, Rules(rules, base, checked.ignored_parameters, terms, preferred), checked.status_headers)
        self._bulk = BulkOperations(BatchScheduler(engine, [self]), None, self._warm_target)

    def purge(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        soft: bool = False,
    ) -> Batch | Purged:
        """Remove stored responses, or only end their freshness. Every worker sees the purge at its next request.

        :param url: a path with its query, for all hosts; or a full URL.
        :param tag: responses with this tag.
        :param prefix: responses whose path starts with this, for all hosts; or whose full URL does. They are searched for in the
            background.
        :param all: everything in the store.
        :param soft: only end the freshness of the responses. Default false.
        :return: with ``prefix`` a :class:`Batch` that reports progress. Otherwise the purge is complete, and a :class:`Purged`
            tells whether it matched anything: ``if not cache.purge("/news"): …``
        :raises ConfigError: unless exactly one of ``url``, ``tag``, ``prefix`` and ``all`` is given, with a valid value.
        :raises StoreError: if the store can't be written.
        """
        return self._bulk.purge(Selection(url, tag, prefix=prefix, all=all), soft=soft)

    def refresh(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Refresh stored responses in the background, whether they are fresh or not, like :meth:`StaleCache.refresh`.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many requests run at a time, from 1 to 64. Default 4.
        :return: a batch that reports progress and the outcome of each request.
        :raises ConfigError: unless exactly one selector is given, with a valid value; or for another ``concurrency``.
        """
        return self._bulk.refresh(Selection(url, tag, prefix=prefix, all=all), concurrency)

    def publish(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Purge softly, and refresh the purged responses, like :meth:`StaleCache.publish`.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many requests run at a time, from 1 to 64. Default 4.
        :return: a batch that reports progress and the outcome of each request.
        :raises ConfigError: unless exactly one selector is given, with a valid value; or for another ``concurrency``.
        :raises StoreError: if the store can't be written.
        """
        return self._bulk.publish(Selection(url, tag, prefix=prefix, all=all), concurrency)

    def warm(
        self,
        urls: Urls,
        *,
        concurrency: int = 4,
        force: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Batch:
        """Fill the cache before clients arrive, like :meth:`StaleCache.warm`, but without endpoints.

        :param urls: a path, or a full URL; a list of those; or a sitemap.
        :param concurrency: how many requests run at a time, from 1 to 64. Default 4.
        :param force: refresh fresh responses too. Default false.
        :param headers: request fields to send.
        :return: a batch that reports progress and the outcome of each request.
        :raises ConfigError: for a path if ``base_url`` is not set; for a URL of another host, an invalid URL or sitemap, or a value
            that is not accepted. Then no request was sent.
        """
        return self._bulk.warm(urls, concurrency, force, headers)

    def run_refresh(self, job: Mapping[str, Any]) -> str:
        """Run a refresh that another process has handed over, in this thread, like :meth:`StaleCache.run_refresh`.

        :param job: the argument of the refresher's ``submit``.
        :return: ``"stored"``, ``"fresh"``, ``"busy"``, ``"failed"`` or ``"expired"``.
        :raises RefreshRefused: if it can't be run here: it belongs to another app or version, or the argument is no refresh.
        """
        return self._bulk.run_refresh(job)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the refreshes and batches of this process. Return whether all have ended.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        return self._bulk.drain(timeout)

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the cache directory, including ended ones.

        A process that is killed loses none of them. With a server that several hosts share, they cover all hosts; those of the
        other hosts are the ones last reported. With a store of your own they are the numbers of this process.
        """
        return self._engine.runtime.stats()

    def _warm_target(self) -> WarmTarget:
        return WarmTarget(self, self._engine.settings.base_url, with_raw=True, path_of=None, unknown_base=_UNKNOWN_BASE)


def engine_of(cache: GatewayCache) -> Engine:
    """Return the engine of a gateway: the metrics collector reads its numbers and reports to its log."""
    return cache._engine


_UNKNOWN_BASE = "warm() needs to know where the app is: give GatewayCache base_url='https://shop.example', or give warm() full URLs"
#: Settings of Flask apps, and what to do instead.
_OF_FLASK = {
    "enabled": "leave GatewayCache() out where nothing is to be cached",
    "gateway": "give rules=",
    "ignored_headers": "which fields matter, the app's responses say in Vary",
    "ignored_readers": "which fields matter, the app's responses say in Vary",
    "holes": "it knows nothing of the sessions of its app: set STALECACHE_HOLES in the app, for the pages of its views",
    "hooks_set_g": "it knows nothing of the hooks of its app: set STALECACHE_HOOKS_SET_G in the app, for the pages of its views",
    "session_opener": "it knows nothing of the sessions of its app; name cookies in the cookies of a rule",
}
