"""Which modules of the package are pure, and what these do not import: see tests/project/test_layers.py."""

from __future__ import annotations

#: Pure modules outside of core/, of which all is pure.
PURE_ELSEWHERE = {
    "engine.scheduling.fair_queue",
    "batches.selector",
    "batches.sitemap",
    "dashboard.charts",
    "dashboard.url_lookup",
    "dashboard.windows_bar",
    "errors",
    "filesystem.sealed",
    "frontends.memoize.arguments",
    "stats.quantiles",
    "stores.formats.entry_format",
    "stores.formats.head_values",
    "stores.formats.note_format",
}
#: Clocks, I/O, chance and threads; and ways to reach them unseen.
IMPURE = {
    "time",
    "os",
    "socket",
    "threading",
    "random",
    "flask",
    "secrets",
    "subprocess",
    "multiprocessing",
    "asyncio",
    "tempfile",
    "shutil",
    "mmap",
    "fcntl",
    "pathlib",
    "logging",
    "queue",
    "concurrent",
    "importlib",
    "uuid",
}
