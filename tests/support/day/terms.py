"""A day of a site: what its parts share."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400

KIB, MIB = 1024, 1024 * 1024

#: What ``random.random()`` answers; so that freshness is shortened and pauses are stretched by exact fractions.
HALF = 0.5

FIRST_PAUSE, LONGEST_PAUSE = 8, 300

INACTIVE = 10 * MINUTE

REFRESH_WORKERS = 2

#: Bytes for copies in a process, and the most copies that fit into them.
MEMORY_SIZE, COPIES = 128 * KIB, 128

HOST = "http://localhost"

PREFERS = {"X-Prefer-Stale": "1"}
