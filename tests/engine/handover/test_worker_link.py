"""The connection of a web process to the worker. More in ``tests/worker``, with real workers."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.packets.packets import SIZE, Packet, Said, encode_reply
from flask_stalecache.core.packets.refresh_data import OriginKind
from flask_stalecache.engine.handover import worker_link
from flask_stalecache.engine.handover.worker_link import _Line
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.filesystem.local_socket import Listener, receive

ADDRESS, OTHER = "ab" * 20, "cd" * 20


def packet(address: str) -> bytes:
    data = Packet(OriginKind.PAGE, address, "cd" * 8, 3, 0.0, is_forced=True).encode()
    assert data is not None
    return data


@pytest.fixture
def listener(directory: Path) -> Listener:
    directory.mkdir(mode=0o700, exist_ok=True)
    held = Directory(directory)
    held.hold()
    return Listener(held.at("worker"))


def test_the_end_comes_by_the_connection_that_it_is_awaited_on(directory: Path, listener: Listener) -> None:
    """A worker that replaces another one does not know which refreshes its predecessor ran."""
    line = _Line(directory)
    assert line.is_reached("worker")
    assert line.send(packet(ADDRESS), ADDRESS, "worker", expects_end=True)
    first = listener.accept()
    assert first is not None
    assert receive(first, SIZE) == packet(ADDRESS)
    assert line.end_of(ADDRESS) is None
    assert line.expects_end_of(ADDRESS)
    first.close()
    # Another thread reconnects before the waiting thread has noticed that the first connection is closed.
    assert line.send(packet(OTHER), OTHER, "worker", expects_end=True)
    second = listener.accept()
    assert second is not None
    assert not line.expects_end_of(ADDRESS)
    second.send(encode_reply(Said.ENDED, OTHER))
    assert (line.end_of(ADDRESS), line.end_of(OTHER)) == (None, Said.ENDED)
    for each in (second, listener, line):
        each.close(removes=True) if isinstance(each, Listener) else each.close()


def test_nobody_is_reached_where_nobody_listens(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    assert not _Line(directory).is_reached("worker")


def test_a_line_that_is_collected_leaves_no_open_socket(
    directory: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the garbage collector reaches the socket before the line, as it does here, where the socket is older."""
    held = Directory(directory)
    held.hold()
    older = [worker_link.connect(held.at("worker"))]
    monkeypatch.setattr(worker_link, "connect", lambda place: older.pop())
    line: Any = _Line(directory)
    assert line.is_reached("worker")
    line.cycle = line
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del line
        gc.collect()
    assert [str(each.message) for each in said] == []
    visitor = listener.accept()
    assert visitor is not None
    assert receive(visitor, SIZE) == b"", "it was closed"
    visitor.close()
    listener.close(removes=True)
