"""What is known of a session's requests before they are made: the developer's rules, and the app in which they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ...config import Settings
from ...core.http.invalidation import normal_url
from ...core.model.keys import digest
from ...core.model.policy import NamePatterns, Policy
from ...core.model.purge_names import EVERYTHING, tag_name, url_name
from ...core.rules.serving import ServeOptions, preference
from ...engine.engine import Engine
from ...engine.thread_pool import ThreadPool
from ...errors import ConfigError
from ...stats.tally import Tally

#: What goes before a third party's own word: nothing.
UNSAID = Policy(jitter=0)
#: Fields that tell callers apart, and what holds for them.
_NEVER_VARIED = {
    "authorization": "what is asked with Authorization is stored only where the third party allows it",
    "cookie": "the third party names it in Vary where it matters",
}


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What the developer wrote for a session.

    :param policy: the windows where a third party says nothing, what is in the key, tags and waits.
    :param inherit: what is made of its responses takes over their tags and their freshness.
    :raises ConfigError: for a value that is not accepted.
    """

    policy: Policy
    inherit: bool

    def __post_init__(self) -> None:
        policy = self.policy
        if callable(policy.tags):
            raise ConfigError(f"tags={policy.tags!r}: give names, such as ('rates',)")
        if callable(policy.prefer_stale):
            raise ConfigError(f"prefer_stale={policy.prefer_stale!r}: give True or False")
        if not isinstance(self.inherit, bool):
            raise ConfigError(f"inherit={self.inherit!r}: give True or False")

    @classmethod
    def of(cls, inherit: bool, vary: Any, **given: Any) -> SessionRules:
        """Return the rules that a developer wrote.

        :param given: what :class:`Policy` takes.
        :raises ConfigError: for a value that is not accepted.
        """
        for name in vary if isinstance(vary, (tuple, list, set, frozenset, dict)) else ():
            if isinstance(name, str) and name.lower() in _NEVER_VARIED:
                raise ConfigError(f"vary contains {name!r}: leave it out, since {_NEVER_VARIED[name.lower()]}")
        return cls(Policy(vary=vary, jitter=0, **given), inherit)

    def names(self, url: str, settings: Settings) -> tuple[str, ...]:
        """Return what a response can be purged by: its full URL, and the tags.

        :param url: as :func:`normal_url` returns it.
        """
        name = url_name(url, NamePatterns((*settings.ignored_parameters.items, *self.policy.ignored_parameters.items)))
        return EVERYTHING, name, *map(tag_name, self.policy.tags)

    def url_key(self, url: str, fields: dict[str, str], way: tuple[object, ...]) -> str:
        """Return the key of a URL, whatever variants it has.

        :param url: as :func:`key_url` returns it.
        :param fields: the request's fields as a WSGI environ has them.
        :param way: how the third party is reached and recognised.
        """
        varied = [_varied(name, normalise, fields) for name, normalise in self.policy.vary.items()]
        return ascii(("session", url, way, tuple(varied)))


def _varied(name: str, normalise: Callable[[str | None], str | None] | None, fields: dict[str, str]) -> tuple[str, str | None]:
    value = fields.get(f"HTTP_{name.upper().replace('-', '_')}")
    if normalise is not None:
        value = normalise(value)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"the normaliser of {name} returned {type(value).__name__}: return a string or None")
    # It may be somebody's token, which is not for the disk.
    return name, None if value is None else digest(value)


# Parsing a URL is a good part of the cost of a hit, and the same ones are asked for again and again.
@lru_cache(maxsize=1024)
def key_url(url: str, ignored: NamePatterns) -> str | None:
    """Return the URL that is in the key, without ignored parameters; ``None`` if it is none of HTTP."""
    normal = normal_url(url)
    if normal is None or not ignored:
        return normal
    parts = urlsplit(normal)
    return urlunsplit(parts._replace(query=ignored.split(parts.query)[0]))


@lru_cache(maxsize=1024)
def host_of(url: str) -> str:
    """Return the host of a URL as it is counted: with its port, if that is not the scheme's own; never with a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


class AppContext:
    """An app whose sessions are cached.

    :param engine: answers requests.
    :param pool: the threads that renew.
    :param terms_of: returns what is said of serving what is stored, whoever asks.
    """

    def __init__(self, engine: Engine, pool: ThreadPool, terms_of: Callable[[], ServeOptions]) -> None:
        self.engine = engine
        self.pool = pool
        self.settings = engine.settings
        self._terms_of = terms_of

    def tally(self, url: str) -> Tally:
        """Return where a third party is counted.

        :param url: as :func:`key_url` returns it.
        """
        return self.engine.registry.tally("host", host_of(url))

    @cached_property
    def _terms(self) -> ServeOptions:
        # Not before the first request: until then the app may still be configured.
        return self._terms_of()

    def terms(self, rules: SessionRules) -> ServeOptions:
        """Return what is said of serving what is stored under a session's rules."""
        given = rules.policy.prefer_stale
        prefers = self.settings.prefer_stale if given is None else given
        return self._terms._replace(prefer_stale=preference(prefers, self.settings.prefer_stale_refresh))

    def lock_timeout(self, rules: SessionRules) -> float:
        """Return the seconds to wait for another's request at most."""
        given: float | None = rules.policy.lock_timeout
        return self.settings.lock_timeout if given is None else given
