"""The command ``advise``: which views to cache, and for how long, according to an access log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import unquote_to_bytes

import click
from flask import Flask
from flask.cli import with_appcontext

from ..config.settings import Settings
from ..core.addressing.purge_names import DEFAULT_PORTS
from ..core.formatting import NONE, clock, number, percent, size, spell
from ..core.http.access_log import LogLine
from ..core.model.policy import DEFAULT_JITTER, DEFAULT_STATUSES, Windows
from ..core.model.query import NamePatterns
from ..core.rules.log_replay import LogReplay, ReplayOutcome, RequestKind, Visits
from ..errors import ConfigError
from ..frontends.flask_app.flask_urls import match_endpoint
from ..frontends.pages.bound_view import cached_view
from . import output
from .context import this_app, this_state
from .log_files import LogFiles

LIFETIMES = (10.0, 60.0, 600.0, 3600.0)
_HEAD = ("ENDPOINT", "MAX_AGE", "REQUESTS", "FROM STORE", "SAVED", "AGE P50", "P95", "MAX", "ENTRIES", "BODIES")
#: A longer lifetime is advised only if it saves this many times as many calls.
_WORTH = 1.1
#: The statuses of requests that the stored page would have answered: also with a part of it, or by confirming it.
_PAGES = frozenset({*DEFAULT_STATUSES, 206, 304})


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "--max-age", "lifetimes", type=click.FloatRange(min=0, min_open=True), multiple=True, metavar="SECONDS",
    help="A lifetime to try; may be repeated. Default: 10, 60, 600 and 3600.",
)  # fmt: skip
@click.option("--stale-while-revalidate", type=click.FloatRange(min=0), metavar="SECONDS", help="Default: the app's configuration.")
@click.option("--stale-if-error", type=click.FloatRange(min=0), metavar="SECONDS", help="Default: the app's configuration.")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Print this many endpoints at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all endpoints.")
@with_appcontext
def advise(
    sources: tuple[str, ...],
    lifetimes: tuple[float, ...],
    stale_while_revalidate: float | None,
    stale_if_error: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """Replay access logs against lifetimes, and say which views to cache first.

    LOG is a file in Common or Combined Log Format or with a JSON object on each line, also compressed as .gz; or - for standard
    input. Nothing is requested and nothing is stored.
    """
    settings = this_state().settings
    swr = settings.stale_while_revalidate if stale_while_revalidate is None else stale_while_revalidate
    sie = settings.stale_if_error if stale_if_error is None else stale_if_error
    log = _Log(this_app(), settings)
    files = LogFiles(sources)
    for line in files:
        log.add(line)
    if not len(log.visits):
        raise ConfigError(f"there are no requests in {', '.join(sources)}")
    plans = [log.replay(Windows(max_age, swr, sie)) for max_age in sorted(set(lifetimes or LIFETIMES))]
    endpoints = sorted(log.endpoints(plans), key=lambda each: -each.best.outcome.saved)
    if as_json:
        output.echo_json(_json(log, files, endpoints, (swr, sie)))
        return
    for text in _report(log, files, endpoints, limit, (swr, sie)):
        output.echo(text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One lifetime for one endpoint, and its outcome."""

    max_age: float
    outcome: ReplayOutcome


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint, and the outcome of each lifetime.

    :ivar seconds: the mean time of its answers; ``None`` if the log has no times.
    :ivar cached: whether it is decorated already.
    """

    name: str
    cached: bool
    seconds: float | None
    plans: Sequence[_Plan] = field(repr=False)

    @property
    def best(self) -> _Plan:
        """The shortest lifetime that saves nearly as many calls as the best one."""
        most = max(plan.outcome.saved for plan in self.plans)
        return next(plan for plan in self.plans if plan.outcome.saved * _WORTH >= most)


class _Log:
    """The requests of the logs, by key and endpoint."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._ignored: NamePatterns = settings.ignored_parameters
        self._environ = _environ_of(app, settings)
        self._keys: dict[tuple[str, str, str], int] = {}
        self._endpoint_at: dict[tuple[str, str], int] = {}
        self._endpoints: dict[str, int] = {}
        #: Total seconds and number of the answers that have a time, by endpoint.
        self._times: dict[int, tuple[float, int]] = {}
        self.visits = Visits()
        #: The first exception that the app raised for a path: a converter may need a request.
        self.problem: Exception | None = None

    def add(self, line: LogLine) -> None:
        """Add one request."""
        endpoint = self._endpoint_of(line.host, line.path)
        key = (line.host, line.path, self._ignored.split(line.query)[0])
        kind = _kind_of(line, self._settings)
        if line.seconds is not None and kind in (RequestKind.PAGE, RequestKind.HEAD):
            total, count = self._times.get(endpoint, (0.0, 0))
            self._times[endpoint] = total + line.seconds, count + 1
        # Other answers have a part of the page, or no page.
        page_size = line.size if kind is RequestKind.PAGE and line.status not in (206, 304) else 0
        self.visits.add(self._keys.setdefault(key, len(self._keys)), endpoint, line.at, kind, page_size)

    def replay(self, windows: Windows) -> tuple[float, Sequence[ReplayOutcome]]:
        """Return the lifetime, and its outcome for each endpoint."""
        replay = LogReplay(
            windows,
            jitter=DEFAULT_JITTER,
            backoff=self._settings.refresh_backoff,
            inactive=self._settings.inactive,
            groups=len(self._endpoints),
            # Seeded, so that two replays of one log give the same numbers.
            chance=Random(0).random,
        )
        return windows.max_age, replay.play(self.visits)

    def endpoints(self, plans: Sequence[tuple[float, Sequence[ReplayOutcome]]]) -> Iterator[_Endpoint]:
        """Yield each endpoint with the outcomes of all lifetimes."""
        for name, group in self._endpoints.items():
            total, count = self._times.get(group, (0.0, 0))
            view = cached_view(self._app.view_functions.get(name))
            own = [_Plan(max_age, outcomes[group]) for max_age, outcomes in plans]
            yield _Endpoint(name, view is not None, total / count if count else None, own)

    def _endpoint_of(self, host: str, path: str) -> int:
        known = self._endpoint_at.get((host, path))
        if known is None:
            name = self._match(host, path) or NONE
            known = self._endpoint_at[(host, path)] = self._endpoints.setdefault(name, len(self._endpoints))
        return known

    def _match(self, host: str, path: str) -> str | None:
        path_info = unquote_to_bytes(path).decode("latin-1")
        root = self._environ["SCRIPT_NAME"]
        if root and path_info.startswith(f"{root}/"):
            path_info = path_info.removeprefix(root)
        try:
            return match_endpoint(self._app, {**self._environ, "PATH_INFO": path_info, **({"HTTP_HOST": host} if host else {})})
        except Exception as error:
            self.problem = self.problem or error
            return None


def _environ_of(app: Flask, settings: Settings) -> dict[str, str]:
    """Return the part of the environ that all requests have in common."""
    base = settings.base_url
    scheme = base.scheme if base else app.config["PREFERRED_URL_SCHEME"]
    host = base.host if base else app.config["SERVER_NAME"] or "localhost"
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": base.root if base else app.config["APPLICATION_ROOT"].rstrip("/"),
        "QUERY_STRING": "",
        "SERVER_NAME": host,
        "SERVER_PORT": DEFAULT_PORTS[scheme].removeprefix(":"),
        "HTTP_HOST": host,
        "wsgi.url_scheme": scheme,
    }


def _kind_of(line: LogLine, settings: Settings) -> RequestKind:
    if line.method not in ("GET", "HEAD") or line.has_user:
        return RequestKind.LIVE
    if line.status in _PAGES:
        return RequestKind.HEAD if line.method == "HEAD" else RequestKind.PAGE
    return RequestKind.FAILURE if line.status in settings.failure_statuses else RequestKind.OTHER


# -- the report ----------------------------------------------------------------------------------------------------------


def _report(log: _Log, files: LogFiles, endpoints: Sequence[_Endpoint], limit: int, stale: tuple[float, float]) -> Iterator[str]:
    first, last = log.visits.span
    unread = f"; {number(files.unread)} lines could not be read" if files.unread else ""
    yield f"{number(len(log.visits))} requests from {clock(first, _MINUTE)} to {clock(last, _MINUTE)} UTC{unread}"
    yield f"with stale_while_revalidate={stale[0]:g} and stale_if_error={stale[1]:g}"
    if log.problem is not None:
        yield f"some URLs could not be matched: {log.problem!r}"
    yield ""
    yield from output.columns([_HEAD, *_rows(endpoints[:limit])], right=frozenset(range(1, len(_HEAD))))
    if len(endpoints) > limit:
        yield f"and {number(len(endpoints) - limit)} more endpoints: --limit {len(endpoints)} prints them"
    yield ""
    yield from _advice(endpoints[:limit])


_MINUTE = "%Y-%m-%d %H:%M"


def _rows(endpoints: Sequence[_Endpoint]) -> Iterator[tuple[str, ...]]:
    for endpoint in endpoints:
        for place, plan in enumerate(endpoint.plans):
            outcome = plan.outcome
            ages = (outcome.age(share) for share in (0.5, 0.95, 1.0))
            yield (
                endpoint.name if place == 0 else "",
                spell(plan.max_age),
                number(outcome.visits),
                percent(outcome.from_store, outcome.visits),
                number(outcome.saved),
                *(NONE if age is None else spell(age) for age in ages),
                number(outcome.entries),
                size(outcome.size),
            )


def _advice(endpoints: Sequence[_Endpoint]) -> Iterator[str]:
    wanted = [each for each in endpoints if each.best.outcome.saved and each.name != NONE and not each.cached]
    if not wanted:
        yield "no endpoint that is not cached yet would save calls"
        return
    yield "decorate first:"
    rows = []
    for place, each in enumerate(wanted, 1):
        outcome = each.best.outcome
        time = f", {spell(outcome.saved * each.seconds)} of work" if each.seconds is not None else ""
        saved = f"saves {number(outcome.saved)} of {number(outcome.visits)} calls ({percent(outcome.saved, outcome.visits)}){time}"
        rows.append((f"{place}.", each.name, f"@cache.cached(max_age={each.best.max_age:g})", saved))
    yield from output.columns(rows)
    yield "The log does not say which pages depend on a visitor's session or cookies: such pages are answered live."


def _json(log: _Log, files: LogFiles, endpoints: Sequence[_Endpoint], stale: tuple[float, float]) -> Mapping[str, Any]:
    first, last = log.visits.span
    return {
        "requests": len(log.visits),
        "unread": files.unread,
        "from": first,
        "to": last,
        "stale_while_revalidate": stale[0],
        "stale_if_error": stale[1],
        "endpoints": [
            {
                "endpoint": None if each.name == NONE else each.name,
                "cached": each.cached,
                "seconds": each.seconds,
                "advised_max_age": each.best.max_age,
                "plans": [_plan_json(plan) for plan in each.plans],
            }
            for each in endpoints
        ],
    }


def _plan_json(plan: _Plan) -> Mapping[str, Any]:
    outcome = plan.outcome
    return {
        "max_age": plan.max_age,
        "requests": {str(status): count for status, count in outcome.statuses.items()},
        "hit_ratio": outcome.from_store / outcome.visits if outcome.visits else None,
        "calls": outcome.calls,
        "saved": outcome.saved,
        "age": {"p50": outcome.age(0.5), "p95": outcome.age(0.95), "max": outcome.age(1.0)},
        "entries": outcome.entries,
        "bytes": outcome.size,
    }
