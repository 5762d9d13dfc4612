"""Makes adapters and sessions of ``requests``, which not every app has installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.model.checks import unknown_parameter
from ...errors import ConfigError
from .rules import SessionRules

if TYPE_CHECKING:
    from requests import Session
    from requests.adapters import BaseAdapter


def session_rules(method: str, unknown: Mapping[str, object], **given: Any) -> SessionRules:
    """Return the rules that a developer gave to a method.

    :param method: its name, for the error message.
    :param unknown: parameters that it does not have.
    :param given: what :meth:`SessionRules.of` takes.
    :raises ConfigError: for an unknown parameter, or a value that is not accepted.
    """
    if unknown:
        raise ConfigError(unknown_parameter(method, next(iter(unknown)), [*given, "adapter"]))
    return SessionRules.of(**given)


def make_adapter(rules: SessionRules, inner: object) -> BaseAdapter:
    """Return a caching adapter under these rules.

    :param inner: the adapter that sends requests to third parties; ``None``: a new ``HTTPAdapter``.
    :raises ConfigError: if ``inner`` is no adapter, or requests is not installed.
    """
    try:
        from .adapter import caching_adapter
    except ModuleNotFoundError as error:
        if error.name != "requests":
            raise
        raise ConfigError("sessions need requests, which is not installed: pip install 'flask-stalecache[requests]'") from error
    caching: BaseAdapter = caching_adapter(rules, inner)
    return caching


def make_session(adapter: BaseAdapter) -> Session:
    """Return a new session that sends all of its requests through an adapter."""
    from requests import Session

    session = Session()
    for prefix in ("https://", "http://"):
        session.mount(prefix, adapter)
    return session
