"""What the buttons do, and to what."""

from __future__ import annotations

from typing import Any, Protocol

from ..entry import Entry
from ..errors import ConfigError
from ..purging import selected
from ..wiring import State
from .shown import title_of

#: What an action is called in a form, and what the page says when it is done.
ACTIONS = {"purge": "Purged", "soft": "Softly purged"}
#: By what entries are found, and how the page names that.
SELECTORS = {"url": "URL or path", "tag": "Tag", "endpoint": "Endpoint"}
#: By which of them all that there are can be acted on.
ON_MANY = tuple(SELECTORS)


class Acting(Protocol):
    """What acts, and counts: the extension."""

    def purge(self, url: str | None = None, *, tag: str | None = None, endpoint: str | None = None, soft: bool = False) -> None:
        """Drop stored pages, or only end their freshness."""

    def stats(self) -> Any:
        """Return the numbers of all workers."""


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def matches(self, entry: Entry) -> bool:
        return self.name in entry.names


def selector_of(state: State, by: str, value: str) -> Named:
    if by not in SELECTORS:
        raise ConfigError("Choose by what to find an entry.")
    given = {"url": None, "tag": None, "endpoint": None, by: value}
    return Named(selected(given["url"], given["tag"], given["endpoint"], False, state.settings.ignored_parameters))


def act(cache: Acting, state: State, action: str, by: str, value: str) -> str:
    """Do what a form asks for, and return what the page says of it.

    :param by: one of :data:`SELECTORS`, or ``key`` for one entry.
    :raises ConfigError: for an action or a selection that is none.
    :raises StoreError: if the store can't be written.
    """
    value = value.strip()
    if action not in ACTIONS or by not in (*SELECTORS, "key") or not value:
        raise ConfigError("Choose what to do, and what to do it to.")
    if by == "key":
        return f"{ACTIONS[action]}: {_act_on_one(state, action, value)}"
    cache.purge(**{by: value}, soft=action == "soft")
    return f"{ACTIONS[action]}: {SELECTORS[by]} {value}"


def _act_on_one(state: State, action: str, key: str) -> str:
    """Act on one entry, and return what it is called; all variants of a page go together."""
    entry = state.engine.store.load(key).entry
    if entry is None:
        raise ConfigError("It is not stored any more.")
    name = own_name(entry)
    state.counters.count("purges")
    state.engine.store.purge(name, soft=action == "soft")
    state.engine.witness.purged(name, soft=action == "soft")
    return title_of(entry)


def own_name(entry: Entry) -> str:
    """Return the name by which an entry alone is purged: that of its URL, or of its call.

    :raises ConfigError: if it has none.
    """
    for name in entry.names:
        if name.startswith(("url:", "call:")):
            return name
    raise ConfigError("It can only be purged with others: by a tag, or all.")
