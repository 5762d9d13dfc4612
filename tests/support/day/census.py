"""A day of a site: counts of what must not grow."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from flask_stalecache.stores.formats.entry_format import decode_head
from support.day.terms import KIB, MIB

_OURS = re.compile(
    r"(?P<folder>[0-9a-f]{2})/(?P=folder)[0-9a-f]{38}(?P<kind>|\.note|\.lock)|names/(?P<name>[0-9a-f]{40})|stats/(?P<row>[0-9]+)"
)

_FIXED = {
    "stamps-4",
    "sweep",
    "sweep.lock",
    "purge.lock",
    "names/last",
    "names/floors",
    "names/reserve",
    "stats/history",
    "stats/history.lock",
    "stats/totals",
}


@dataclass(frozen=True)
class Census:
    """Counts of everything that must not grow during the day.

    :ivar files: how many files of each kind are in the directory.
    :ivar disk: bytes that the directory takes on the disk.
    :ivar objects: how many objects of each of the package's types there are.
    :ivar blocks: how many blocks of memory Python has.
    :ivar resident: bytes of memory that the process has.
    """

    visits: int
    threads: int
    open_files: int
    files: Counter[str]
    disk: int
    objects: Counter[str]
    blocks: int
    resident: int

    def assert_not_grown_since(self, before: Census) -> None:
        """Compare with an earlier census. Memory has some slack, because Python itself always allocates something."""
        assert self.open_files <= before.open_files
        assert self.disk - before.disk <= 4 * KIB * max(0, self.files.total() - before.files.total()) + 64 * KIB
        assert {kind: now for kind, now in self.objects.items() if now > before.objects[kind] + 8} == {}
        assert self.blocks - before.blocks < 1000 + (self.visits - before.visits) / 10
        assert self.resident - before.resident < 8 * MIB

    @classmethod
    def take(cls, directory: Path, visits: int) -> Census:
        objects = live_objects()
        files, disk = files_in(directory)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            visits=visits,
            threads=threading.active_count(),
            open_files=len(os.listdir("/proc/self/fd")),
            files=files,
            disk=disk,
            objects=objects,
            blocks=sys.getallocatedblocks(),
            resident=pages * os.sysconf("SC_PAGE_SIZE"),
        )


def files_in(directory: Path) -> tuple[Counter[str], int]:
    """Return how many files of each kind are in the directory, and how many bytes it takes on the disk."""
    files: Counter[str] = Counter()
    disk = 0
    for folder, _, names in os.walk(directory):
        disk += os.lstat(folder).st_blocks * 512
        for name in names:
            path = Path(folder, name)
            disk += path.lstat().st_blocks * 512
            files[kind_of(str(path.relative_to(directory)))] += 1
    return files, disk


def paths_stored_in(directory: Path) -> set[str]:
    """Return the paths of the pages whose entries are in the directory, purged or not."""
    entries = [decode_head(path.read_bytes()) for path in directory.glob("[0-9a-f][0-9a-f]/*") if "." not in path.name]
    return {name.removeprefix("path:") for entry in entries for name in entry.names if name.startswith("path:")}


def kind_of(path: str) -> str:
    match = _OURS.fullmatch(path)
    if match is None:
        return "fixed" if path in _FIXED else path
    if match["row"]:
        return "row"
    return "name" if match["name"] else match["kind"].removeprefix(".") or "entry"


def live_objects() -> Counter[str]:
    gc.collect()
    types = Counter(type(thing) for thing in gc.get_objects())
    ours = {kind: count for kind, count in types.items() if str(kind.__module__).startswith("flask_stalecache")}
    return Counter({kind.__qualname__: count for kind, count in ours.items()})
