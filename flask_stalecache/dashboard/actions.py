"""What the buttons do, and to what."""

from __future__ import annotations

from ..app_state import AppState
from ..batches.batch import Batch
from ..batches.selector import KINDS, Selection, Selector
from ..batches.workers import CONCURRENCY
from ..core.formatting import number
from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..errors import ConfigError

#: What an action is called in a form, and what the page says when it is done.
ACTIONS = {"purge": "Purged", "soft": "Softly purged", "refresh": "Refreshed"}
#: What it says of what goes on in the background.
GOES_ON = {"purge": "Purging", "soft": "Softly purging", "refresh": "Refreshing"}
#: By what entries are found and acted on, and how the page names that.
SELECTORS = {name: kind.label for name, kind in KINDS.items()}
#: Seconds that a form waits for what goes on in the background: often it is over by then, and the page can say how it ended.
PATIENCE = 1.0


def selector_of(state: AppState, by: str, value: str) -> Selector:
    """Return what is looked for.

    :param by: one of :data:`SELECTORS`.
    :raises ConfigError: if that makes no sense.
    """
    if by not in SELECTORS:
        raise ConfigError("Choose by what to find an entry.")
    return state.bulk.selector(Selection(**{by: value}), "a search")


def act(state: AppState, action: str, by: str, value: str) -> str:
    """Do what a form asks for, and return what the page says of it.

    :param by: one of :data:`SELECTORS`, or ``key`` for one entry.
    :raises ConfigError: for an action or a selection that is none.
    :raises StoreError: if the store can't be written.
    """
    value = value.strip()
    if action not in ACTIONS or by not in (*SELECTORS, "key") or not value:
        raise ConfigError("Choose what to do, and what to do it to.")
    if by == "key":
        return _on_one(state, action, value)
    selection = Selection(**{by: value})
    bulk, is_soft = state.bulk, action == "soft"
    batch = bulk.refresh(selection, CONCURRENCY) if action == "refresh" else bulk.purge(selection, soft=is_soft)
    return _told(action, f"{SELECTORS[by]} {value}", batch)


def _on_one(state: AppState, action: str, key: str) -> str:
    """Act on one entry, and return what the page says of it; all variants of a page are purged together."""
    entry = state.engine.store.load(key).entry
    if entry is None:
        raise ConfigError("It is not stored any more.")
    if action == "refresh":
        return _told(action, title_of(entry), state.scans.refresh_entry(entry))
    return _told(action, title_of(entry), state.scans.purge(Selector(own_name(entry)), soft=action == "soft"))


def own_name(entry: Entry) -> str:
    """Return the name by which an entry alone is purged: that of its URL, or of its call.

    :raises ConfigError: if it has none.
    """
    for name in entry.names:
        if name.startswith(("url:", "call:")):
            return name
    raise ConfigError("It can only be purged with others: by a tag, or all.")


def _told(action: str, what: str, batch: Batch | None) -> str:
    """Return how it ended, or that it goes on.

    :param batch: what goes on in the background; ``None``: it is done.
    """
    if batch is None:
        return f"{ACTIONS[action]}: {what}"
    if not batch.wait(PATIENCE):
        return f"{GOES_ON[action]} in the background: {what}"
    reasons = sorted({outcome.reason for outcome in batch.outcomes if outcome.reason})
    kept = {"failed": batch.failed, "left alone": batch.skipped, "not stored": batch.not_stored}
    counts = [f"{number(batch.done)} done", *(f"{number(count)} {end}" for end, count in kept.items() if count)]
    return f"{ACTIONS[action]}: {what} ({', '.join(counts)}{': ' if reasons else ''}{'; '.join(reasons[:3])})"
