"""A clock that tests set, for a server that reads the time from the C library."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

#: A library that is loaded before the C library, and replaces its functions for the time.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *micros;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("SERVER_CLOCK"), O_RDONLY);
    micros = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int gettimeofday(struct timeval *now, void *zone) {
    long long at = *micros;
    now->tv_sec = at / 1000000;
    now->tv_usec = at % 1000000;
    return 0;
}

time_t time(time_t *place) {
    time_t now = *micros / 1000000;
    if (place) *place = now;
    return now;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    if (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE) return real(which, now);
    long long at = *micros;
    now->tv_sec = at / 1000000;
    now->tv_nsec = at % 1000000 * 1000;
    return 0;
}
"""

#: A compiler of C.
COMPILER = shutil.which("cc")


class ServerClock:
    """A clock that stands still until it is set.

    :param folder: where its files are.
    """

    def __init__(self, folder: Path) -> None:
        assert COMPILER is not None
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_SOURCE)
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        with self._file.open("r+b") as file:
            self._cells = mmap.mmap(file.fileno(), 8)
        #: The environment of a server that reads it.
        self.environment = {"LD_PRELOAD": str(library), "SERVER_CLOCK": str(self._file)}

    def set(self, now: float) -> None:
        """Set it, in seconds since the epoch."""
        struct.pack_into("q", self._cells, 0, int(now * 1_000_000))
