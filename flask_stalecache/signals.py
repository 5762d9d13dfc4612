"""Blinker signals: what happens in the cache, for whoever wants to know. The sender is the Flask app, or the ``GatewayCache``."""

from __future__ import annotations

import logging
from typing import Any

from blinker import NamedSignal, Namespace

logger = logging.getLogger("flask_stalecache")
_signals = Namespace()

entry_stored: NamedSignal = _signals.signal("entry-stored")
stale_served: NamedSignal = _signals.signal("stale-served")
origin_failed: NamedSignal = _signals.signal("origin-failed")
refresh_done: NamedSignal = _signals.signal("refresh-done")
refresh_failed: NamedSignal = _signals.signal("refresh-failed")
purged: NamedSignal = _signals.signal("purged")
entry_evicted: NamedSignal = _signals.signal("entry-evicted")
scan_moved: NamedSignal = _signals.signal("scan-moved")


def send(signal: NamedSignal, sender: object, **told: Any) -> None:
    """Tell all receivers; one that raises is logged, and is neither a visitor's error nor that of the other receivers."""
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **told)
        except Exception:
            logger.exception("a receiver of the signal %s failed: %r", signal.name, receiver)
