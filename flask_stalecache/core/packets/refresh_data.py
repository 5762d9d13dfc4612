"""A refresh as data. It names the entry, which another process makes again from its recipe. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import Any

from ..addressing.keys import is_digest

#: The version of the data format. A process with another version refuses the data.
FORM = 1
#: The greatest length of a name in characters: names come from outside.
_LONGEST = 500


class OriginKind(str, Enum):
    """The front end that makes the entry."""

    PAGE = "page"
    CALL = "call"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshData:
    """The entry that is to be refreshed. Nothing in it reaches a request: the recipe is in the entry, which the store keeps.

    :param app: the name of the app.
    :param version: the version of the app.
    :param kind: the front end that makes the entry.
    :param address: the digest of its key.
    :param serial: the serial of the stored entry. If another entry has replaced it, there is nothing to do.
    :param is_forced: the refresh is run even if the entry is fresh or its origin is backing off. Not in the data for queues.
    :param expires: from when on the refresh is no longer run, in seconds since the epoch.
    """

    app: str
    version: str
    kind: OriginKind
    address: str
    serial: str
    expires: float
    is_forced: bool = False

    @property
    def mark(self) -> str:
        """The name under which the refresh is marked as queued. Each entry of a key has a different name."""
        return f"{self.address} {self.serial}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a dictionary of strings and numbers, which any queue can carry."""
        return {
            "v": FORM,
            "app": self.app,
            "version": self.version,
            "kind": self.kind.value,
            "key": self.address,
            "serial": self.serial,
            "expires": self.expires,
        }

    @classmethod
    def from_json(cls, job: object) -> RefreshData:
        """Return the data of :meth:`to_json`.

        :raises ValueError: for anything else; it says what is wrong.
        """
        if not isinstance(job, Mapping):
            raise ValueError(f"a refresh is a dictionary, not {type(job).__name__}")
        if job.get("v") != FORM:
            raise ValueError(f"it has the form v={job.get('v')!r}, and this version of the package knows v={FORM}")
        address, expires = _text(job, "key"), job.get("expires")
        if not is_digest(address):
            raise ValueError(f"key={address!r} is not the digest of a key")
        if isinstance(expires, bool) or not isinstance(expires, (int, float)) or not isfinite(expires):
            raise ValueError(f"expires={expires!r} is not a time in seconds since the epoch")
        return cls(
            app=_text(job, "app"),
            version=_text(job, "version"),
            kind=_kind(job),
            address=address,
            serial=_text(job, "serial"),
            expires=float(expires),
        )


def _text(job: Mapping[Any, Any], name: str) -> str:
    value = job.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{name}={value!r:.60} is not a short string")
    return value


def _kind(job: Mapping[Any, Any]) -> OriginKind:
    try:
        return OriginKind(job.get("kind"))
    except ValueError:
        raise ValueError(f"kind={job.get('kind')!r:.60} is not one of {', '.join(OriginKind)}") from None


def is_repeatable(recipe: Mapping[str, Any]) -> bool:
    """Whether a process without a visitor's request can make an entry again from its recipe alone.

    :param recipe: the recipe, as it is stored.
    """
    if "function" in recipe:
        return recipe.get("arguments") is not None
    return "scheme" in recipe and not recipe.get("digests") and not recipe.get("session")
