"""The cache directory of an app that configures none."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from weakref import finalize

from flask import Flask

from .current_app import NAME


def default_directory(app: Flask) -> Path:
    """Return the cache directory of an app that configures none.

    It is in the instance folder. Under ``TESTING`` it is a temporary directory of the app's own, so that no test gets the pages of
    another. The temporary directory is removed with the app, or when the process ends.
    """
    if not app.testing:
        return in_instance_folder(app)
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    finalize(app, _remove, folder, os.getpid())
    # Created only when it is needed, with the permissions of a cache directory.
    return folder / NAME


def in_instance_folder(app: Flask) -> Path:
    """Return the directory of the cache in the instance folder of an app."""
    return Path(app.instance_path) / NAME


def _remove(folder: Path, pid: int) -> None:
    # Only the process that made it: a forked child may end before its parent.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
