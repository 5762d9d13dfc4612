"""The actions of the page's forms: purge, soft purge and refresh, of a selection or of one entry."""

from __future__ import annotations

from ..app_state import AppState
from ..batches.batch import Batch
from ..batches.purged import Purged
from ..batches.selector import KINDS, Selection, Selector
from ..batches.workers import CONCURRENCY
from ..core.formatting import number
from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..errors import ConfigError
from ..stores.base import Acknowledged, find_key

#: Actions by their names in forms, with the page's word for a finished action.
ACTIONS = {"purge": "Purged", "soft": "Softly purged", "refresh": "Refreshed"}
#: The same, with the page's word for an action that goes on in the background.
GOES_ON = {"purge": "Purging", "soft": "Softly purging", "refresh": "Refreshing"}
#: The kinds of selections, with their labels.
SELECTORS = {name: kind.label for name, kind in KINDS.items()}
#: Seconds that a form waits for a batch: most batches end within this time, and the page can show the result.
PATIENCE = 1.0


def selector_of(state: AppState, by: str, value: str) -> Selector:
    """Return the selector of a search.

    :param by: one of :data:`SELECTORS`.
    :raises ConfigError: if the value is not valid.
    """
    if by not in SELECTORS:
        raise ConfigError("Choose by what to find an entry.")
    return state.bulk.selector(Selection(**{by: value}), "a search")


def act(state: AppState, action: str, by: str, value: str) -> str:
    """Do the action of a form, and return the page's message.

    :param by: one of :data:`SELECTORS`, or ``key`` for one entry: then the value is the digest of its key.
    :raises ConfigError: for an unknown action or selection.
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


def _on_one(state: AppState, action: str, address: str) -> str:
    """Act on one entry, and return the page's message. All variants of a page are purged together."""
    store = state.engine.store
    key = find_key(store, address)
    entry = None if key is None else store.load(key).entry
    if entry is None:
        raise ConfigError("It is not stored any more.")
    if action == "refresh":
        return _told(action, title_of(entry), state.scheduler.refresh_entry(entry))
    return _told(action, title_of(entry), state.scheduler.purge(Selector(own_name(entry)), soft=action == "soft"))


def own_name(entry: Entry) -> str:
    """Return the name that purges only this entry: that of its URL, or of its call.

    :raises ConfigError: if it has none.
    """
    for name in entry.names:
        if name.startswith(("url:", "call:")):
            return name
    raise ConfigError("It can only be purged with others: by a tag, or all.")


def _told(action: str, what: str, batch: Batch | Purged) -> str:
    """Return the page's message: the result, or that the batch goes on.

    :param batch: the batch in the background, or the purge that is complete.
    """
    if isinstance(batch, Purged):
        return _purged(action, what, batch.acknowledged)
    if not batch.wait(PATIENCE):
        return f"{GOES_ON[action]} in the background: {what}"
    reasons = sorted({outcome.reason for outcome in batch.outcomes if outcome.reason})
    kept = {"failed": batch.failed, "skipped": batch.skipped, "not stored": batch.not_stored}
    counts = [f"{number(batch.done)} done", *(f"{number(count)} {end}" for end, count in kept.items() if count)]
    return f"{_purged(action, what, batch.acknowledged)} ({', '.join(counts)}{': ' if reasons else ''}{'; '.join(reasons[:3])})"


def _purged(action: str, what: str, heard: Acknowledged | None) -> str:
    """Return the message about a completed action, with the hosts that it has reached if there are many."""
    if heard is None:
        return f"{ACTIONS[action]}: {what}"
    return f"{'; '.join([f'{ACTIONS[action]} {heard.where}', *heard.missing])}: {what}"
