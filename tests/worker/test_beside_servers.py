"""The worker beside gunicorn, whose web workers are forked from a loaded app, reloaded, and killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.servers import Server, serving, wait_for
from support.threads import wait_until
from support.worker_site import WorkerSite, children_of

pytestmark = pytest.mark.server


def maker(server: Server, path: str) -> int:
    answer = server.get(path)
    assert answer.status == 200, answer
    return int(answer.text.rpartition(" ")[2])


@pytest.mark.parametrize("kind", ["gthread", "preload"])
def test_web_workers_may_come_and_go(tmp_path: Path, kind: str) -> None:
    site = WorkerSite(tmp_path)
    with serving(kind, "", tmp_path, app="shop:app", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}) as server:
        assert maker(server, "/1") in server.worker_pids
        with site.worker("--processes", "2") as worker:
            site.await_worker(worker.pid)
            children = children_of(worker.pid)
            wait_until(lambda: maker(server, "/1") in children, "a page by the worker")
            before = server.worker_pids
            os.kill(server.pid, signal.SIGHUP)
            wait_for(lambda: not set(server.worker_pids) & set(before) and len(server.worker_pids) == 2, what="new web workers")
            assert maker(server, "/2") in server.worker_pids
            wait_until(lambda: maker(server, "/2") in children, "a page for the new ones")
            os.kill(server.worker_pids[0], signal.SIGKILL)
            wait_until(lambda: maker(server, "/3") in children, "a page after a kill")
        # The worker has ended, so web workers run their refreshes themselves.
        wait_until(lambda: maker(server, "/1") in server.worker_pids, "a page by a web worker")
