"""Whether the tests of endurance are played with their full counts, as ``make soak`` does."""

from __future__ import annotations

import os

IS_SOAK = os.environ.get("STALECACHE_SOAK") == "1"
