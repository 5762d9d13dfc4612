"""Sockets in a directory."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from flask_stalecache.filesystem import local_socket
from flask_stalecache.filesystem.directory import Directory, Inside
from flask_stalecache.filesystem.local_socket import Listener, connect


@pytest.fixture
def place(tmp_path: Path) -> Inside:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    directory = Directory(folder)
    directory.hold()
    return directory.at("worker-1")


@pytest.fixture(params=["packets", "stream"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "stream":
        monkeypatch.setattr(local_socket, "_KINDS", (None, socket.SOCK_STREAM))
    return str(request.param)


def accepted(listener: Listener) -> socket.socket:
    made = listener.accept()
    assert made is not None
    return made


def test_what_is_sent_arrives(place: Inside, kind: str) -> None:
    listener = Listener(place)
    mine = connect(place)
    assert mine is not None
    theirs = accepted(listener)
    assert mine.send(b"one") == 3
    assert mine.send(b"two") == 3
    assert [theirs.recv(3) for _ in range(2)] == [b"one", b"two"]
    mine.send(b"long")
    assert theirs.recv(3) == b"lon"
    with theirs, mine:
        # The rest of a packet is lost; that of a stream comes with the next read.
        if kind == "stream":
            assert theirs.recv(3) == b"g"
        for each in (mine, theirs):
            with pytest.raises(BlockingIOError):
                each.recv(3)
    listener.close(removes=True)


def test_only_its_owner_may_connect(place: Inside) -> None:
    listener = Listener(place)
    assert stat.S_IMODE(os.stat(str(place)).st_mode) == 0o600
    listener.close(removes=True)
    assert not os.path.lexists(str(place))


@pytest.mark.parametrize("left", ["nothing", "a dead socket", "a file", "a link"])
def test_where_nobody_listens_there_is_no_connection(place: Inside, left: str, tmp_path: Path) -> None:
    if left == "a dead socket":
        Listener(place).close(removes=False)
    elif left == "a file":
        Path(str(place)).write_bytes(b"")
    elif left == "a link":
        Path(str(place)).symlink_to(tmp_path / "nowhere")
    assert connect(place) is None
    listener = Listener(place)
    mine = connect(place)
    assert mine is not None
    mine.close()
    listener.close(removes=True)


def test_who_does_not_accept_is_not_waited_for(place: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket, "BACKLOG", 1)
    listener = Listener(place)
    made = [connect(place) for _ in range(10)]
    assert None in made
    for each in made:
        if each is not None:
            each.close()
    listener.close(removes=True)


def test_a_path_too_long_for_a_socket_is_reached_through_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir(mode=0o700)
    directory = Directory(folder)
    directory.hold()
    place = directory.at("worker-1")
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not have each descriptor as a path")
    listener = Listener(place)
    mine = connect(place)
    assert mine is not None
    mine.close()
    listener.close(removes=True)


@pytest.mark.parametrize("how", ["removed", "replaced", "the directory moved"])
def test_a_socket_that_was_replaced_is_noticed(place: Inside, how: str) -> None:
    listener = Listener(place)
    assert listener.is_current()
    if how == "removed":
        os.unlink(str(place))
    elif how == "replaced":
        # Made before the first one is gone, since a new file often gets the inode number of the one removed last.
        other = Listener(place._replace(name="other"))
        os.rename(os.path.join(os.path.dirname(str(place)), "other"), str(place))
        other.close(removes=False)
    else:
        place.held.path.rename(place.held.path.with_name("moved"))
    assert not listener.is_current()
    listener.close(removes=True)
    assert os.path.lexists(str(place)) == (how == "replaced")
