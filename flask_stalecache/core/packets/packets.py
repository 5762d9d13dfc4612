"""The packets of fixed size that web processes and the worker of a host exchange. Pure.

A packet names an entry, or the file of a warming request, and nothing else: its sender can request that work, but no other.
"""

from __future__ import annotations

import math
import struct
from enum import Enum
from typing import NamedTuple

from ..addressing.keys import digest
from .refresh_data import FORM, OriginKind

_MAGIC = b"SCW%d" % FORM
_KINDS = tuple(OriginKind)
#: Marks the kind of a refresh that is run even if the entry is fresh or its origin is backing off.
_FORCED = 0x80
#: Marks the kind of a packet that names a warming request instead of an entry.
_WARMING = 0x40
_PACKET = struct.Struct(">4sB20s8sHd")
_REPLY = struct.Struct(">4sB20s")
#: Bytes of a packet and of a reply.
SIZE, REPLY_SIZE = _PACKET.size, _REPLY.size
#: The number of groups that take turns. Names of endpoints and functions are mapped to these groups.
GROUPS = 1024
_SERIAL_DIGITS = 16
#: The beginning of the names of sockets.
PREFIX = "worker-"


class Packet(NamedTuple):
    """A refresh or a warming request on its way to the worker.

    :ivar kind: the front end that makes the entry.
    :ivar address: the digest of the entry's key; for a warming request, the digest in the names of its files.
    :ivar serial: the serial of the stored entry; for a warming request, any value.
    :ivar group: the number of its group, such as an endpoint.
    :ivar rank: the rank of the demand for it: see ``engine.scheduling.fair_queue``.
    :ivar is_forced: it is run even if the entry is fresh, for a batch, which gets a reply when it has ended.
    :ivar is_warming: it is a warming request.
    """

    kind: OriginKind
    address: str
    serial: str
    group: int
    rank: float
    is_forced: bool = False
    is_warming: bool = False

    def encode(self) -> bytes | None:
        """Return the bytes of the packet; ``None`` if the serial has another form than in this version of the package."""
        serial = _bytes_of(self.serial) if len(self.serial) == _SERIAL_DIGITS else None
        if serial is None:
            return None
        kind = _KINDS.index(self.kind) | (_FORCED if self.is_forced else 0) | (_WARMING if self.is_warming else 0)
        return _PACKET.pack(_MAGIC, kind, bytes.fromhex(self.address), serial, self.group % GROUPS, self.rank)

    @classmethod
    def decode(cls, data: bytes) -> Packet | None:
        """Return the packet; ``None`` if the bytes are not one."""
        if len(data) != SIZE:
            return None
        magic, kind, address, serial, group, rank = _PACKET.unpack(data)
        is_forced, is_warming, kind = bool(kind & _FORCED), bool(kind & _WARMING), kind & ~(_FORCED | _WARMING)
        if magic != _MAGIC or kind >= len(_KINDS) or group >= GROUPS or math.isnan(rank) or rank == math.inf:
            return None
        return cls(_KINDS[kind], address.hex(), serial.hex(), group, rank, is_forced, is_warming)


class Said(Enum):
    """The worker's reply to a packet."""

    #: The work waits or runs.
    TAKEN = 1
    #: The worker does not run it: something in its code differs, or it had to drop the packet.
    REFUSED = 2
    #: The work has ended. Sent only for forced work.
    ENDED = 3


def encode_reply(said: Said, address: str) -> bytes:
    """Return the bytes of a reply."""
    return _REPLY.pack(_MAGIC, said.value, bytes.fromhex(address))


def decode_reply(data: bytes) -> tuple[Said, str] | None:
    """Return a reply and the address of its packet; ``None`` if the bytes are not a reply."""
    if len(data) != REPLY_SIZE:
        return None
    magic, said, address = _REPLY.unpack(data)
    is_known = magic == _MAGIC and said in {each.value for each in Said}
    return (Said(said), address.hex()) if is_known else None


def group_of(group: object) -> int:
    """Return the number of a group, such as the name of an endpoint."""
    return int(digest(ascii(group))[:8], 16) % GROUPS


def socket_name(app: str, version: str) -> str:
    """Return the name of the socket in the cache directory at which the worker of an app listens.

    Each version has its own socket: during a deploy, processes of both versions have a worker that makes their pages.
    """
    return f"{PREFIX}{digest(ascii((FORM, app, version)))[:12]}"


def _bytes_of(serial: str) -> bytes | None:
    try:
        return bytes.fromhex(serial)
    except ValueError:
        return None
