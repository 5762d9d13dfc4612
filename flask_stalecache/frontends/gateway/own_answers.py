"""Remembers the URLs for which the app has no answer for everybody, so that it is called for one only once in a while.

For an answer that may be stored, an app that can't be observed gets only the named cookies. If that answer can't be stored, the
visitor must get the app's answer to all of their cookies, which takes a second call.
"""

from __future__ import annotations

import time

from ...core.model.reasons import Refusal, StoreRefusal
from ...core.remembered import MIB, Remembered
from ...core.rules.named import NamedValues

#: Seconds after which the app is called again for an answer that may be stored.
ASKED_AGAIN = 60.0


class OwnAnswers:
    """The URLs whose last answer to a request with the named cookies alone could not be stored."""

    def __init__(self) -> None:
        #: Limited, since visitors choose both URLs and cookies.
        self._known: Remembered[tuple[object, ...], tuple[float, Refusal]] = Remembered(most=4096, limit=4 * MIB, longest=8192)

    def note(self, url_key: str, named: NamedValues, refusal: Refusal | None) -> None:
        """Note that an answer could not be stored.

        :param url_key: the key of the URL.
        :param named: the named cookies of the request.
        :param refusal: why not.
        """
        why = refusal or Refusal(StoreRefusal.FOR_THIS_REQUEST)
        key = url_key, named.cookie
        self._known.pop(key, None)
        self._known.note(key, (time.time(), why))

    def of(self, url_key: str, named: NamedValues) -> Refusal | None:
        """Return why the last answer could not be stored; ``None`` if the app should be called for one that can."""
        since, refusal = self._known.get((url_key, named.cookie)) or (0.0, None)
        return refusal if since <= time.time() < since + ASKED_AGAIN else None
