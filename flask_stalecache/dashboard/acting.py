"""What the buttons do."""

from __future__ import annotations

from typing import Protocol

from ..errors import ConfigError

#: What an action is called in a form, and what the page says when it is done.
ACTIONS = {"purge": "Purged", "soft": "Softly purged"}
#: By what it is done, and how the page names that.
SELECTORS = {"url": "URL or path", "tag": "tag", "endpoint": "endpoint"}


class Acting(Protocol):
    """What acts: the extension."""

    def purge(self, url: str | None = None, *, tag: str | None = None, endpoint: str | None = None, soft: bool = False) -> None:
        """Drop stored pages, or only end their freshness."""


def act(cache: Acting, action: str, by: str, value: str) -> str:
    """Do what a form asks for, and return what the page says of it.

    :raises ConfigError: for an action or a selection that is none.
    :raises StoreError: if the store can't be written.
    """
    value = value.strip()
    if action not in ACTIONS or by not in SELECTORS or not value:
        raise ConfigError("Choose what to do, and what to do it to.")
    cache.purge(**{by: value}, soft=action == "soft")
    return f"{ACTIONS[action]}: {SELECTORS[by]} {value}"
