"""A Prometheus collector. ``prometheus_client`` is an optional dependency, imported only when a collector is created."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from flask import Flask

from .app_state import state_of
from .engine.engine import Engine
from .errors import ConfigError
from .frontends.gateway.gateway_cache import GatewayCache, engine_of
from .stats.counters import Counters
from .stats.registry import Registry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
else:
    # prometheus_client accepts any object that has the methods.
    Collector = object


class StaleCacheCollector(Collector):
    """Exports the statistics of all processes that share a cache directory, including those that have ended.

    It counts nothing itself: each scrape reads what :meth:`StaleCache.stats` returns for this host. So every worker of a host
    returns the same metrics, and the multiprocess mode of ``prometheus_client`` has nothing to merge. Each of the hosts that share
    a server is a separate target: Prometheus adds them up.

    :param app: the app, set up by :class:`StaleCache`; or a :class:`GatewayCache`.
    :raises ConfigError: for anything else, or if prometheus-client is not installed.
    """

    def __init__(self, app: Flask | GatewayCache) -> None:
        self._families = _families().families
        self._engine = _engine_of(app)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics. If they can't be read, log that and return none: the site's other metrics must not fail with them."""
        try:
            return list(self._families(self._engine.runtime.stats_here()))
        except Exception as error:
            complaints = self._engine.complaints
            complaints.error_every_minute("metrics", "the numbers can't be read, and none are told: %r", error, exc_info=error)
            return []

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, so that registering the collector reads no statistics; doing it twice is an error."""
        return list(self._families(Registry(Counters()).read(0, 0, None)))


def _families() -> ModuleType:
    """Return the module that imports ``prometheus_client``."""
    try:
        from .stats import prometheus
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise ConfigError(
            "StaleCacheCollector() needs prometheus-client, which is not installed: pip install 'flask-stalecache[metrics]'"
        ) from error
    return prometheus


def _engine_of(app: object) -> Engine:
    if isinstance(app, GatewayCache):
        return engine_of(app)
    if isinstance(app, Flask):
        return state_of(app).engine
    raise ConfigError(f"StaleCacheCollector() tells of an app or a GatewayCache, and {app!r} is neither")
