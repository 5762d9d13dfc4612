"""Sockets in a directory, for processes of one user on one host. No call here waits.

A connection keeps the boundaries of packets where the system has such sockets; elsewhere it is a stream of packets of one size.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from .atomic import remove_file, status_of
from .directory import Inside

#: Bytes of a path to a socket at most: with the zero at its end, 104 on BSD and macOS, 108 on Linux.
LONGEST_PATH = 103
_KINDS = (getattr(socket, "SOCK_SEQPACKET", None), socket.SOCK_STREAM)
#: Connections that wait to be accepted.
BACKLOG = 128


def new_socket() -> socket.socket | None:
    """Return a new socket; ``None`` on a system without sockets in directories."""
    family = getattr(socket, "AF_UNIX", None)
    for kind in _KINDS:
        if family is None or kind is None:
            continue
        try:
            made = socket.socket(family, kind)
        except OSError as error:
            if error.errno in (errno.EPROTONOSUPPORT, errno.EPROTOTYPE, errno.ESOCKTNOSUPPORT):
                continue
            raise
        made.setblocking(False)
        return made
    return None


def path_to(place: Inside) -> str | None:
    """Return the path to a socket in a directory; ``None`` if it is too long for the system."""
    path = os.fspath(place.held.by_path(place.name))
    return path if len(os.fsencode(path)) <= LONGEST_PATH else None


def connect(place: Inside) -> socket.socket | None:
    """Connect to a socket in a directory. Return ``None`` if none listens there, or the listener is behind with accepting."""
    path = path_to(place)
    made = None if path is None else new_socket()
    if made is None or path is None:
        return None
    try:
        made.connect(path)
    except OSError:
        made.close()
        return None
    return made


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Return the bytes that have arrived on a connection; ``None`` if there are none, and ``b""`` if the other end is gone.

    :param size: the greatest number of bytes. If a packet is longer, the rest of it is lost.
    """
    try:
        return connection.recv(size)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Listener:
    """A socket in a directory, to which other processes connect.

    :param place: its place. A file there is removed, so the caller must have the right to remove it.
    :raises OSError: if no socket can be made there.
    """

    def __init__(self, place: Inside) -> None:
        self._place = place
        path = path_to(place)
        if path is None:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(place))
        made = new_socket()
        if made is None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), str(place))
        self.socket = made
        try:
            with suppress(FileNotFoundError):
                remove_file(place)
            # No other user can connect before the mode is set, since the socket does not listen yet.
            made.bind(path)
            os.chmod(path, 0o600)
            made.listen(BACKLOG)
            self._identity = self._identity_now()
        except BaseException:
            made.close()
            raise

    def _identity_now(self) -> tuple[int, int] | None:
        status = status_of(self._place)
        return None if status is None else (status.st_dev, status.st_ino)

    def is_current(self) -> bool:
        """Whether a connection to the path reaches this socket."""
        return self._place.held.is_current() and self._identity is not None and self._identity_now() == self._identity

    def accept(self) -> socket.socket | None:
        """Return the next connection; ``None`` if no process has connected."""
        try:
            made, _ = self.socket.accept()
        except OSError:
            return None
        made.setblocking(False)
        return made

    def close(self, *, removes: bool) -> None:
        """Accept no more connections.

        :param removes: remove the socket from the directory, if it is still this one.
        """
        if removes and self.is_current():
            with suppress(OSError):
                remove_file(self._place)
        self.socket.close()
