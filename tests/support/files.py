"""Files that other threads and processes read at any moment."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Replace the text of a file, so that each reader finds the old or the new one: ``write_text`` empties the file first."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    beside.write_text(text)
    beside.replace(path)
