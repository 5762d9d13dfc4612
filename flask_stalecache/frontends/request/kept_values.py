"""Finds values in a response's body that were made for it alone: nonces, and random values that hooks keep for one request.

A value that looks random may also be a setting, such as the hash of a build. It is a setting if the same value is met again: in
another response, or in the stored copy of the same page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b

from ...core.http.content_policy import decoded, has_nonce_in_body, nonce_attributes
from ...core.http.fields import Headers
from ...core.http.unset import cookies_set
from ...core.model.reasons import Refusal, StoreRefusal

#: A cookie's value of at least this length does not appear in a page by chance.
TELLING = 5
#: How many values are remembered. Their names come from the app's code, which may make many.
REMEMBERED = 4096
_TOKEN = re.compile(r"[A-Za-z0-9+/_.=~-]{16,512}")
_HEXADECIMAL = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")


def is_random(value: str) -> bool:
    """Whether a value looks like a random one: hexadecimal digits, or letters of both cases and digits."""
    if not _TOKEN.fullmatch(value):
        return False
    has_digit, has_lower, has_upper = (any(map(test, value)) for test in (str.isdigit, str.islower, str.isupper))
    if _HEXADECIMAL.fullmatch(value):
        return has_digit and (has_lower or has_upper)
    return has_lower and has_upper and (has_digit or not any(sign in value for sign in "./"))


class KeptValues:
    """The values that were met in the responses of an app."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, bytes], bytes] = {}

    def refusal(
        self, key: str, headers: Headers, body: bytes, kept: Iterable[tuple[str, str]], stored: Callable[[], bytes | None]
    ) -> Refusal | None:
        """Return why a response can't be stored: its body shows a value that was made for it alone. ``None`` if it shows none.

        :param key: the key of the response.
        :param headers: its fields.
        :param body: its body.
        :param kept: names and values that the app keeps for the request. Cookies in the fields are added to them.
        :param stored: returns the body of the stored copy; ``None`` if there is none.
        """
        fields = tuple(headers)
        if has_nonce_in_body(fields, body):
            return Refusal(StoreRefusal.CSP_NONCE)
        text = decoded(fields, body)
        if text is None:
            return None
        cookies = [(f"the cookie {name[:40]!a}", value) for name, value in cookies_set(fields) if len(value) >= TELLING]
        shown: dict[str, tuple[str, ...]] = {name: (value,) for name, value in (*kept, *cookies) if value.encode() in text}
        if nonces := tuple(dict.fromkeys(nonce_attributes(fields, body))):
            shown["a nonce"] = nonces
        # All are judged, so that all are remembered for the next response.
        refusals = [self._judge(key, name, values, stored) for name, values in shown.items()]
        return next(filter(None, refusals), None)

    def _judge(self, key: str, name: str, values: tuple[str, ...], stored: Callable[[], bytes | None]) -> Refusal | None:
        # Digests, since visitors choose the keys, which may be long.
        places, met = ((name, b""), (name, _digest(key))), _digest(repr(values))
        before = [self._last.get(place) for place in places]
        if len(self._last) >= REMEMBERED:
            self._last.clear()
        self._last.update(dict.fromkeys(places, met))
        if met in before:
            return None
        copy = stored()
        if copy is not None and all(value.encode() in copy for value in values):
            return None
        return Refusal(StoreRefusal.SHOWS_MAYBE_RANDOM if before[1] is None else StoreRefusal.SHOWS_RANDOM, name)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
