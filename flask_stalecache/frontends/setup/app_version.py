"""The version and start time of one app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...core.rules.prefer_stale import PreferStale
from ...core.rules.serving import ServeOptions


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class AppVersion:
    """The version and start time of one app. Made once at set-up, so that all its front ends write and expect the same.

    :param configured: ``STALECACHE_VERSION``; ``None`` if it is not set.
    :param deployed: when the app was set up, in seconds since the epoch.
    :param is_debug: returns whether the app is in debug mode.
    :param shows_errors: whether, in debug mode, the errors of views are shown instead of their stale pages.
    """

    configured: str | None
    deployed: float
    is_debug: Callable[[], bool] = _never
    shows_errors: bool = False

    @property
    def version(self) -> str:
        """The configured version; without one, the start time in debug mode and "" otherwise.

        ``app.run(debug=True)`` sets ``app.debug`` after set-up. So the version is computed only when it is needed.
        """
        if self.configured is None:
            # So that edited templates show after a restart.
            return f"debug {self.deployed}" if self.is_debug() else ""
        return self.configured

    def serve_options(self, refresh_ahead: float = 0.0, prefer_stale: PreferStale = PreferStale.NO) -> ServeOptions:
        """Return the options for serving entries to this version of the app."""
        shows_errors = self.shows_errors and self.is_debug()
        return ServeOptions(self.version, self.deployed, refresh_ahead, prefer_stale, shows_errors=shows_errors)
