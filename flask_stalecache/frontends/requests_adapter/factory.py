"""The part of :class:`StaleCache` that makes sessions of ``requests``, which not every app has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...core.model.policy import Duration, Normaliser, unknown_parameter
from ...errors import ConfigError
from .rules import SessionRules

if TYPE_CHECKING:
    from requests import Session
    from requests.adapters import BaseAdapter
    from typing_extensions import Never


class MakesSessions:
    """What makes sessions, and adapters for sessions that there are already."""

    def session(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        ignored_parameters: Iterable[str] = (),
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] = (),
        prefer_stale: bool | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        inherit: bool = True,
        adapter: BaseAdapter | None = None,
        **unknown: Never,
    ) -> Session:
        """Return a ``requests.Session`` whose adapter is a shared HTTP cache: third parties say by their own headers what it does.

        Windows given here hold where a third party says nothing. It may be made once, for all apps and threads, and caches in app
        contexts; outside of one everything is asked for.

        :param max_age: seconds of freshness of responses that say none. Default: what HTTP's heuristics say, which is 0 without a
            Last-Modified.
        :param stale_while_revalidate: seconds after freshness in which a response is returned at once and renewed behind, where it
            does not say (RFC 5861 section 3). Default 0.
        :param stale_if_error: seconds after freshness in which it is returned if the third party can't be reached, breaks off, or
            answers 429, 500, 502, 503 or 504, where it does not say (RFC 5861 section 4). Default 0.
        :param ignored_parameters: query parameters that are sent and not in the key: names, or patterns such as ``utm_*``.
        :param vary: request fields that are in the key, whatever a third party says in ``Vary``: a header with an API key; or a
            mapping of field to a callable that normalises its value (or ``None`` where it is absent).
        :param statuses: status to lifetime in seconds (``None``: ``max_age``) where the response says none, added to 200, 301, 308.
        :param tags: names on the responses, by which :meth:`purge` finds them.
        :param prefer_stale: what is stored is returned, however old, and renewed behind. Default: ``STALECACHE_PREFER_STALE``.
        :param wait: seconds to wait for the renewal of a response that stale-if-error covers at most; it goes on in the background,
            and the stored one is returned. Default: as long as it takes.
        :param lock_timeout: seconds to wait for another caller's request at most. Default ``STALECACHE_LOCK_TIMEOUT``.
        :param inherit: pages and values made from responses take over their tags and their freshness. Default true.
        :param adapter: asks the third parties, such as ``HTTPAdapter(max_retries=3)``. Default: a new ``HTTPAdapter``.
        :raises ConfigError: for a value that is not accepted, an unknown parameter, or if requests is not installed.
        """
        session: Session = _sessions().caching_session(_rules("session()", **locals()), adapter)
        return session

    def adapter(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        ignored_parameters: Iterable[str] = (),
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] = (),
        prefer_stale: bool | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        inherit: bool = True,
        adapter: BaseAdapter | None = None,
        **unknown: Never,
    ) -> BaseAdapter:
        """Return the adapter of :meth:`session` alone, for a session that there is already: ``session.mount(prefix, adapter)``.

        The parameters are those of :meth:`session`.

        :raises ConfigError: for a value that is not accepted, an unknown parameter, or if requests is not installed.
        """
        caching: BaseAdapter = _sessions().caching_adapter(_rules("adapter()", **locals()), adapter)
        return caching


def _sessions() -> ModuleType:
    """Return the module that knows ``requests``."""
    try:
        from . import adapter
    except ModuleNotFoundError as error:
        if error.name != "requests":
            raise
        raise ConfigError("sessions need requests, which is not installed: pip install 'flask-stalecache[requests]'") from error
    return adapter


def _rules(what: str, unknown: Mapping[str, object], adapter: object, **given: Any) -> SessionRules:
    """Return the rules that were given to a method: its local names at its very beginning.

    :raises ConfigError: for a value that is not accepted, or an unknown parameter.
    """
    del given["self"]
    if unknown:
        raise ConfigError(unknown_parameter(what, next(iter(unknown)), [*given, "adapter"]))
    return SessionRules.of(**given)
