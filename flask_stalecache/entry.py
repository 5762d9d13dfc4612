"""One stored result, and its bytes: a head as JSON and a raw body. Pure; no pickle.

The file is ``MAGIC``, the length of the head, the length of the body, a checksum over all three and both parts, the head, the body.
Another format has another MAGIC.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .errors import BrokenEntry
from .policy import Windows
from .reads import ReadNames

MAGIC = b"FSC1"
_PREFIX = struct.Struct(">4sIQ")
_CHECKSUM_SIZE = 16
_START = _PREFIX.size + _CHECKSUM_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored result, with its windows.

    :param key: the full key, compared on read.
    :param serial: a random name of this fill, so that two fills of one key can be told apart without a clock.
    :param names: what it can be purged by: ``endpoint:…``, ``path:…``, ``url:…``.
    :param seq: the last purge number when the origin was called.
    :param version: the app's version when it was stored.
    :param started: when the origin was called, in seconds since the epoch.
    :param answered: when it had answered; freshness starts here.
    :param windows: the three windows, in seconds; freshness already shortened by jitter.
    :param never_stale: the response forbids serving it stale (must-revalidate, proxy-revalidate, bare s-maxage).
    :param shared: the response may answer requests with Authorization (RFC 9111 section 3.5).
    :param absent: names that were read while it was made and that its request did not carry.
    :param varied: request fields to add to ``Vary``.
    :param status: the HTTP status.
    :param headers: the response's fields, without hop-by-hop ones and Content-Length.
    :param body: the bytes of the body.
    :param recipe: what it takes to make it again, as data.
    """

    key: str
    serial: str
    names: tuple[str, ...]
    seq: int
    version: str
    started: float
    answered: float
    windows: Windows
    never_stale: bool
    shared: bool
    absent: ReadNames
    varied: tuple[str, ...]
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    recipe: Mapping[str, Any]

    @property
    def fresh_until(self) -> float:
        """When freshness ends, in seconds since the epoch."""
        return self.answered + self.windows.max_age

    def age(self, now: float) -> float:
        """Return the seconds since the origin answered; never negative, even if the clock stepped back."""
        return max(0.0, now - self.answered)

    def is_fresh(self, now: float) -> bool:
        """Whether the entry is fresh (RFC 9111 section 4.2)."""
        return self.age(now) < self.windows.max_age

    def in_swr(self, now: float) -> bool:
        """Whether it may be served at once and renewed behind (RFC 5861 section 3)."""
        return not self.never_stale and self.age(now) < self.windows.max_age + self.windows.stale_while_revalidate

    def in_sie(self, now: float) -> bool:
        """Whether it may be served if the origin fails (RFC 5861 section 4)."""
        return not self.never_stale and self.age(now) < self.windows.max_age + self.windows.stale_if_error

    @property
    def may_be_stale(self) -> bool:
        """Whether it may be served stale at all: the response does not forbid it, and there is a stale window."""
        return not self.never_stale and (self.windows.stale_while_revalidate > 0 or self.windows.stale_if_error > 0)

    def outdates(self, other: Entry | None, now: float) -> bool:
        """Whether this fill replaces another one: its origin was called later, or the other's start is in the future.

        After a clock stepped back, an entry from the future must not be eternal.
        """
        return other is None or other.started <= self.started or other.started > now


def encode(entry: Entry) -> bytes:
    """Return the bytes of an entry."""
    head = {name: getattr(entry, name) for name in _PLAIN_FIELDS}
    head["absent"] = entry.absent.to_json()
    head["windows"] = [entry.windows.max_age, entry.windows.stale_while_revalidate, entry.windows.stale_if_error]
    head["recipe"] = dict(entry.recipe)
    packed = json.dumps(head, separators=(",", ":")).encode("ascii")
    prefix = _PREFIX.pack(MAGIC, len(packed), len(entry.body))
    return b"".join((prefix, _checksum(prefix, packed, entry.body), packed, entry.body))


def decode(data: bytes, key: str) -> Entry:
    """Return the entry in stored bytes.

    :param data: what the file holds.
    :param key: the full key that was asked for.
    :raises BrokenEntry: if the bytes are cut, flipped, too many, of another format or of another key.
    """
    if len(data) < _START:
        raise BrokenEntry("cut")
    magic, head_length, body_length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise BrokenEntry("another format")
    if len(data) != _START + head_length + body_length:
        raise BrokenEntry("cut")
    packed, body = data[_START : _START + head_length], data[_START + head_length :]
    if _checksum(data[: _PREFIX.size], packed, body) != data[_PREFIX.size : _START]:
        raise BrokenEntry("checksum")
    try:
        head = json.loads(packed)
        if head["key"] != key:
            raise BrokenEntry("another key")
        return _entry(head, body)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BrokenEntry("another format") from error


_PLAIN_FIELDS = (
    "key", "serial", "names", "seq", "version", "started", "answered", "never_stale", "shared", "varied", "status", "headers",
)  # fmt: skip


def _entry(head: dict[str, Any], body: bytes) -> Entry:
    plain = {name: head[name] for name in _PLAIN_FIELDS}
    plain["names"], plain["varied"] = tuple(head["names"]), tuple(head["varied"])
    plain["headers"] = tuple((name, value) for name, value in head["headers"])
    return Entry(
        **plain,
        absent=ReadNames.from_json(head["absent"]),
        windows=Windows(*head["windows"]),
        recipe=head["recipe"],
        body=body,
    )


def _checksum(*parts: bytes) -> bytes:
    state = blake2b(digest_size=_CHECKSUM_SIZE)
    for part in parts:
        state.update(part)
    return state.digest()
