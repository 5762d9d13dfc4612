"""A logger that writes nothing, for apps whose views fail on purpose."""

from __future__ import annotations

import logging


def silent_logger() -> logging.Logger:
    """Return a logger that no other app shares."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger
