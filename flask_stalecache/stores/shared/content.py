"""The form of entries on the server: the head of the file, and the body, compressed where that saves space."""

from __future__ import annotations

import logging
import zlib

from ...core.addressing.keys import digest
from ...core.model.entry import Entry
from ...core.model.note import NOTHING
from ...core.rules.variant_index import INDEX
from ...errors import BrokenEntry
from ..base import Stored
from ..formats import entry_format, note_format
from .scripts import Got

logger = logging.getLogger("flask_stalecache")

#: Bytes of a body below which compression gains nothing, and the part of a body (1/n) that compression must save.
_SMALL, _SAVED = 1024, 8
_said: list[str] = []


def pack(entry: Entry, limit: int) -> tuple[bytes, str, bytes]:
    """Return the head of an entry, the name of the hash field for its body, and the body.

    :param limit: bytes of the largest body that is shared; a larger one stays on its host.
    """
    if entry.length > limit:
        return b"", "-", b""
    data = entry_format.encode(entry)
    head, body = data[: len(data) - len(entry.body)], entry.body
    if len(body) >= _SMALL:
        packed = zlib.compress(body, 1)
        if len(packed) <= len(body) - len(body) // _SAVED:
            return head, "z", packed
    return head, "b", body


def entry_in(got: Got, key: str) -> Entry | None:
    """Return the entry in an answer of the server; ``None`` if this version can't read it."""
    try:
        entry = entry_format.decode(got.head + (zlib.decompress(got.body) if got.packed else got.body), key)
    except (BrokenEntry, zlib.error) as error:
        if not _said:
            _said.append(key)
            logger.warning(
                "an entry at the shared server can't be read here (%s): another version of this package may use the same "
                "STALECACHE_SHARED_NAME; this host makes such pages itself",
                error,
            )
        return None
    return entry.softly_purged(got.at / 1e6) if got.at else entry


def stored_in(name: str, head: bytes, note: bytes, at: int) -> Stored | None:
    """Return an entry that only other hosts have, as a walk yields it; ``None`` for an index, or if the entry can't be read.

    :param name: the digest of its key.
    :param at: when a soft purge ended its freshness, in microseconds since the epoch; 0: none did.
    """
    try:
        entry = entry_format.decode_head(head)
        length = entry_format.file_size(head) - entry_format.head_size(head)
    except BrokenEntry:
        return None
    if entry.status == INDEX or digest(entry.key) != name:
        return None
    left = entry.softly_purged(at / 1e6) if at else entry
    found = note_format.decode(note) if note else NOTHING
    return Stored(left, length, len(head) + length + len(note), entry.answered, found)
