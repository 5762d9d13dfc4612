"""The task queues of the documentation, each with its real broker: a refresh leaves the web process and is done by the queue's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple, TextIO

import pytest

from support import prepared
from support.prepared import PreparedProcess
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
#: Hands one refresh over to the queue, prints ``queued``, and ``done`` when another process has made the page.
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
    time.sleep(0.05)
print("done", flush=True)
"""
#: For each queue, the imports of the shop and the command that starts the consumer.
QUEUES = {
    "celery": (
        "from celery import Celery",
        ["-m", "celery", "-A", "shop:celery", "worker", "-P", "solo", "-l", "warning", "--without-mingle", "--without-gossip"],
    ),
    "rq": ("from redis import Redis; from rq import Queue", ["-m", "rq.cli", "worker", "--url", "BROKER", "refreshes"]),
    "huey": ("from huey import SqliteHuey", ["-m", "huey.bin.huey_consumer", "shop.huey", "-w", "1"]),
    "dramatiq": (
        "import dramatiq; from dramatiq.brokers.redis import RedisBroker",
        ["-m", "dramatiq", "shop", "--processes", "1", "--threads", "1"],
    ),
}  # fmt: skip


def documented(name: str) -> str:
    """Return the code block of that name from the documentation."""
    found = re.search(rf"^    :name: {name}\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return dedent(found[1])


class Played(NamedTuple):
    """A visitor whose refresh is in a queue, and the consumer of the queue.

    :ivar said: the output of the visitor.
    """

    visitor: PreparedProcess
    said: TextIO
    consumer: subprocess.Popen[bytes]


@contextmanager
def played(name: str, folder: Path, server: Server) -> Iterator[Played]:
    """Let a visitor hand a refresh over to a queue, and then start the consumer of the queue."""
    folder.mkdir()
    imports, command = QUEUES[name]
    scheme = "redis+socket" if name == "celery" else "unix"
    broker = str(folder / "huey.db") if name == "huey" else f"{scheme}://{server.socket}"
    if name == "dramatiq":
        imports += "; from redis import Redis"
    source = SHOP.format(imports=imports, broker=broker, code=documented(name), directory=str(folder / "cache"))
    (folder / "shop.py").write_text(source, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    reading, writing = os.pipe()
    with open(reading) as said:
        with open(writing, "wb") as output, open(folder / "errors", "wb") as errors:
            visitor = prepared.start(
                ["-c", VISIT.format(folder=str(folder))],
                prepared.SERVER_MODULES,
                folder=folder,
                env=environment,
                output=output,
                errors=errors,
            )
        try:
            assert said.readline() == "queued\n", (folder / "errors").read_text()
            command = [word.replace("BROKER", broker) for word in command]
            with subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stderr=subprocess.DEVNULL) as consumer:
                try:
                    yield Played(visitor, said, consumer)
                finally:
                    consumer.terminate()
                    consumer.wait(PATIENCE)
        finally:
            visitor.kill()
            visitor.wait(PATIENCE)


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    """All queues, side by side: each mostly waits."""
    folder = tmp_path_factory.mktemp("queues")
    server = Server(folder)
    try:
        with ExitStack() as stack:
            queues = {name: stack.enter_context(played(name, folder / name, server)) for name in QUEUES}
            yield queues
            # All end side by side, too.
            for each in queues.values():
                each.consumer.terminate()
    finally:
        server.kill()


@pytest.mark.parametrize("name", QUEUES)
def test_a_refresh_is_done_by_the_processes_of_the_queue(name: str, queues: dict[str, Played]) -> None:
    assert queues[name].said.readline() == "done\n"
