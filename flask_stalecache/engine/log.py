"""A rate-limited log: each warning once, each error once a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable

logger = logging.getLogger("flask_stalecache")

#: Seconds between two lines about the same problem.
PAUSE = 60.0
REMEMBERED = 1000


class RateLimitedLog:
    """Logs each subject once, or once a minute.

    It remembers :data:`REMEMBERED` subjects at most, since visitors choose the paths in some of them.
    """

    def __init__(self) -> None:
        self._said: dict[Hashable, float] = {}

    def warn_once(self, about: Hashable, message: str, *args: object, level: int = logging.WARNING) -> None:
        """Log a warning the first time only, for problems that the developer can fix."""
        if about not in self._said:
            self._remember(about)
            logger.log(level, message, *args)

    def error_every_minute(self, about: Hashable, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log an error once a minute, for failures that may last."""
        last = self._said.get(about)
        if last is None or time.monotonic() - last >= PAUSE:
            self._remember(about)
            logger.error(message, *args, exc_info=exc_info)

    def _remember(self, about: Hashable) -> None:
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said[about] = time.monotonic()
