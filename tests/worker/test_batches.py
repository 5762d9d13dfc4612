"""Batches of a web process run in the worker, if there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from flask_stalecache import Batch
from support.client import visit
from support.threads import PATIENCE, wait_until
from support.worker_site import WorkerSite, children_of, maker_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSite]:
    site = WorkerSite(tmp_path_factory.mktemp("site"))
    with site.worker("--processes", "2") as worker:
        state = site.await_worker(worker.pid)
        assert state["pid"] == worker.pid
        yield site


def children(site: WorkerSite) -> list[int]:
    state = site.state()
    assert state is not None
    return children_of(state["pid"])


def begun(site: WorkerSite, what: str, **given: Any) -> Batch:
    with site.app.app_context():
        batch = getattr(site.cache, what)(**given)
    assert isinstance(batch, Batch)
    return batch


@pytest.mark.parametrize(("what", "numbers"), [("refresh", range(10, 16)), ("publish", range(30, 36))])
def test_its_pages_are_made_by_the_worker(site: WorkerSite, what: str, numbers: range) -> None:
    # Each case has pages of its own: a visitor's refresh that ended after the purge would leave ``publish`` nothing to do.
    assert {visit(site.app, f"/{number}").word for number in numbers} == {"MISS"}
    batch = begun(site, what, endpoint="page")
    assert batch.wait(PATIENCE)
    found = {outcome.url: outcome for outcome in batch.outcomes}
    for number in numbers:
        outcome = found[f"http://localhost/{number}"]
        assert (outcome.status, outcome.stored, outcome.reason, outcome.failed) == (200, True, "", False)
        assert outcome.seconds > 0
        assert maker_of(visit(site.app, f"/{number}")) in children(site)


def test_values_of_functions_too(site: WorkerSite) -> None:
    with site.app.app_context():
        site.module.rates("USD")
        batch = site.cache.refresh(function=site.module.rates)
        assert batch.wait(PATIENCE)
        assert [(each.status, each.stored) for each in batch.outcomes] == [(None, True)]
        assert int(site.module.rates("USD").rpartition(" ")[2]) in children(site)


def test_what_fails_there_is_told(site: WorkerSite) -> None:
    visit(site.app, "/20")
    site.set("fail", True)
    try:
        batch = begun(site, "refresh", url="/20")
        assert batch.wait(PATIENCE)
    finally:
        site.set("fail", False)
    assert [(each.failed, each.stored) for each in batch.outcomes] == [(True, False)]
    assert "whose log tells why" in batch.outcomes[0].reason


def test_what_the_worker_can_not_run_is_run_here(site: WorkerSite) -> None:
    visit(site.app, "/mine")
    batch = begun(site, "refresh", url="/mine")
    assert batch.wait(PATIENCE)
    assert [each.skipped for each in batch.outcomes] == [True]


def test_without_a_worker_they_run_here(tmp_path: Any) -> None:
    site = WorkerSite(tmp_path)
    visit(site.app, "/1")
    batch = begun(site, "refresh", endpoint="page")
    assert batch.wait(PATIENCE)
    assert [each.stored for each in batch.outcomes] == [True]
    assert site.maker("/1") == os.getpid()


def test_one_whose_worker_is_killed_goes_on_here(tmp_path: Any) -> None:
    site = WorkerSite(tmp_path)
    visit(site.app, "/1")
    with site.worker() as worker:
        site.await_worker(worker.pid)
        site.set("hold", True)
        before = len(site.runs())
        batch = begun(site, "refresh", endpoint="page")
        wait_until(lambda: len(site.runs()) > before, "the refresh there")
        held = site.runs()[-1]
        assert held != os.getpid()
        for pid in (worker.pid, held):
            os.kill(pid, 9)
        wait_until(lambda: site.runs()[-1] == os.getpid(), "the refresh here")
        site.set("hold", False)
        assert batch.wait(PATIENCE)
    assert [each.stored for each in batch.outcomes] == [True]
