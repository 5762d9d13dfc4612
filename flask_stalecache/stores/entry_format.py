"""The bytes of an entry: a head as JSON and a raw body. Pure; no pickle.

The file is ``MAGIC``, the length of the head, the length of the body, a checksum over all three and both parts, the head, the body.
Each format has its own MAGIC.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec

from ..core.model.entry import Entry
from ..core.model.inputs import RequestInputs
from ..core.model.policy import Windows
from ..errors import BrokenEntry

MAGIC = b"FSC4"
_PREFIX = struct.Struct(">4sIQ")
_CHECKSUM_SIZE = 16
_START = _PREFIX.size + _CHECKSUM_SIZE
#: Exceptions that an invalid head may raise.
_NO_HEAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def encode(entry: Entry) -> bytes:
    """Return the bytes of an entry."""
    head = {name: getattr(entry, name) for name in (*_PLAIN_FIELDS, "names", "varied", "headers", "calls")}
    head["absent"] = entry.absent.to_json()
    head["windows"] = [entry.windows.max_age, entry.windows.stale_while_revalidate, entry.windows.stale_if_error]
    head["recipe"] = dict(entry.recipe)
    packed = json.dumps(head, separators=(",", ":")).encode("ascii")
    prefix = _PREFIX.pack(MAGIC, len(packed), len(entry.body))
    return b"".join((prefix, _checksum((prefix, packed, entry.body)), packed, entry.body))


def decode(data: bytes, key: str) -> Entry:
    """Return the entry in stored bytes.

    :param data: the content of the file.
    :param key: the full key of the request.
    :raises BrokenEntry: if the bytes are damaged, incomplete, too many, or have another format or key.
    """
    if len(data) < _START:
        raise BrokenEntry("cut")
    magic, head_length, body_length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise BrokenEntry("another format")
    if len(data) != _START + head_length + body_length:
        raise BrokenEntry("cut")
    packed, body = data[_START : _START + head_length], data[_START + head_length :]
    if _checksum((data[: _PREFIX.size], packed, body)) != data[_PREFIX.size : _START]:
        raise BrokenEntry("checksum")
    try:
        head = json.loads(packed)
        if head["key"] != key:
            raise BrokenEntry("another key")
        return _entry(head, body)
    except _NO_HEAD as error:
        raise BrokenEntry("another format") from error


def head_size(data: bytes) -> int:
    """Return how many bytes of a stored entry :func:`decode_head` needs.

    :param data: its first bytes.
    :raises BrokenEntry: if they are not the beginning of an entry.
    """
    if len(data) < _START:
        raise BrokenEntry("cut")
    magic, head_length, _ = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise BrokenEntry("another format")
    return int(_START + head_length)


def file_size(data: bytes) -> int:
    """Return the size of a stored entry in bytes.

    :param data: its first bytes, which :func:`head_size` has accepted.
    """
    _, head_length, body_length = _PREFIX.unpack_from(data)
    return int(_START + head_length + body_length)


def decode_head(data: bytes) -> Entry:
    """Return the entry in stored bytes without its body and without a check of the checksum, for walks through all entries.

    :raises BrokenEntry: if the bytes are incomplete or have another format.
    """
    packed = data[_START : head_size(data)]
    try:
        return _entry(json.loads(packed), b"")
    except _NO_HEAD as error:
        raise BrokenEntry("another format") from error


class _Purged(msgspec.Struct, gc=False):
    """The part of a head that a purge needs."""

    seq: int
    names: list[str]


_purged = msgspec.json.Decoder(_Purged).decode


def purges_of(data: bytes) -> tuple[int, Sequence[str]]:
    """Return ``seq`` and names of the entry in stored bytes. For a purge, this takes a tenth of the time of :func:`decode_head`.

    :raises BrokenEntry: if the bytes are incomplete or have another format.
    """
    try:
        purged = _purged(data[_START : head_size(data)])
    except msgspec.DecodeError:
        # Not a head, or a name with half a surrogate pair, which json accepts and msgspec does not.
        entry = decode_head(data)
        return entry.seq, entry.names
    return purged.seq, purged.names


def is_whole(head: bytes, length: int, body: Iterable[bytes]) -> bool:
    """Whether the parts of a stored entry match its checksum.

    :param head: its bytes before the body.
    :param length: the bytes of the body.
    :param body: the body, in pieces.
    """
    prefix = head[: _PREFIX.size]
    return _PREFIX.unpack(prefix)[2] == length and _checksum(chain((prefix, head[_START:]), body)) == head[_PREFIX.size : _START]


_PLAIN_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "key": str, "serial": str, "seq": int, "version": str, "deployed": (int, float), "started": (int, float),
    "answered": (int, float), "received": (int, float), "never_stale": bool, "shared": bool, "status": int, "stood_in": bool,
    "by_file": bool,
}  # fmt: skip


def _entry(head: dict[str, Any], body: bytes) -> Entry:
    return Entry(
        **{name: _of(kind, head[name]) for name, kind in _PLAIN_FIELDS.items()},
        names=tuple(_of(str, name) for name in head["names"]),
        varied=tuple(_of(str, name) for name in head["varied"]),
        calls=tuple(_of(str, key) for key in head["calls"]),
        headers=tuple((_of(str, name), _of(str, value)) for name, value in head["headers"]),
        absent=RequestInputs.from_json(head["absent"]),
        windows=Windows(*(_of((int, float), window) for window in head["windows"])),
        recipe=head["recipe"],
        body=body,
    )


def _of(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind}")
    return value


def _checksum(parts: Iterable[bytes]) -> bytes:
    state = blake2b(digest_size=_CHECKSUM_SIZE)
    for part in parts:
        state.update(part)
    return state.digest()
