"""A warming request as data, for another process that sends it, and the names of the files that carry it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ..addressing.base_url import environ_fields
from ..addressing.keys import is_digest
from ..addressing.purge_names import DEFAULT_PORTS
from ..addressing.recipe import IN_EVERY_KEY, PageRecipe
from ..model.environ import field_of

#: The version of the data format. A process with another version refuses the data.
FORM = 1
#: The greatest size of a request in bytes. A larger one is sent by the process that has it.
LARGEST = 64 * 1024
#: The names in the cache directory of requests and their outcomes, also while they are written.
FILES = re.compile(r"warm-[0-9a-f]{40}(\.done)?(\.[0-9a-f]{16}\.tmp)?")


def file_name(address: str, *, is_done: bool = False) -> str:
    """Return the name of the file with a request, or with its outcome.

    :param address: a unique identifier of the request, in the form of a digest.
    :raises ValueError: for another form, since the address becomes part of a file name.
    """
    if not is_digest(address):
        raise ValueError(f"address={address!r:.60} is not a digest")
    return f"warm-{address}{'.done' if is_done else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmData:
    """One request of a warming.

    :param app: the name of the app.
    :param version: the version of the app.
    :param url: the URL, as in the outcome.
    :param recipe: the request as it arrives at the app.
    :param fields: request fields to send besides, as in an environ.
    :param force: refresh a fresh entry too.
    """

    app: str
    version: str
    url: str
    recipe: PageRecipe
    fields: Mapping[str, str]
    force: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as data of JSON."""
        return {
            "v": FORM,
            "app": self.app,
            "version": self.version,
            "url": self.url,
            "recipe": self.recipe.to_json(),
            # As the caller of warm() gave them, so that they are checked by the same rules.
            "headers": {field_of(name) or name: value.encode("latin-1").decode() for name, value in self.fields.items()},
            "force": self.force,
        }

    @classmethod
    def from_json(cls, data: object) -> WarmData:
        """Return the request from the data of :meth:`to_json`.

        :raises ValueError: for anything else; it says what is wrong.
        """
        if not isinstance(data, Mapping) or data.get("v") != FORM:
            raise ValueError(f"it is not of the form v={FORM}, which this version of the package knows")
        if not isinstance(force := data.get("force"), bool):
            raise ValueError(f"force={force!r:.60} is neither true nor false")
        app, version, url = (_text(data, name) for name in ("app", "version", "url"))
        return cls(app=app, version=version, url=url, recipe=_recipe(data), fields=_fields(data), force=force)


def _text(data: Mapping[Any, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r:.60} is not a string")
    return value


def _recipe(data: Mapping[Any, Any]) -> PageRecipe:
    try:
        recipe = PageRecipe.from_json(data["recipe"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its recipe is invalid: {error!r:.200}") from None
    is_whole = not recipe.digests and not recipe.session_digests
    # Only fields that every key has. All other fields are checked like those that a caller gives.
    if recipe.scheme not in DEFAULT_PORTS or not is_whole or not {name for name, _ in recipe.fields} <= IN_EVERY_KEY:
        raise ValueError("its recipe is not that of a warming request")
    return recipe


def _fields(data: Mapping[Any, Any]) -> dict[str, str]:
    headers = data.get("headers")
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers={headers!r:.60} is not a mapping")
    try:
        return environ_fields(headers)
    except (ConfigError, UnicodeError) as error:
        raise ValueError(f"its {error}") from None
