"""The Blinker signals. Their sender is the Flask app, or the ``GatewayCache``."""

from __future__ import annotations

import logging
from typing import Any

from blinker import NamedSignal, Namespace

logger = logging.getLogger("flask_stalecache")
_signals = Namespace()

#: An entry was written. ``entry``: the :class:`.Entry` of a page, response or value; it includes the body of a page in memory.
entry_stored: NamedSignal = _signals.signal("entry-stored")
#: A stale copy is served. ``key``; ``status``: ``STALE`` or ``UPDATING``; ``entry``; ``label``: the label of its counters.
stale_served: NamedSignal = _signals.signal("stale-served")
#: A call of an origin has failed, in the foreground or in a refresh. ``key``: the key of the entry, "" without one;
#: ``label``: the endpoint, function or host that it is counted under; ``error``: the exception, ``None`` if it was an answer.
origin_failed: NamedSignal = _signals.signal("origin-failed")
#: A refresh has succeeded. ``key``; ``label``; ``seconds``: how long it ran.
refresh_done: NamedSignal = _signals.signal("refresh-done")
#: A refresh has failed, and the copy stays. ``key``; ``label``; ``error``: as above; ``retry_at``: in seconds since the epoch.
refresh_failed: NamedSignal = _signals.signal("refresh-failed")
#: Something was purged. ``names``: such as ``("tag:shoes",)``, ``("endpoint:news.article",)``, ``("path:/news/1",)`` or
#: ``("all",)``; ``soft``: only its freshness has ended.
purged: NamedSignal = _signals.signal("purged")
#: Entries were removed. ``reason``: ``"size"``, ``"inactive"``, ``"purged"``, ``"broken"`` or ``"notes"``; ``count``: how many.
entry_evicted: NamedSignal = _signals.signal("entry-evicted")
#: A purge by prefix, a refresh, a publish or a warming in the background has progressed. ``batch``: its handle.
scan_moved: NamedSignal = _signals.signal("scan-moved")


def send(signal: NamedSignal, sender: object, **told: Any) -> None:
    """Call all receivers. Log the exception of a receiver: it must not reach a visitor or stop the other receivers."""
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **told)
        except Exception:
            logger.exception("a receiver of the signal %s failed: %r", signal.name, receiver)
