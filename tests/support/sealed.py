"""Files of entries whose checksum is right, whatever their heads say."""

from __future__ import annotations

import json
import struct
from hashlib import blake2b
from typing import Any

from flask_stalecache.stores.formats.entry_format import MAGIC

PREFIX = struct.Struct(">4sIQ")
CHECKSUM_SIZE = 16
_START = PREFIX.size + CHECKSUM_SIZE


def sealed(head: bytes, body: bytes = b"", magic: bytes = MAGIC) -> bytes:
    """Return a file that is right in form."""
    prefix = PREFIX.pack(magic, len(head), len(body))
    return prefix + blake2b(prefix + head + body, digest_size=CHECKSUM_SIZE).digest() + head + body


def head_in(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the head in a file, and the body."""
    end = _START + PREFIX.unpack_from(data)[1]
    return json.loads(data[_START:end]), data[end:]


def text_with(head: dict[str, Any], place: tuple[Any, ...], value: str) -> bytes:
    """Return a head as JSON in which another value stands in a place.

    :param value: as JSON: it may be what Python can't hold or write.
    """
    mark = "here-goes-the-value"
    changed = json.loads(json.dumps(head))
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = mark
    return json.dumps(changed).replace(f'"{mark}"', value).encode("utf-8", "surrogatepass")
