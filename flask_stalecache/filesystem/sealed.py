"""The format of all small files: a seal, then the content. Pure.

The seal is a magic, the kind of the file, the length of the content, and a CRC-32 of kind, length and content. It distinguishes a
whole file from one that a crash of the machine has truncated, from one with a bad block, from another kind of file under its name,
and from the file of an older version. A checksum only finds damage: it does not stop anybody who can write to the directory.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Each layout of the seal has its own magic.
MAGIC = b"FSS1"
_SEAL = struct.Struct(">4s4sII")
SIZE = _SEAL.size
#: Bytes of the seal of a line: the length and the checksum of the content, in hexadecimal digits.
LINE_SEAL = 18


def seal(kind: bytes, content: bytes) -> bytes:
    """Return the bytes of a file.

    :param kind: the kind of the file, in four bytes. If the format of its content changes, it gets a new name.
    """
    return _SEAL.pack(MAGIC, kind, len(content), _checksum(kind, content)) + content


def unseal(kind: bytes, data: bytes | None) -> bytes | None:
    """Return the content of a file; ``None`` if there is no file, or it is not whole or of another kind."""
    if data is None or len(data) < SIZE:
        return None
    magic, found, length, checksum = _SEAL.unpack_from(data)
    content = data[SIZE:]
    is_whole = (magic, found, length) == (MAGIC, kind, len(content)) and checksum == _checksum(kind, content)
    return content if is_whole else None


def seal_json(kind: bytes, value: Any) -> bytes:
    """Return the bytes of a file that holds JSON."""
    return seal(kind, json.dumps(value, separators=(",", ":")).encode("ascii"))


def unseal_json(kind: bytes, data: bytes | None, decode: Callable[[Any], T]) -> T | None:
    """Return the value in a JSON file; ``None`` if there is no file, or anything is wrong with it.

    :param decode: makes the value from the JSON data. Any exception that it raises counts as a broken file.
    """
    content = unseal(kind, data)
    return None if content is None else decoded(content, decode)


def seal_line(content: bytes) -> bytes:
    """Return a line of a file that grows line by line, without the line end."""
    return b"%08x %08x %b" % (len(content), zlib.crc32(content), content)


def unseal_line(line: bytes) -> bytes | None:
    """Return the content of a line; ``None`` if it is not whole."""
    content = line[LINE_SEAL:]
    return content if line == seal_line(content) else None


def decoded(content: bytes, decode: Callable[[Any], T]) -> T | None:
    """Return the value in JSON content; ``None`` if anything is wrong with it.

    :param decode: makes the value from the JSON data.
    """
    try:
        return decode(json.loads(content))
    except Exception:
        # Not only ValueError and TypeError: deeply nested lists end in RecursionError, large numbers in OverflowError. No content
        # of a file may cause an error that reaches a visitor.
        return None


def _checksum(kind: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(kind + len(content).to_bytes(4, "big")))
