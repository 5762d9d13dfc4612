"""``GatewayCache``: a shared HTTP cache in front of a whole WSGI app. A hit never enters the app."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ... import config
from ...batches.operations import Operations
from ...batches.scheduler import BatchScheduler
from ...core.model.policy import Policy
from ...core.rules.prefer_stale import preference
from ...errors import ConfigError
from ...stats.schema import Stats
from ...stores.base import Store
from ..app_version import AppVersion
from ..engine_setup import make_engine
from .backend import Backend
from .handler import Gateway
from .rules import Rules, base_policy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class GatewayCache(Gateway, Operations):
    """A shared HTTP cache in front of any WSGI app: it obeys what the app's responses say.

    :param wsgi_app: the app.
    :param store: where entries live. Default: files in ``dir``.
    :param rules: pairs of a path pattern (``"/news/*"``) and a :class:`Policy`, for apps whose responses say nothing. The first
        that matches holds. Callables in it are given the WSGI environ; ``response_filter`` the status line and the fields.
    :param settings: the ``STALECACHE_*`` keys in lower case without the prefix: ``dir=``, ``max_size=``,
        ``honor_request_cache_control=`` … Of the windows only those count that are given here, and only where responses and
        rules say nothing.
    :raises ConfigError: for an unknown setting or a value that is not accepted, or without ``dir`` and ``store``.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        *,
        store: Store | None = None,
        rules: Mapping[str, Policy] | Iterable[tuple[str, Policy]] = (),
        **settings: Any,
    ) -> None:
        if not callable(wsgi_app):
            raise ConfigError(f"GatewayCache() stands in front of a WSGI app, and {wsgi_app!r} is none")
        for name, advice in _OF_FLASK.items():
            if name in settings:
                raise ConfigError(f"{name}={settings[name]!r} has no effect on GatewayCache(): {advice}")
        given = {f"{config.PREFIX}{name.upper()}": value for name, value in settings.items()}
        checked = config.read(given)
        own = None if store is None else config.store("store", store)
        engine = make_engine(self, checked, given, own, default_dir=None)
        version = AppVersion(checked.version, time.time())
        terms = version.serve_options(prefer_stale=preference(checked.prefer_stale, checked.prefer_stale_refresh))
        plan = Backend.of(wsgi_app, engine, terms)
        preferred = preference(True, checked.prefer_stale_refresh)
        base = base_policy(checked, given)
        super().__init__(plan, Rules(rules, base, checked.ignored_parameters, terms, preferred), checked.status_headers)
        self._scans = BatchScheduler(engine, [self])

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the directory, living and dead.

        Nothing is lost with a process that is killed. With a store of your own they are those of this process.
        """
        return self._engine.stats()


#: Settings of Flask apps, and what to do instead.
_OF_FLASK = {
    "enabled": "leave GatewayCache() out where nothing is to be cached",
    "gateway": "give rules=",
    "ignored_headers": "which fields matter, the app's responses say in Vary",
    "ignored_readers": "which fields matter, the app's responses say in Vary",
}
