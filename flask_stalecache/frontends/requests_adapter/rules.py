"""The rules that a developer wrote for a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...config.settings import Settings
from ...core.addressing.keys import digest
from ...core.addressing.purge_names import EVERYTHING, tag_name, url_name
from ...core.model.policy import Policy
from ...core.model.query import NamePatterns
from ...errors import ConfigError

#: No policy overrides the headers of a third party.
UNSAID = Policy(jitter=0)
#: Request fields that can't be in ``vary``, and why they need not be.
_NEVER_VARIED = {
    "authorization": "what is asked with Authorization is stored only where the third party allows it",
    "cookie": "the third party names it in Vary where it matters",
}


@dataclass(frozen=True, slots=True)
class SessionRules:
    """The developer's rules for a session.

    :param policy: the windows where a third party sends none, the parts of the key, the tags, and the waiting times.
    :param inherit: pages and values made from its responses inherit their tags and their freshness.
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
        """Return the rules with a developer's values.

        :param given: parameters of :class:`Policy`.
        :raises ConfigError: for a value that is not accepted.
        """
        for name in vary if isinstance(vary, (tuple, list, set, frozenset, dict)) else ():
            if isinstance(name, str) and name.lower() in _NEVER_VARIED:
                raise ConfigError(f"vary contains {name!r}: leave it out, since {_NEVER_VARIED[name.lower()]}")
        return cls(Policy(vary=vary, jitter=0, **given), inherit)

    def names(self, url: str, settings: Settings) -> tuple[str, ...]:
        """Return the names that a response can be purged by: the one of all entries, its full URL, and the tags.

        :param url: as :func:`~.url_key.key_url` returns it.
        """
        name = url_name(url, NamePatterns((*settings.ignored_parameters.items, *self.policy.ignored_parameters.items)))
        return EVERYTHING, name, *map(tag_name, self.policy.tags)

    def url_key(self, url: str, fields: dict[str, str], route: tuple[object, ...]) -> str:
        """Return the key of a URL, without variants.

        :param url: as :func:`~.url_key.key_url` returns it.
        :param fields: the request fields under their names in a WSGI environ.
        :param route: how the third party is reached and verified.
        """
        varied = [_varied(name, normalise, fields) for name, normalise in self.policy.vary.items()]
        return ascii(("session", url, route, tuple(varied)))


def _varied(name: str, normalise: Callable[[str | None], str | None] | None, fields: dict[str, str]) -> tuple[str, str | None]:
    value = fields.get(f"HTTP_{name.upper().replace('-', '_')}")
    if normalise is not None:
        value = normalise(value)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"the normaliser of {name} returned {type(value).__name__}: return a string or None")
    # The value may be a token, which must not be written to disk.
    return name, None if value is None else digest(value)
