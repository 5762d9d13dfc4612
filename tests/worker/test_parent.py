"""``flask stalecache worker`` beside a web process.

Covers ``worker.child``, ``worker.worker_socket``, ``worker.command``, ``cli.worker``,
``engine.handover.worker_link`` and ``stats.worker_state``.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_stalecache.core.packets.packets import Packet, socket_name
from flask_stalecache.core.packets.refresh_data import OriginKind
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.filesystem.local_socket import connect
from flask_stalecache.worker.parent import Limits, Parent
from flask_stalecache.worker.worker_socket import WorkerSocket
from support.client import settle, visit
from support.prepared import PreparedProcess
from support.threads import PATIENCE, wait_until
from support.worker_site import WorkerSite, children_of, maker_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def long_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkerSite, PreparedProcess]]:
    """One worker with two processes, for all tests that leave it as it is."""
    site = WorkerSite(tmp_path_factory.mktemp("site"))
    with site.worker("--processes", "2") as worker:
        site.await_worker(worker.pid)
        yield site, worker


@pytest.fixture
def site(long_site: tuple[WorkerSite, PreparedProcess]) -> WorkerSite:
    return long_site[0]


@pytest.fixture
def children(long_site: tuple[WorkerSite, PreparedProcess]) -> list[int]:
    return children_of(long_site[1].pid)


@pytest.fixture
def new_site(tmp_path: Path) -> WorkerSite:
    return WorkerSite(tmp_path)


def test_pages_are_made_by_its_processes(site: WorkerSite, children: list[int]) -> None:
    site.fill("/1", "/open")
    assert site.await_maker("/1") in children
    assert site.await_maker("/open") in children
    stats = site.module.app.extensions["stalecache"].engine.counters
    assert stats["refreshes_handed_over"] >= 2
    assert stats["refreshes_queued"] == 0


def test_each_variant_is_made_as_it_was(site: WorkerSite, children: list[int]) -> None:
    for theme in ("dark", "light"):
        visit(site.app, "/2", {"X-Theme": theme})
    for theme in ("dark", "light"):
        assert site.await_maker("/2", headers={"X-Theme": theme}) in children
        assert visit(site.app, "/2", {"X-Theme": theme}).text.startswith(f"2 {theme} ")


@pytest.mark.parametrize("name", ["rates", "slow"])
def test_values_are_made_by_its_processes_also_with_wait(site: WorkerSite, children: list[int], name: str) -> None:
    function = getattr(site.module, name)
    with site.app.app_context():
        assert function("EUR") == f"EUR made by {os.getpid()}"
        makers: list[int] = []
        wait_until(lambda: makers.append(int(function("EUR").rpartition(" ")[2])) or makers[-1] != os.getpid())  # type: ignore[func-returns-value]
    assert makers[-1] in children


def test_what_only_its_visitor_can_make_stays_here(site: WorkerSite) -> None:
    site.fill("/mine")
    for _ in range(3):
        assert site.maker("/mine") == os.getpid()
        settle(site.app, site.cache)
    assert site.app.extensions["stalecache"].engine.counters["refreshes_queued"] >= 2


def test_one_at_a_time_over_web_processes(site: WorkerSite) -> None:
    """Three web processes hand over the same page."""
    site.fill("/3")
    apps = [site.app, site.load().app, site.load().app]
    site.hold_one("/3")
    try:
        before = len(site.runs("/3"))
        for _ in range(3):
            assert {maker_of(visit(app, "/3")) for app in apps} == {os.getpid()}
        assert len(site.runs("/3")) == before
    finally:
        site.set("hold", False)
    site.await_maker("/3")


def test_a_purge_wins(site: WorkerSite) -> None:
    site.fill("/4")
    site.hold_one("/4")
    site.await_running("http://localhost/4")
    with site.app.app_context():
        site.cache.purge(tag="page:4")
    site.set("hold", False)
    site.await_running()
    # What was begun before the purge is not stored.
    assert visit(site.app, "/4").word == "MISS"


def test_a_failure_backs_off_for_all(site: WorkerSite) -> None:
    site.fill("/5")
    site.set("fail", True)
    before = len(site.runs("/5"))
    try:
        wait_until(lambda: site.maker("/5") and len(site.runs("/5")) > before, "a failed refresh")
        wait_until(lambda: visit(site.app, "/5").word == "UPDATING", "the back-off")
        assert {maker_of(visit(site.app, "/5")) for _ in range(20)} == {os.getpid()}
        assert len(site.runs("/5")) == before + 1
    finally:
        site.set("fail", False)


def test_its_state_says_what_runs(site: WorkerSite, children: list[int]) -> None:
    # A refresh that an earlier test has left may still run when this test begins.
    site.fill("/6", "/60")
    visit(site.app, "/60")
    pid = site.hold_one("/6")
    try:
        running = site.await_running("http://localhost/6")
        assert [each["pid"] for each in running] == [pid]
        state = site.state()
        assert state is not None
        assert (state["processes"], state["waiting"], state["bad"], state["dropped"]) == (2, 0, 0, 0)
        with site.app.app_context():
            worker = site.cache.stats()["worker"]
        assert [(each["title"], each["pid"]) for each in worker["running"]] == [("http://localhost/6", pid)]
        said = site.app.test_cli_runner().invoke(args=["stalecache", "stats"])
        assert re.search(rf"^http://localhost/6  [\d.]+ s  {pid}$", said.output, re.MULTILINE)
        assert "worker      2 processes, 1 running, 0 wait, " in said.output
    finally:
        site.set("hold", False)
    site.await_maker("/6")


def line_to(site: WorkerSite) -> socket.socket:
    directory = Directory(site.folder / "cache")
    directory.hold()
    made = connect(directory.at(socket_name("shop", "")))
    assert made is not None
    return made


def test_packets_that_are_none_are_counted_and_do_no_harm(site: WorkerSite, children: list[int]) -> None:
    with line_to(site) as line:
        for data in (b"x", b"\0" * 51, os.urandom(1000), b"GET / HTTP/1.1\r\n\r\n"):
            line.send(data)
        line.send(Packet(OriginKind.PAGE, "ab" * 20, "cd" * 8, 3, 1.0).encode() or b"")
        wait_until(lambda: (state := site.state()) is not None and state["bad"] == 4, "the count")
    site.fill("/7")
    assert site.await_maker("/7") in children


@pytest.mark.soak
def test_a_flood_is_bounded(site: WorkerSite, children: list[int], long_site: tuple[WorkerSite, PreparedProcess]) -> None:
    """2,000 refreshes of pages that are not stored, or 100,000 with ``STALECACHE_SOAK=1``."""
    count, sent = (100_000 if os.environ.get("STALECACHE_SOAK") == "1" else 2000), 0
    before = memory_of(long_site[1].pid)
    with line_to(site) as line:
        while sent < count:
            try:
                line.send(Packet(OriginKind.PAGE, f"{sent:040x}", "cd" * 8, sent % 1000, float(sent)).encode() or b"")
            except BlockingIOError:
                os.sched_yield()
                continue
            sent += 1
            if sent % 1000 == 0:
                assert site.maker("/7") > 0
    site.fill("/8")
    assert site.await_maker("/8") in children
    assert memory_of(long_site[1].pid) - before < 30_000_000


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- its life --------------------------------------------------------------------------------------------------------


def test_without_a_worker_refreshes_run_here(new_site: WorkerSite) -> None:
    new_site.fill("/1")
    assert new_site.maker("/1") == os.getpid()
    settle(new_site.app, new_site.cache)
    assert new_site.runs() == [os.getpid()] * 2


def test_what_runs_is_completed_when_it_is_told_to_stop(new_site: WorkerSite) -> None:
    with new_site.worker() as worker:
        new_site.await_worker(worker.pid)
        new_site.fill("/1")
        pid = new_site.hold_one("/1")
        for each in (worker.pid, pid):
            # Like a service manager that signals all processes of a group.
            os.kill(each, signal.SIGTERM)
        wait_until(lambda: not (new_site.folder / "cache" / socket_name("shop", "")).exists(), "the end of the socket")
        assert new_site.maker("/1") == os.getpid()
        new_site.set("hold", False)
        assert worker.wait(30) == 0
    assert new_site.await_maker("/1") == pid
    assert new_site.state() is None


def test_a_second_signal_ends_it_at_once(new_site: WorkerSite) -> None:
    with new_site.worker() as worker:
        new_site.await_worker(worker.pid)
        new_site.fill("/1")
        new_site.hold_one("/1")
        worker.terminate()
        wait_until(lambda: not (new_site.folder / "cache" / socket_name("shop", "")).exists(), "the end of the socket")
        worker.terminate()
        assert worker.wait(30) == 1
    new_site.set("hold", False)
    # The lock of the key is free.
    wait_until(lambda: new_site.maker("/1") == os.getpid() and len(new_site.runs()) > 2, "a refresh here")


class PlaceThatSignals(WorkerSocket):
    """A socket that sends this process a signal when it is first looked after, and another one when it is closed."""

    signals = 2

    def look_after(self, selector: selectors.BaseSelector, accept: Callable[[], object]) -> None:
        self.signal(2)

    def close(self, selector: selectors.BaseSelector) -> None:
        self.signal(1)

    def signal(self, left: int) -> None:
        if self.signals == left:
            self.signals -= 1
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_counts_from_the_end_of_the_socket(tmp_path: Path) -> None:
    limits = Limits(processes=1, threads=1, waiting=1, deadline=PATIENCE)
    # The child would end at once when its socket is closed. So status 1 means that the parent did not wait for it.
    parent = Parent(PlaceThatSignals(tmp_path, "worker", lambda: None), limits, lambda line: line.recv(1))
    assert parent.run() == 1


@pytest.mark.soak
def test_whoever_is_killed_is_replaced_and_no_page_is_stuck(new_site: WorkerSite, soak: Callable[[int, int], int]) -> None:
    """Children and parents are killed by turns, during refreshes."""
    rounds = soak(50, 5)
    new_site.fill("/1")
    worker = new_site.start()
    try:
        for turn in range(rounds):
            new_site.await_worker(worker.pid)
            held = new_site.hold_one("/1")
            if turn % 2 == 0 and held != os.getpid():
                os.kill(held, signal.SIGKILL)
            else:
                worker.kill()
                worker.wait(30)
                worker = new_site.start()
            before = len(new_site.runs())
            new_site.set("hold", False)
            # Any process may make the page.
            new_site.await_run("/1", before)
    finally:
        worker.kill()
        worker.wait(30)


def test_of_two_workers_one_takes_the_place_of_the_other(new_site: WorkerSite) -> None:
    new_site.fill("/1")
    with new_site.worker() as first:
        new_site.await_worker(first.pid)
        with new_site.worker() as second:
            wait_until(lambda: "another worker of this app and version is running" in new_site.log, "the line")
            assert new_site.await_maker("/1") in children_of(first.pid)
            first.kill()
            first.wait(30)
            new_site.await_worker(second.pid)
            now = new_site.maker("/1")
            assert new_site.await_maker("/1", other_than=now) in [*children_of(second.pid), os.getpid()]
            wait_until(lambda: new_site.maker("/1") in children_of(second.pid), "the second one")


@pytest.mark.parametrize("what", ["socket", "directory"])
def test_what_is_removed_is_made_again(new_site: WorkerSite, what: str) -> None:
    cache = new_site.folder / "cache"
    with new_site.worker() as worker:
        new_site.await_worker(worker.pid)
        if what == "socket":
            (cache / socket_name("shop", "")).unlink()
        else:
            cache.rename(new_site.folder / "old")
        wait_until(lambda: (cache / socket_name("shop", "")).exists(), "the socket")
        new_site.fill("/1")
        assert new_site.await_maker("/1") in children_of(worker.pid)


def test_a_worker_that_is_stopped_delays_a_refresh_for_seconds(new_site: WorkerSite) -> None:
    new_site.fill("/1")
    with new_site.worker() as worker:
        new_site.await_worker(worker.pid)
        maker = new_site.await_maker("/1")
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: new_site.maker("/1") == os.getpid(), "a refresh here")
            assert maker != os.getpid()
        finally:
            os.kill(worker.pid, signal.SIGCONT)


@pytest.mark.parametrize("option", [("--max-requests", "2"), ("--memory-limit", "1")], ids=" ".join)
def test_a_process_is_replaced_at_its_limit(new_site: WorkerSite, option: tuple[str, str]) -> None:
    new_site.fill("/1")
    with new_site.worker(*option) as worker:
        new_site.await_worker(worker.pid)
        first = new_site.await_maker("/1")
        wait_until(lambda: new_site.maker("/1") not in (first, os.getpid()), "another process")
        # The next one may begin only now.
        wait_until(lambda: children_of(worker.pid), "a process")
    assert "has died" not in new_site.log


def test_a_page_that_ends_its_process_ends_no_other(new_site: WorkerSite) -> None:
    new_site.fill("/1")
    with new_site.worker() as worker:
        new_site.await_worker(worker.pid)
        new_site.set("die", True)
        wait_until(lambda: new_site.maker("/1") and "a process of the worker has died, with 1 refreshes" in new_site.log, "its end")
        new_site.set("die", False)
        new_site.await_maker("/1")


def test_a_refresh_that_hangs_is_given_up_and_its_process_replaced(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path, REFRESH_DEADLINE=1, REFRESH_BACKOFF=(0.1, 0.1))
    site.fill("/1")
    with site.worker() as worker:
        site.await_worker(worker.pid)
        held = site.hold_one("/1")
        wait_until(lambda: "is replaced, since a refresh has run for" in site.log, "the line")
        wait_until(lambda: held not in children_of(worker.pid), "its end")
        site.set("hold", False)
        site.await_maker("/1")


def test_each_version_has_its_worker(tmp_path: Path) -> None:
    old, folder = WorkerSite(tmp_path, VERSION="1"), tmp_path
    with old.worker() as worker:
        old.await_worker(worker.pid)
        new = WorkerSite(folder, VERSION="2")
        new.fill("/1")
        assert new.maker("/1") == os.getpid()
        settle(new.app, new.cache)
        assert new.app.extensions["stalecache"].engine.counters["refreshes_handed_over"] == 0
        with new.worker() as other:
            new.await_worker(other.pid)
            assert new.await_maker("/1") in children_of(other.pid)
