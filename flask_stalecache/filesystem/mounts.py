"""Finds the kind of file system that a directory is on, where the system lists it (Linux), and whether it has file locks.

============================ ==================================================================================================
:data:`NETWORK`              several hosts may see the directory: each has its own shared memory and page cache, so that a
                             purge on one of them would not reach the others, and locks may not exclude the others
:data:`OF_THE_HOST`          a virtual machine or a container sees a directory of its host: locks may not reach beyond it
all others                   local, or not known
============================ ==================================================================================================
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import NamedTuple

from .descriptors import open_descriptor
from .system import O_CLOEXEC, O_DIRECTORY, device_number, why_no_flock

#: Where Linux lists the mounts that this process sees.
MOUNTS = "/proc/self/mountinfo"
NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "orangefs",
        "pvfs2", "ocfs2", "gfs2", "davfs", "fuse.sshfs", "fuse.davfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs",
        "fuse.mount-s3", "fuse.mountpoint-s3", "fuse.goofys", "fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.rclone",
        "fuse.juicefs", "fuse.seaweedfs", "fuse.mfs", "fuse.moosefs", "fuse.lizardfs", "fuse.curlftpfs",
    }
)  # fmt: skip
OF_THE_HOST = frozenset({"9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "fuse.vmhgfs-fuse", "fuse.grpcfuse", "fakeowner"})
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system.

    :ivar place: the directory that it is mounted on.
    :ivar device: the number of its device.
    :ivar kind: its kind, such as ``ext4``.
    """

    place: str
    device: int
    kind: str


def kind_at(path: str | os.PathLike[str]) -> str:
    """Return the kind of the file system that a path is on, or would be on once it exists; "" if that is unknown."""
    try:
        place = _existing(os.path.realpath(path))
        return _kind_of(place, os.stat(place).st_dev, MOUNTS)
    except (OSError, ValueError, IndexError):
        # No such list, or one of another form.
        return ""


@lru_cache
def _kind_of(place: str, device: int, mounts: str) -> str:
    """Return the kind of the file system that a directory is on.

    :param device: the number of its device, a part of the cached call: another file system may be mounted there later.
    :param mounts: the list of mounts.
    """
    around = [mount for mount in _mounts(mounts) if os.path.commonpath([place, mount.place]) == mount.place]
    # A later mount hides earlier ones, also those below its place: these have another device number. Parts of btrfs have numbers
    # that the list lacks, though: for them, all mounts count.
    seen = [mount for mount in around if mount.device == device] or around
    return max(reversed(seen), key=lambda mount: len(mount.place)).kind if seen else ""


def why_no_locks(path: str | os.PathLike[str]) -> str | None:
    """Return why files in a directory can't be locked; ``None`` if they can, or that is unknown. This creates no file."""
    try:
        descriptor = open_descriptor(_existing(os.path.realpath(path)), os.O_RDONLY | O_CLOEXEC | O_DIRECTORY)
    except OSError:
        return None
    with descriptor:
        return why_no_flock(descriptor)


def _existing(path: str) -> str:
    """Return the nearest directory above a path that exists, or the path itself."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _mounts(path: str) -> list[Mount]:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        return [_mount(line) for line in lines if " - " in line]


def _mount(line: str) -> Mount:
    mount, _, source = line.partition(" - ")
    fields = mount.split(" ")
    major, _, minor = fields[2].partition(":")
    place = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
    return Mount(place, device_number(int(major), int(minor)), source.split(" ")[0])
