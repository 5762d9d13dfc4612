"""The bytes of an entry: a head as JSON and a raw body. Pure; no pickle.

The file is ``MAGIC``, the length of the head, the length of the body, a checksum over all three and both parts, the head, the body.
Each format has its own MAGIC. So have pages with holes: a worker of an earlier version would serve them with the holes empty.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec

from ...core.model.entry import Entry
from ...core.model.holes import Hole
from ...core.model.work import NO_WORK
from ...errors import BrokenEntry, StoreError
from . import head_values as values

MAGIC = b"FSC6"
#: The MAGIC of entries with holes.
WITH_HOLES = b"FSH1"
_FORMATS = frozenset({MAGIC, WITH_HOLES})
_PREFIX = struct.Struct(">4sIQ")
_CHECKSUM_SIZE = 16
_START = _PREFIX.size + _CHECKSUM_SIZE
#: Exceptions that an invalid head may raise.
_NO_HEAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


def encode(entry: Entry) -> bytes:
    """Return the bytes of an entry.

    :raises StoreError: if they could not be decoded again: a field of the response can't be sent, say.
    """
    head = {name: getattr(entry, name) for name in _PLAIN_FIELDS}
    head["absent"] = entry.absent.to_json()
    head["windows"] = [entry.windows.max_age, entry.windows.stale_while_revalidate, entry.windows.stale_if_error]
    head["recipe"] = dict(entry.recipe)
    if entry.ended:
        # Ended by a soft purge that another host has sent along with the entry: this host may have no record of it.
        head["ended"] = True
    if entry.holes:
        head["holes"] = [hole.to_json() for hole in entry.holes]
    if entry.work != NO_WORK:
        # Optional: versions that do not know this value read the other ones.
        head["work"] = list(entry.work)
    try:
        _entry(head, entry.body)
    except _NO_HEAD as error:
        raise StoreError(f"an entry can't be stored as it is: {error}") from error
    packed = json.dumps(head, separators=(",", ":")).encode("ascii")
    prefix = _PREFIX.pack(WITH_HOLES if entry.holes else MAGIC, len(packed), len(entry.body))
    return b"".join((prefix, _checksum((prefix, packed, entry.body)), packed, entry.body))


def decode(data: bytes, key: str) -> Entry:
    """Return the entry in stored bytes.

    :param data: the content of the file.
    :param key: the full key of the request.
    :raises BrokenEntry: if the bytes are damaged, too few, too many, or have another format or key.
    """
    if len(data) < _START:
        raise BrokenEntry("cut")
    magic, head_length, body_length = _PREFIX.unpack_from(data)
    if magic not in _FORMATS:
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
        # Visitors choose URLs: the caller's string is used, so that a long key is in memory only once.
        head["key"] = key
        return _checked(_entry(head, body), magic)
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
    if magic not in _FORMATS:
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
        return _checked(_entry(json.loads(packed), b""), data[:4])
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


_PLAIN_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "key": values.text, "serial": values.text, "seq": values.count, "version": values.text, "deployed": values.moment,
    "started": values.moment, "answered": values.moment, "received": values.moment, "never_stale": values.flag,
    "shared": values.flag, "status": values.status, "stood_in": values.flag, "by_file": values.flag, "names": values.texts,
    "varied": values.field_values, "headers": values.fields, "calls": values.texts,
}  # fmt: skip


def _entry(head: dict[str, Any], body: bytes) -> Entry:
    entry = Entry(
        **{name: check(head[name]) for name, check in _PLAIN_FIELDS.items()},
        absent=values.inputs_sent(head["absent"]),
        windows=values.windows(head["windows"]),
        recipe=values.recipe(head["recipe"]),
        holes=_holes(head, body),
        ended=values.flag(head.get("ended", False)),
        work=values.work(head.get("work")),
        body=body,
    )
    values.check_index(entry)
    return entry


def _checked(entry: Entry, magic: bytes) -> Entry:
    if (magic == WITH_HOLES) != bool(entry.holes):
        raise ValueError("a page with holes in the format of one without, or the other way round")
    return entry


def _holes(head: dict[str, Any], body: bytes) -> tuple[Hole, ...]:
    holes = head.get("holes")
    if holes is None:
        return ()
    found = values.tuple_of(Hole.from_json, holes)
    # With the head alone, the length of the body is not known.
    edges = [hole.offset for hole in found]
    if not found or edges != sorted(edges) or (body and edges[-1] > len(body)):
        raise ValueError("holes beyond the body")
    return found


def _checksum(parts: Iterable[bytes]) -> bytes:
    state = blake2b(digest_size=_CHECKSUM_SIZE)
    for part in parts:
        state.update(part)
    return state.digest()
