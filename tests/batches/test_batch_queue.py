"""The limit of the batches that wait, and the errors when it is reached."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_stalecache import Batch, BatchQueueFull, StoreError
from flask_stalecache.batches import batch_queue, scheduler
from flask_stalecache.batches.batch_queue import BatchQueue, PlannedBatch
from support.batch_site import Site, make_site
from support.client import MakeApp, visit
from support.threads import PATIENCE, wait_until

MOST = 3


def planned(kind: str = "warm", about: object = None, listed: int = 0) -> PlannedBatch:
    return PlannedBatch(about, Batch(kind), iter([]), 1, listed)


@pytest.fixture
def site(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose batches are all under way, so that further ones wait."""
    monkeypatch.setattr(batch_queue, "MOST", MOST)
    app, cache = make_app(BASE_URL="http://localhost")
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    site = make_site(app, cache)
    site.fill(*(f"/news/{number}" for number in range(4)), "/about")
    site.held.clear()
    running = [site.do("refresh", url=f"/news/{number}") for number in range(4)]
    wait_until(lambda: site.open == len(running), "all run")
    yield site
    site.held.set()


def fill_queue(site: Site) -> list[Batch]:
    return [site.do("refresh", prefix=f"/nowhere/{number}") for number in range(MOST)]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("purge", {"prefix": "/about"}, "Purge again later, or by a tag, an endpoint or a URL: that is done at once"),
    ("refresh", {"tag": "news"}, "select more entries with one call"),
    ("publish", {"prefix": "/about"}, "select more entries with one call"),
    ("publish", {"url": "/about"}, "select more entries with one call"),
    ("warm", {"urls": ["/about"]}, "select more entries with one call"),
]


@pytest.mark.parametrize(
    ("what", "given", "advice"), REFUSED, ids=lambda value: "-".join(value) if isinstance(value, dict) else None
)
def test_one_too_many_is_refused_and_changes_nothing(
    site: Site, what: str, given: dict[str, Any], advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = fill_queue(site)
    purges = site.engine.counters["purges"]
    for _ in range(3):
        with pytest.raises(BatchQueueFull) as caught:
            site.do(what, **given)
    said = f"the {what} was not begun, and nothing was changed: {MOST} batches wait for their turn. "
    assert str(caught.value).startswith(said)
    assert advice in str(caught.value)
    # The error is logged too, since the caller may hide it.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [str(caught.value)]
    assert site.engine.counters["purges"] == purges
    assert visit(site.app, "/about").page == ("HIT", "version 1")
    with site.app.app_context():
        scans = site.cache.stats()["scans"]
        assert (scans["waiting"], scans["running"], scans["refused"]) == (MOST, 4, 3)
        site.held.set()
        assert site.cache.drain(PATIENCE)
        assert site.cache.stats()["scans"]["waiting"] == 0
    assert all(batch.finished for batch in waiting)
    assert site.done(what, **given).finished


def test_a_purge_by_name_needs_no_turn(site: Site) -> None:
    fill_queue(site)
    with site.app.app_context():
        assert site.cache.purge("/about")
    site.held.set()
    assert visit(site.app, "/about").word == "MISS"


def test_what_does_the_same_as_one_that_waits_is_that_one(site: Site) -> None:
    waiting = fill_queue(site)
    assert site.do("refresh", prefix="/nowhere/1") is waiting[1]


def test_a_cancelled_one_leaves_its_place(site: Site) -> None:
    waiting = fill_queue(site)
    waiting[1].cancel()
    another = site.do("refresh", prefix="/another")
    assert (waiting[1].finished, waiting[0].finished, another.finished) == (True, False, False)
    with pytest.raises(BatchQueueFull):
        site.do("refresh", prefix="/yet another")


def test_the_error_is_one_of_the_store() -> None:
    """Code that handles a purge that was not possible handles this one too."""
    assert issubclass(BatchQueueFull, StoreError)


def test_the_dashboard_says_so(site: Site) -> None:
    fill_queue(site)
    client = site.app.test_client()
    assert f"{MOST} wait for their turn" in client.get("/stalecache/").text
    token = re.search(r'name="token" value="([^"]+)"', client.get("/stalecache/?by=url&find=/about").text)
    form = {"token": token[1] if token else "", "action": "purge", "by": "prefix", "value": "/about"}
    assert f"{MOST} batches wait for their turn" in client.post("/stalecache/act", data=form, follow_redirects=True).text


def test_within_a_batch_further_ones_run_in_the_thread_that_starts_them(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """They never wait, since the outer one may wait for them; so their threads are limited instead."""
    monkeypatch.setattr(scheduler, "AT_ONCE_WITHIN", 1)
    app, cache = make_app()
    over: list[bool] = []

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        if cache.refreshing:
            over.extend(cache.refresh(prefix=f"/{number}").finished for number in range(20))
        return "page"

    visit(app, "/")
    with app.app_context():
        assert cache.refresh("/").wait(PATIENCE)
    assert over == [True] * 20


# -- the queue alone -------------------------------------------------------------------------------------------------


def test_tasks_that_are_listed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_queue, "MOST_LISTED", 100)
    queue = BatchQueue()
    # A single batch may list more URLs: they are in memory already.
    queue.push(planned(listed=1000))
    with pytest.raises(
        BatchQueueFull, match=r"the warm was not begun, .*: batches with 1000 URLs wait for their turn, and 100 may"
    ):
        queue.push(planned(listed=1))
    queue.pop()
    queue.push(planned(listed=60))
    queue.push(planned(listed=40))
    with pytest.raises(BatchQueueFull, match="100 URLs"):
        queue.push(planned(listed=1))
    assert len(queue) == 2


def test_they_come_in_their_order() -> None:
    queue, both = BatchQueue(), [planned(about=1), planned(about=2)]
    for each in both:
        assert queue.push(each) == []
    assert (queue.same(2, "warm"), queue.same(2, "purge"), queue.same(3, "warm")) == (both[1], None, None)
    both[1].batch.cancel()
    assert queue.same(2, "warm") is None
    assert [queue.pop(), queue.pop(), queue.pop()] == [*both, None]
