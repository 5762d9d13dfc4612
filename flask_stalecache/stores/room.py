"""Room for what is written: where a limit would be passed, what was used least goes first."""

from __future__ import annotations

import os
import random
import time

from ..errors import StoreError
from ..stats import Counters
from .folders import BILLION, Folders, Found
from .stamps import FOLDERS, Stamps, slot_of

#: How many keys are looked at together, so that the least used of them is a fair guess at the least used of all.
SAMPLE = 32
#: Which part of those goes at once at least, so that a full cache does not look at a folder for each write.
SHARE = 8
ROUNDS = 64
#: How many times what is there may have been counted, before the counters are not believed.
_TRUSTED = 1.5


class Room:
    """The limits of a cache directory, as those who write keep them.

    :param folders: what is stored.
    :param max_size: bytes on the disk at most; ``None``: no limit.
    :param min_free: bytes that stay free on the disk.
    :param counters: where evictions are counted.
    """

    def __init__(self, folders: Folders, max_size: int | None, min_free: int, counters: Counters) -> None:
        self.folders = folders
        self.max_size = max_size
        self.min_free = min_free
        self.counters = counters

    def make(self, size: int, stamps: Stamps | None) -> None:
        """Make room for so many bytes.

        :param stamps: the table that knows how much is stored; without it nobody can tell, and only ``min_free`` is kept.
        :raises StoreError: if there is none to be had.
        """
        if self.max_size is not None and size > self.max_size:
            raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE")
        for _ in range(ROUNDS):
            missing = self._missing(size, stamps)
            if missing <= 0:
                return
            if stamps is None or not self._evict(missing, stamps):
                break
        if self._missing(size, stamps) > 0:
            raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE and above STALECACHE_MIN_FREE")

    def _missing(self, size: int, stamps: Stamps | None) -> int:
        over = 0
        if self.max_size is not None and stamps is not None:
            over = sum(stamps.folder_sizes) + size - self.max_size
        if self.min_free:
            disk = os.statvfs(self.folders.directory)
            over = max(over, self.min_free + size - disk.f_bavail * disk.f_frsize)
        return over

    def _evict(self, missing: int, stamps: Stamps) -> bool:
        """Remove the least used of a sample, and return whether there was anything to look at."""
        sample, is_sound = self._sample(stamps)
        if not is_sound:
            # Files went beside us, or a crash lost them: nothing is to go for what is not there.
            self._measure(stamps)
            return True
        enough, most = min(SAMPLE, len(sample) // SHARE), max(1, len(sample) // 2)
        now_ns, freed, gone = int(time.time() * BILLION), 0, 0
        for found in sorted(sample, key=lambda found: found.used_ns):
            if gone >= (enough if freed >= missing else most):
                break
            slot = slot_of(found.name)
            if stamps.marks[slot]:
                # A second chance for what was used since. Noted first: who makes room beside us must not see it unmarked and old.
                self.folders.note_use(found.name, now_ns)
                stamps.marks[slot] = 0
            elif self.folders.remove(found, stamps):
                self.counters.count("evicted_for_size")
                freed += found.size
                gone += 1
        return bool(sample)

    def _sample(self, stamps: Stamps) -> tuple[list[Found], bool]:
        """Return what is in some folders, and whether they are about as full as was counted."""
        filled = [number for number, size in enumerate(stamps.folder_sizes) if size]
        random.shuffle(filled)
        sample: list[Found] = []
        counted = measured = 0
        while filled and len(sample) < SAMPLE:
            number = filled.pop()
            folder = self.folders.look(number)
            counted, measured = counted + stamps.folder_sizes[number], measured + folder.size
            stamps.count(number, folder.size, folder.entries)
            sample += [found for found in folder.keys.values() if not found.is_orphan]
        return sample, counted <= measured * _TRUSTED

    def _measure(self, stamps: Stamps) -> None:
        for number in range(FOLDERS):
            folder = self.folders.look(number)
            stamps.count(number, folder.size, folder.entries)
