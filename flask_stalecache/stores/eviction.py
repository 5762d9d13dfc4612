"""Room for what is written: where a limit would be passed, what was used least goes first."""

from __future__ import annotations

import math
import os
import random
import time
from contextlib import suppress

from ..errors import StoreError
from .folders import BILLION, Folders, Found, Removed
from .stamps import FOLDERS, Stamps, mark_of

#: How many keys are looked at together at least, so that the least used of them are a fair guess at the least used of all.
SAMPLE = 32
#: And at most: the others in a large folder are only named.
MOST = 512
#: Which part of those goes before others are looked at, if no more has to.
SHARE = 8
#: How many go at once at least, so that a full cache does not look for room at each write.
BATCH = 4
ROUNDS = 64
#: How many times what is there may have been counted, before the counters are not believed.
_TRUSTED = 1.5
#: Seconds for which who writes counts anew what is there.
_COUNTING = 0.02
_EVICTED = "evicted_for_size"


class Evictor:
    """The limits of a cache directory, as those who write keep them.

    :param folders: what is stored.
    :param max_size: bytes on the disk at most; ``None``: no limit.
    :param min_free: bytes that stay free on the disk.
    """

    def __init__(self, folders: Folders, max_size: int | None, min_free: int) -> None:
        self.folders = folders
        self.max_size = max_size
        self.min_free = min_free
        self._candidates = _Candidates([])

    def reserve(self, folder: int, size: int, stamps: Stamps | None) -> None:
        """Make room for so many bytes, and count them.

        They are counted before they are written: others that write at once know of each other.

        :param folder: where they are to go.
        :param stamps: the table that knows how much is stored; without it nobody can tell, and only ``min_free`` is kept.
        :raises StoreError: if there is none to be had.
        """
        if self.max_size is not None and size > self.max_size:
            raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE")
        for _ in range(ROUNDS):
            _grow(stamps, folder, size)
            missing = self._missing(size, stamps)
            if missing <= 0:
                return
            _grow(stamps, folder, -size)
            if stamps is None or not self._evict(missing, stamps, Removed(), math.inf):
                break
        raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE and above STALECACHE_MIN_FREE")

    def release(self, folder: int, size: int, stamps: Stamps | None) -> None:
        """Count no longer what could not be written."""
        _grow(stamps, folder, -size)

    def enforce(self, stamps: Stamps | None, removed: Removed, until: float) -> bool:
        """Bring what is stored under the limits, which may have been lowered since; return whether that is done, or was in vain.

        :param removed: where is counted what went.
        :param until: when to leave the rest for another time, by the monotonic clock.
        """
        in_vain, at_first = 0, removed["bytes"]
        while stamps is not None and in_vain < ROUNDS and (missing := self._missing(0, stamps)) > 0:
            before = removed["bytes"]
            if not self._evict(missing, stamps, removed, until):
                return True
            if time.monotonic() >= until:
                return removed["bytes"] == at_first
            in_vain = in_vain + 1 if removed["bytes"] == before else 0
        return True

    def _missing(self, size: int, stamps: Stamps | None) -> int:
        over = 0
        if self.max_size is not None and stamps is not None:
            over = sum(stamps.folder_sizes) - self.max_size
        if self.min_free:
            disk = os.statvfs(self.folders.directory)
            over = max(over, self.min_free + size - disk.f_bavail * disk.f_frsize)
        return over

    def _evict(self, missing: int, stamps: Stamps, removed: Removed, until: float) -> bool:
        """Remove the least used of a sample, and return whether there was anything to look at."""
        candidates = self._candidates
        if candidates.is_over or candidates.gone >= candidates.due:
            sample, is_sound = self._sample(stamps)
            if not is_sound:
                # Files went beside us, or a crash lost them: nothing is to go for what is not there.
                self._measure(stamps)
                return True
            candidates = self._candidates = _Candidates(sample)
        freed = gone = 0
        while freed < missing or (gone < BATCH and candidates.gone < candidates.due):
            found = candidates.next()
            if found is None:
                break
            if self._evict_one(found, stamps, removed):
                freed, gone, candidates.gone = freed + found.size, gone + 1, candidates.gone + 1
            if time.monotonic() >= until:
                break
        return candidates.is_sample

    def _evict_one(self, found: Found, stamps: Stamps, removed: Removed) -> bool:
        mark = mark_of(found.name)
        if stamps.marks[mark]:
            # A second chance for what was used since. Noted first: who makes room beside us must not see it unmarked and old.
            self.folders.note_use(found.name, int(time.time() * BILLION))
            stamps.marks[mark] = 0
            return False
        return self.folders.remove(found, stamps, _EVICTED, removed)

    def _sample(self, stamps: Stamps) -> tuple[list[Found], bool]:
        """Return what is in some folders, and whether they are about as full as was counted."""
        filled = [number for number, size in enumerate(stamps.folder_sizes) if size]
        random.shuffle(filled)
        sample: list[Found] = []
        counted, measured = 0, 0.0
        while filled and len(sample) < SAMPLE:
            number = filled.pop()
            counted += stamps.folder_sizes[number]
            folder = self.folders.look(number, MOST)
            sample += folder.keys
            if folder.is_whole:
                measured += folder.size
                stamps.count(number, folder.size, folder.entries)
            else:
                measured += stamps.folder_sizes[number] * folder.listed / max(1, stamps.folder_entries[number])
        return sample, counted <= measured * _TRUSTED

    def _measure(self, stamps: Stamps) -> None:
        until = time.monotonic() + _COUNTING
        for number in random.sample(range(FOLDERS), FOLDERS):
            folder = self.folders.look(number)
            stamps.count(number, folder.size, folder.entries)
            if time.monotonic() >= until:
                return


class _Candidates:
    """A sample, of which the least used go.

    :ivar due: how many go before another sample is taken.
    :ivar gone: how many have.
    :ivar is_sample: whether it was of anything.
    """

    def __init__(self, sample: list[Found]) -> None:
        self.is_sample = bool(sample)
        self.due = max(1, len(sample) // SHARE)
        self.gone = 0
        self._most = max(1, len(sample) // 2)
        self._keys = sorted(sample, key=lambda found: found.used_ns, reverse=True)

    @property
    def is_over(self) -> bool:
        """Whether no more of it may go: the others are hardly the least used of all, or nothing is left."""
        return self.gone >= self._most or not self._keys

    def next(self) -> Found | None:
        """Return the least used of those that are left, and leave it out from now on; other threads take from here too."""
        with suppress(IndexError):
            return None if self.is_over else self._keys.pop()
        return None


def _grow(stamps: Stamps | None, folder: int, size: int) -> None:
    if stamps is not None:
        stamps.grow(folder, size, 0)
