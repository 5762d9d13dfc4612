"""Warming of a web process runs in the worker, if there is one. Without processes: ``tests/batches/warmer/test_elsewhere.py``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache import Batch, ConfigError
from flask_stalecache.core.packets.packets import REPLY_SIZE, Packet, Said, decode_reply
from flask_stalecache.core.packets.refresh_data import OriginKind
from flask_stalecache.filesystem.local_socket import receive
from flask_stalecache.worker.parent import Limits, Parent, _Visitor
from flask_stalecache.worker.worker_socket import WorkerSocket
from support.client import visit
from support.threads import PATIENCE, wait_until
from support.worker_site import WorkerSite, children_of, maker_of

pytestmark = pytest.mark.server

HERE = "http://localhost"
#: Pages that stay fresh, and some that can't be stored.
MORE = """
@app.get("/kept/<name>")
@cache.cached(3600, vary=["Accept-Language"])
def kept(name):
    return f"{name} {request.headers.get('Accept-Language')} {made()}"

@app.get("/private")
@cache.cached(3600)
def private():
    return made(), {"Cache-Control": "private"}

@app.get("/fails")
@cache.cached(3600)
def fails():
    made()
    raise ConnectionError("the third party is down")

@app.get("/exits")
def exits():
    made()
    raise SystemExit(3)

@app.get("/robots.txt")
def robots():
    return "live"

@app.get("/sitemap.xml")
def sitemap():
    urls = "".join(f"<url><loc>http://localhost/kept/{name}</loc></url>" for name in ("x", "y"))
    return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'
"""


def new_site(folder: Path, **settings: Any) -> WorkerSite:
    return WorkerSite(folder, more=MORE, BASE_URL=HERE, REFRESH_BACKOFF=(300, 300), **settings)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSite]:
    """One worker for all tests that leave it as it is."""
    site = new_site(tmp_path_factory.mktemp("site"))
    with site.worker("--processes", "2") as worker:
        site.await_worker(worker.pid)
        yield site


def children(site: WorkerSite) -> list[int]:
    state = site.state()
    assert state is not None
    return children_of(state["pid"])


def begun(app: Any, urls: Any, **options: Any) -> Batch:
    with app.app_context():
        batch = app.extensions["stalecache"].bulk.warm(urls, 4, options.pop("force", False), options.pop("headers", None))
    assert isinstance(batch, Batch)
    return batch


def warm(site: WorkerSite, urls: Any, app: Any = None, **options: Any) -> Batch:
    batch = begun(site.app if app is None else app, urls, **options)
    assert batch.wait(PATIENCE)
    assert list((site.folder / "cache").glob("warm-*")) == []
    return batch


def test_its_pages_are_made_by_the_worker(site: WorkerSite) -> None:
    names = [f"a{number}" for number in range(12)]
    batch = warm(site, [f"/kept/{name}" for name in names])
    assert (batch.found, batch.done, batch.not_stored) == (12, 12, 0)
    assert all(outcome.seconds > 0 for outcome in batch.outcomes)
    for name in names:
        seen = visit(site.app, f"/kept/{name}")
        assert seen.word == "HIT"
        assert maker_of(seen) in children(site)


#: Warmings one after the other, of which some depend on those before.
TURNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "of all kinds": (
        ["/kept/b", "/kept/caf\u00e9?q=\u00e4", ("kept", {"name": "c"}), "/none", "/private", "/fails", "/exits", "/robots.txt"],
        {},
    ),
    "again": (["/kept/b", "/private", "/fails"], {}),
    "by force": (["/kept/b", "/fails", "/1"], {"force": True}),
    "with fields": ("/kept/b", {"headers": {"Accept-Language": "d\u00e9"}}),
    "as by a proxy": ("/kept/b", {"headers": {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"}}),
    "a sitemap": ("/sitemap.xml", {}),
    "of another host": (["/kept/d", "http://other.example/"], {}),
}


def told(site: WorkerSite, urls: Any, options: dict[str, Any]) -> object:
    """Return the outcomes and counts of a warming, without times, or the text of its error."""
    try:
        batch = warm(site, urls, **options)
    except ConfigError as error:
        return str(error)
    outcomes = sorted(outcome[:2] + outcome[3:] for outcome in batch.outcomes)
    return outcomes, batch.found, batch.done, batch.failed, batch.skipped, batch.not_stored, batch.error


def test_all_is_told_as_without_a_worker(site: WorkerSite, tmp_path: Path) -> None:
    alone = new_site(tmp_path)
    before = len(site.runs())
    for name, (urls, options) in TURNS.items():
        assert told(site, urls, options) == told(alone, urls, options), name
    assert set(site.runs()[before:]) <= set(children(site))
    assert set(alone.runs()) == {os.getpid()}
    assert len(site.runs()) - before == len(alone.runs())


def test_its_state_names_the_url(site: WorkerSite) -> None:
    site.set("hold", True)
    try:
        batch = begun(site.app, "/kept/held")
        site.await_running(f"{HERE}/kept/held")
    finally:
        site.set("hold", False)
    assert batch.wait(PATIENCE)


@pytest.mark.parametrize("version", ["2", None], ids=["version", "debug"])
def test_another_version_is_warmed_here(site: WorkerSite, version: str | None) -> None:
    """The worker's pages would be stale at once."""
    if version:
        app = new_site(site.folder, VERSION=version).app
    else:
        app = site.load().app
        app.debug = True
    path = f"/kept/version-{version}"
    assert [outcome.stored for outcome in warm(site, path, app).outcomes] == [True]
    assert (visit(app, path).word, site.runs()[-1]) == ("HIT", os.getpid())


def test_a_command_makes_its_pages_itself(site: WorkerSite) -> None:
    said = site.load().app.test_cli_runner().invoke(args=["stalecache", "warm", "/kept/command"])
    assert said.exit_code == 0, said.output
    assert site.runs()[-1] == os.getpid()


@pytest.mark.parametrize("victims", ["all", "the process"])
def test_one_whose_worker_is_killed_goes_on_here(tmp_path: Path, victims: str) -> None:
    site = new_site(tmp_path)
    with site.worker() as worker:
        site.await_worker(worker.pid)
        site.set("hold", True)
        batch = begun(site.app, [f"/kept/{number}" for number in range(10)])
        wait_until(lambda: len(site.runs()) == 4, "requests there")
        (maker,) = set(site.runs())
        assert maker != os.getpid()
        for pid in (worker.pid, maker) if victims == "all" else (maker,):
            os.kill(pid, 9)
        wait_until(lambda: os.getpid() in site.runs(), "a request here")
        site.set("hold", False)
        assert batch.wait(PATIENCE)
    assert sorted(outcome.url for outcome in batch.outcomes) == [f"{HERE}/kept/{number}" for number in range(10)]
    assert (batch.found, batch.done, batch.failed, batch.skipped, batch.not_stored) == (10, 10, 0, 0, 0)
    assert list((site.folder / "cache").glob("warm-*")) == []


def test_what_its_processes_complete_is_not_made_again(tmp_path: Path) -> None:
    """The processes of a killed parent hold the locks of their pages, and complete the requests that they run."""
    site = new_site(tmp_path)
    with site.worker() as worker:
        site.await_worker(worker.pid)
        site.set("hold", True)
        batch = begun(site.app, [f"/kept/{number}" for number in range(4)])
        wait_until(lambda: len(site.runs()) == 4, "requests there")
        worker.kill()
        worker.wait(PATIENCE)
        site.set("hold", False)
        assert batch.wait(PATIENCE)
    assert sorted(outcome.url for outcome in batch.outcomes if outcome.stored) == [f"{HERE}/kept/{number}" for number in range(4)]
    assert (batch.found, len(batch.outcomes), len(site.runs())) == (4, 4, 4)
    assert os.getpid() not in site.runs()


class Asking:
    """A web process and the parent of a worker whose processes have all died."""

    def __init__(self, place: Path, waiting: int) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.mine.setblocking(False)
        limits = Limits(processes=0, threads=1, waiting=waiting, deadline=PATIENCE)
        self.parent = Parent(WorkerSocket(place, "worker", lambda: None), limits, lambda line: None)

    def send(self, *addresses: str) -> None:
        for address in addresses:
            data = Packet(OriginKind.PAGE, address, "ab" * 8, 1, 0.0, is_forced=True, is_warming=True).encode()
            assert data is not None
            self.parent._meet(_Visitor(self.theirs), data)

    def said(self) -> list[object]:
        replies = receive(self.mine, 1000) or b""
        return [decode_reply(replies[at : at + REPLY_SIZE]) for at in range(0, len(replies), REPLY_SIZE)]

    def close(self) -> None:
        self.parent._close_all()
        self.mine.close()
        self.theirs.close()


@pytest.fixture
def asking(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Asking]:
    asking = Asking(tmp_path, request.param)
    yield asking
    asking.close()


@pytest.mark.parametrize("asking", [1], indirect=True)
def test_batches_are_told_at_once_that_there_is_no_room(asking: Asking) -> None:
    """Otherwise they would wait for an end that never comes."""
    asking.send("ab" * 20, "cd" * 20)
    assert asking.said() == [(Said.TAKEN, "ab" * 20), (Said.TAKEN, "cd" * 20), (Said.REFUSED, "cd" * 20)]


@pytest.mark.parametrize("asking", [10], indirect=True)
def test_batches_do_not_wait_for_processes_that_die_again_and_again(asking: Asking) -> None:
    asking.send("ab" * 20)
    asking.parent._look_after(0.0)
    asking.parent._look_after(1.0)
    assert asking.said() == [(Said.TAKEN, "ab" * 20), (Said.REFUSED, "ab" * 20)]
