"""Warming in the worker of the host: another app in this process plays it. Real ones: ``tests/worker/test_warmings.py``.

Covers ``batches.warm_elsewhere``, ``batches.warm_call`` and ``engine.handover.warm_files``.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort

from flask_stalecache import Batch, ConfigError, Outcome, RefreshRefused, StaleCache
from flask_stalecache.app_state import AppState
from flask_stalecache.batches.warm_elsewhere import LONGEST_REASON, outcome_from_json, outcome_to_json
from flask_stalecache.core.packets.packets import Said
from flask_stalecache.core.packets.warm_data import LARGEST
from support.client import visit
from support.threads import PATIENCE, wait_until
from support.warm_site import HERE


class Worker:
    """Runs warming requests in another app, like a worker.

    :ivar said: what ``warm`` returns once the request has run; ``None`` stands for a worker that is lost.
    :ivar before: called with the address before the request runs, and ``after`` once it has run.
    """

    lost_at = -math.inf

    def __init__(self, state: AppState, directory: Path) -> None:
        self.state = state
        self.directory = directory
        self.said: Said | None = Said.ENDED
        self.before: Callable[[str], object] = lambda address: None
        self.after: Callable[[str], object] = lambda address: None
        self.addresses: list[str | None] = []
        self.refusals: list[str] = []

    def run(self, data: object, group: object, patience: float) -> bool:
        return False

    def warm(self, app: str, version: str, ask: Callable[[], str | None], patience: float) -> Said | None:
        address = ask()
        self.addresses.append(address)
        if address is None:
            return None
        self.before(address)
        try:
            self.state.bulk.handed_warmings.run(address)
        except RefreshRefused as error:
            self.refusals.append(str(error))
            return None
        self.after(address)
        return self.said

    def request(self, address: str) -> Path:
        return self.directory / f"warm-{address}"

    def outcome(self, address: str) -> Path:
        return self.directory / f"warm-{address}.done"


class Site:
    """A web process and its worker: two apps that share a directory. ``made`` records which of them has made each page."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.made: list[str] = []
        self.app, self.cache = self._app("web", settings)
        other, _ = self._app("worker", settings)
        self.worker = Worker(other.extensions["stalecache"], directory)
        self.engine = self.app.extensions["stalecache"].engine
        self.engine.runtime.delegation.runner = self.worker

    def _app(self, where: str, settings: dict[str, Any]) -> tuple[Flask, StaleCache]:
        app = Flask("shop")
        app.config.update(STALECACHE_DIR=self.directory, STALECACHE_BASE_URL=HERE)
        app.config.update({f"STALECACHE_{name}": value for name, value in settings.items()})
        cache = StaleCache(app)

        @app.get("/<int:number>")
        @cache.cached(60)
        def page(number: int) -> str:
            self.made.append(where)
            if number == 500:
                raise ConnectionError("x" * 10_000)
            return f"{where} {number}"

        @app.get("/exits")
        def exits() -> str:
            self.made.append(where)
            raise SystemExit(3)

        @app.get("/in-line")
        def in_line() -> str:
            return f"{cache.warm('/1').outcomes}"

        app.add_url_rule("/gone", "gone", lambda: abort(404))
        return app, cache

    def warm(self, urls: Any = "/1", **options: Any) -> Batch:
        with self.app.app_context():
            batch = self.cache.warm(urls, **options)
        assert batch.wait(PATIENCE)
        # Nothing stays behind, whatever happens.
        assert list(self.directory.glob("warm-*")) == []
        return batch

    def one(self, urls: Any = "/1", **options: Any) -> Outcome:
        (outcome,) = self.warm(urls, **options).outcomes
        return outcome


@pytest.fixture
def site(directory: Path) -> Site:
    return Site(directory)


def test_what_the_worker_tells_is_the_outcome(site: Site) -> None:
    batch = site.warm(["/1", "/2", "/gone", "/500", "/exits"], concurrency=1)
    told = {outcome.url.removeprefix(HERE): outcome[1:2] + outcome[3:] for outcome in batch.outcomes}
    assert told == {
        "/1": (200, True, "", False, False),
        "/2": (200, True, "", False, False),
        "/gone": (404, False, "nothing caches it", False, False),
        "/500": (500, False, repr(ConnectionError("x" * 10_000))[:LONGEST_REASON], False, True),
        "/exits": (None, False, "SystemExit(3)", False, True),
    }
    assert site.made == ["worker"] * 4
    assert (batch.found, batch.done, batch.failed, batch.skipped, batch.not_stored) == (5, 3, 2, 0, 1)
    assert visit(site.app, "/1", base_url=HERE).page == ("HIT", "worker 1")
    assert site.one().reason == "it is fresh already"
    assert site.one(force=True).reason == ""


def test_each_request_has_an_address_of_its_own(site: Site) -> None:
    site.warm()
    site.warm(force=True)
    assert len({*site.worker.addresses}) == 2


def test_its_files_are_for_its_user_alone(site: Site) -> None:
    modes: list[int] = []
    site.worker.after = lambda address: modes.extend(
        place(address).stat().st_mode & 0o777 for place in (site.worker.request, site.worker.outcome)
    )
    assert site.one().stored
    assert modes == [0o600] * 2


@pytest.mark.parametrize("said", [None, Said.ENDED], ids=["the worker", "its process"])
def test_what_was_lost_is_made_here(site: Site, said: Said | None) -> None:
    """A page that the worker has stored before it was killed is found."""
    site.worker.said = said
    site.worker.after = lambda address: site.worker.outcome(address).unlink()
    batch = site.warm(["/1", "/500"], concurrency=1)
    assert [(outcome.url, outcome.stored, outcome.failed) for outcome in batch.outcomes] == [
        (f"{HERE}/1", True, False),
        (f"{HERE}/500", False, True),
    ]
    assert (batch.found, site.made) == (2, ["worker", "worker", "web"])


def test_what_has_not_begun_there_is_made_here(site: Site) -> None:
    site.worker.before = lambda address: site.worker.request(address).unlink()
    assert site.one().stored
    assert site.made == ["web"]


def test_what_is_too_long_is_made_here(site: Site) -> None:
    url = f"/1?q={'x' * LARGEST}"
    assert site.one(url).stored
    assert (site.made, site.worker.addresses) == (["web"], [None])


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "changed": lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
    "another kind": lambda data: b"\0" * 16,
    "too long": lambda data: data + b"x" * LARGEST,
}


@pytest.mark.parametrize("what", ["request", "outcome"])
@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_and_the_page_is_made_here(
    site: Site, what: str, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def damage(address: str) -> None:
        path = getattr(site.worker, what)(address)
        path.write_bytes(change(path.read_bytes()))

    setattr(site.worker, "before" if what == "request" else "after", damage)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        outcome = site.one(force=True)
    assert (outcome.stored, site.made[-1:]) == (True, ["web"])
    lines = [record.getMessage() for record in caplog.records] + site.worker.refusals
    assert len(lines) == 1
    assert "is broken, or of another version of the package" in lines[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"app": "news"}, "of the app 'news' was handed to"), ({"version": "8"}, "was handed to version ''")],
    ids=["app", "version"],
)
def test_what_is_of_another_app_or_version_is_refused(site: Site, settings: dict[str, str], text: str) -> None:
    def claim(address: str) -> None:
        files = site.app.extensions["stalecache"].bulk._files
        data = files.asked(address)
        path = site.worker.request(address)
        path.unlink()
        site.worker.request(files.ask(replace(data, **settings))).rename(path)

    site.worker.before = claim
    assert site.one().stored
    assert site.made == ["web"]
    assert text in site.worker.refusals[0]


def test_with_debug_each_start_is_a_version_of_its_own(site: Site) -> None:
    """The worker's pages would be stale here."""
    site.app.debug = True
    assert site.one().stored
    assert site.made == ["web"]


def test_what_takes_too_long_is_not_begun_here_too(site: Site) -> None:
    site.worker.said = Said.TAKEN
    outcome = site.one()
    assert (outcome.reason, outcome.failed) == ("it took longer than STALECACHE_REFRESH_DEADLINE", True)
    assert site.made == ["worker"]


def test_what_is_given_up_here_is_told_once(directory: Path, monotonic: Callable[[float], None]) -> None:
    site, held, begun = Site(directory, REFRESH_DEADLINE=100), threading.Event(), threading.Event()

    def hold(address: str) -> None:
        begun.set()
        held.wait(PATIENCE)

    site.worker.before = hold
    with site.app.app_context():
        batch = site.cache.warm("/1")
    assert begun.wait(PATIENCE)
    monotonic(101)
    site.engine.runtime.tick()
    assert batch.wait(PATIENCE)
    held.set()
    wait_until(lambda: list(directory.glob("warm-*")) == [], "the end there")
    assert [(outcome.reason, outcome.failed) for outcome in batch.outcomes] == [
        ("it took longer than STALECACHE_REFRESH_DEADLINE", True)
    ]
    assert (batch.found, batch.failed, batch.done, site.made) == (1, 1, 0, ["worker"])


def test_nobody_is_left_a_file_who_does_not_wait(site: Site) -> None:
    left: list[list[Path]] = []
    site.worker.before = lambda address: site.app.extensions["stalecache"].bulk._files.remove(address)
    site.worker.after = lambda address: left.append(list(site.directory.glob("warm-*")))
    assert site.one().stored
    assert left == [[]]


def test_a_batch_in_line_waits_for_the_worker(directory: Path) -> None:
    site = Site(directory, REFRESH_WORKERS=0)
    assert "stored=True" in visit(site.app, "/in-line", base_url=HERE).text
    assert site.made == ["worker"]


def test_what_is_not_accepted_is_refused_before(site: Site) -> None:
    with pytest.raises(ConfigError, match="is of another host"):
        site.warm(["/1", "http://other.example/1"])
    assert site.worker.addresses == []


OUTCOME = Outcome("/", 200, 0.25, stored=True, reason="r", skipped=True, failed=False)


@pytest.mark.parametrize("outcome", [OUTCOME, OUTCOME._replace(status=None, stored=False, failed=True, seconds=0)], ids=ascii)
def test_an_outcome_arrives_as_it_was(outcome: Outcome) -> None:
    assert outcome_from_json("/", json.loads(json.dumps(outcome_to_json(outcome)))) == outcome


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "",
        [],
        [200, 0.5, True, "", False],
        [200, 0.5, True, "", False, False, 1],
        ["200", 0.5, True, "", False, False],
        [True, 0.5, True, "", False, False],
        [99, 0.5, True, "", False, False],
        [10**9, 0.5, True, "", False, False],
        [200, "0.5", True, "", False, False],
        [200, True, True, "", False, False],
        [200, -1, True, "", False, False],
        [200, math.nan, True, "", False, False],
        [200, math.inf, True, "", False, False],
        [200, 0.5, 1, "", False, False],
        [200, 0.5, True, None, False, False],
        [200, 0.5, True, "x" * (LONGEST_REASON + 1), False, False],
        [200, 0.5, True, "", None, False],
        [200, 0.5, True, "", False, []],
    ],
    ids=range(20),
)
def test_what_is_no_outcome_is_none(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        outcome_from_json("/", data)
