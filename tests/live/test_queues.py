"""The task queues of the documentation, each with its real broker: a refresh leaves the web process and is done by the queue's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from support.shared_hosts import Server
from support.threads import PATIENCE

pytestmark = pytest.mark.server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "outside.rst"
SHOP = """
import os, time
from pathlib import Path
from flask import Flask
from flask_stalecache import StaleCache
{imports}

BROKER = {broker!r}
app = Flask("shop")
cache = StaleCache()
{code}
app.config.update(STALECACHE_REFRESHER=Refresher(), STALECACHE_DIR={directory!r}, STALECACHE_VERSION="7")
cache.init_app(app)

@app.get("/")
@cache.cached(max_age=0, stale_while_revalidate=600)
def page():
    return f"made by {{os.getpid()}}"
"""
#: Gives one refresh to the queue, and prints who has made the page in the end.
VISIT = """
import os, sys, time
sys.path.insert(0, {folder!r})
import shop
client = shop.app.test_client()
def get():
    with client.get("/") as response:
        return response.get_data(as_text=True)
assert get() == f"made by {{os.getpid()}}"
assert get() == f"made by {{os.getpid()}}"
with shop.app.app_context():
    assert shop.cache.drain(30)
    assert shop.cache.stats()["refreshes"]["handed_over"] == 1, shop.cache.stats()["refreshes"]
until = time.monotonic() + 90
print("queued", flush=True)
while get() == f"made by {{os.getpid()}}":
    assert time.monotonic() < until, "nobody has made it"
    time.sleep(0.02)
print("done", flush=True)
"""
#: What is imported, and the command of the queue.
QUEUES = {
    "celery": ("from celery import Celery", ["-m", "celery", "-A", "shop:celery", "worker", "-P", "solo", "-l", "warning"]),
    "rq": ("from redis import Redis; from rq import Queue", ["-m", "rq.cli", "worker", "--url", "BROKER", "refreshes"]),
    "huey": ("from huey import SqliteHuey", ["-m", "huey.bin.huey_consumer", "shop.huey", "-w", "1"]),
    "dramatiq": (
        "import dramatiq; from dramatiq.brokers.redis import RedisBroker",
        ["-m", "dramatiq", "shop", "--processes", "1", "--threads", "1"],
    ),
}  # fmt: skip


def documented(name: str) -> str:
    """Return the code of the documentation."""
    found = re.search(rf"^    :name: {name}\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return dedent(found[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.mark.parametrize("name", QUEUES)
def test_a_refresh_is_done_by_the_processes_of_the_queue(name: str, tmp_path: Path, server: Server) -> None:
    imports, command = QUEUES[name]
    scheme = "redis+socket" if name == "celery" else "unix"
    broker = str(tmp_path / "huey.db") if name == "huey" else f"{scheme}://{server.socket}"
    if name == "dramatiq":
        imports += "; from redis import Redis"
    code = documented(name)
    (tmp_path / "shop.py").write_text(
        SHOP.format(imports=imports, broker=broker, code=code, directory=str(tmp_path / "cache")), encoding="utf-8"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    visitor = subprocess.Popen(
        [sys.executable, "-c", VISIT.format(folder=str(tmp_path))], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert visitor.stdout is not None
    consumer = None
    try:
        assert visitor.stdout.readline() == "queued\n"
        command = [word.replace("BROKER", broker) for word in command]
        consumer = subprocess.Popen([sys.executable, *command], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        assert visitor.stdout.readline() == "done\n"
    finally:
        for process in (consumer, visitor):
            if process is not None:
                process.terminate()
                process.wait(PATIENCE)
        visitor.stdout.close()
