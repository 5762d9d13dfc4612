"""What web processes and the worker tell each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.packets.packets import (
    GROUPS,
    REPLY_SIZE,
    SIZE,
    Packet,
    Said,
    decode_reply,
    encode_reply,
    group_of,
    socket_name,
)
from flask_stalecache.core.packets.refresh_data import OriginKind

PACKET = Packet(OriginKind.CALL, "0f" * 20, "a1b2c3d4e5f60718", 7, 12.5)


@pytest.mark.parametrize("kind", OriginKind)
@pytest.mark.parametrize(("rank", "is_forced"), [(12.5, False), (0.0, True), (-1e300, False), (-math.inf, True)])
@pytest.mark.parametrize("is_warming", [False, True])
def test_a_packet_arrives_as_it_was(kind: OriginKind, rank: float, is_forced: bool, is_warming: bool) -> None:
    packet = PACKET._replace(kind=kind, rank=rank, is_forced=is_forced, is_warming=is_warming)
    data = packet.encode()
    assert data is not None
    assert len(data) == SIZE
    assert Packet.decode(data) == packet


@pytest.mark.parametrize("serial", ["", "abc", "z" * 16, "a1" * 9, "ä" * 16])
def test_a_serial_of_another_form_can_not_be_sent(serial: str) -> None:
    assert PACKET._replace(serial=serial).encode() is None


@pytest.mark.parametrize("said", Said)
def test_a_reply_arrives_as_it_was(said: Said) -> None:
    data = encode_reply(said, "0f" * 20)
    assert len(data) == REPLY_SIZE
    assert decode_reply(data) == (said, "0f" * 20)


def changed(at: int, byte: int) -> bytes:
    data = bytearray(PACKET.encode() or b"")
    data[at] = byte
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * SIZE,
        b"x" * SIZE,
        (PACKET.encode() or b"")[:-1],
        (PACKET.encode() or b"") + b"\0",
        changed(0, 0),
        changed(3, ord("9")),
        changed(4, 3),
        changed(4, 0x20),
        changed(4, 0xC3),
        changed(33, 0xFF),
        PACKET._replace(rank=math.nan).encode(),
        PACKET._replace(rank=math.inf).encode(),
    ],
    ids=range(13),
)
def test_what_is_no_packet_is_none(data: bytes) -> None:
    assert Packet.decode(data) is None


@given(st.binary(max_size=2 * SIZE))
def test_bytes_that_anybody_sends_do_no_harm(data: bytes) -> None:
    packet, reply = Packet.decode(data), decode_reply(data)
    assert packet is None or packet.encode() == data
    assert reply is None or encode_reply(*reply) == data


def test_groups_are_few() -> None:
    groups = {group_of(("endpoint", f"view {number}")) for number in range(5000)}
    assert len(groups) > GROUPS / 2
    assert min(groups) >= 0
    assert max(groups) < GROUPS
    assert group_of(("endpoint", "front")) == group_of(("endpoint", "front"))


def test_each_app_and_version_has_a_socket_of_its_own() -> None:
    names = {socket_name(app, version) for app in ("shop", "news", "") for version in ("", "1", "shop")}
    assert len(names) == 9
    assert all(len(name) == 19 and name.startswith("worker-") for name in names)
