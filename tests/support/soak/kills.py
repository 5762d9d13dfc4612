"""A server whose workers and master are killed while visitors look on, and what they see."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from support.servers import PATIENCE, ROOT, Server, is_alive, serving, wait_for
from support.soak.ledger import KINDS, Ledger, Page
from support.soak.outcome import Outcome

WORKERS, VISITORS = 2, 6
#: The things that visitors look at, and the pages that are to be renewed after a kill.
LOOKED_AT = 8
WATCHED: list[Page] = [(kind, thing) for kind in KINDS if kind != "flood" for thing in range(3)]
#: Seconds within which each of them is renewed, even on a busy machine: less than the lock timeout.
BOUND = 30.0

SOURCE = """
import os
from pathlib import Path

from support.soak.ledger import Ledger
from support.soak.storm_site import make_site

site = make_site(Path(os.environ["CACHE"]), Ledger(Path(os.environ["LEDGER"]), 1), "1", (0.3, 3, 20))
app = site.app


@app.post("/purge/<int:thing>")
def purge(thing):
    site.cache.purge(tag=f"thing:{thing}")
    return "purged"
"""

#: How each server is started: its kind for :func:`~support.servers.serving`, and further arguments.
SERVERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gthread": ("gthread", {}),
    "sync": ("sync", {}),
    "gevent": ("gevent", {}),
    "preload": ("preload", {}),
    "max-requests": ("gthread", {"max_requests": 150, "max_requests_jitter": 100}),
    "uwsgi": ("uwsgi", {"threads": 4}),
    "granian": ("granian", {"respawns": True}),
}


class Victim:
    """A server that is killed again and again.

    :param name: one of :data:`SERVERS`.
    :ivar server: the one that runs now.
    """

    def __init__(self, name: str, folder: Path, ledger: Ledger) -> None:
        self.kind, self.settings = SERVERS[name]
        self.folder = folder
        self.directory = folder / "cache"
        self._stack = ExitStack()
        path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))
        self._env = {"CACHE": self.directory, "LEDGER": ledger.file, "PYTHONPATH": path}
        self.server = self._started()

    def _started(self) -> Server:
        running = serving(self.kind, SOURCE, self.folder, env=self._env, workers=WORKERS, **self.settings)
        return self._stack.enter_context(running)

    @property
    def is_whole(self) -> bool:
        """Whether all workers are there."""
        return len(self.server.worker_pids) >= WORKERS

    @property
    def pids(self) -> list[int]:
        return [self.server.pid, *self.server.worker_pids]

    def kill_worker(self, dice: random.Random) -> None:
        workers = self.server.worker_pids
        # granian ends if a worker dies within six seconds of its start, so its oldest one is killed.
        pid = workers[0] if self.kind == "granian" else dice.choice(workers)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid) and self.is_whole, what="another worker")

    def kill_master(self, *, alone: bool) -> None:
        """Kill the master, with its workers or alone, and start the server again."""
        pids = self.pids
        if alone:
            os.kill(self.server.pid, signal.SIGKILL)
            with suppress(AssertionError):
                # Those of gunicorn see that within a second or two, and end.
                wait_for(lambda: not any(map(is_alive, pids)), 5)
        with suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, pids)), what="the end of all processes")
        self._stack.close()
        self.server = self._started()

    def stop(self) -> None:
        self._stack.close()


class Crowd:
    """Visitors who look at a site all the while, and an editor who purges.

    :ivar outcome: what they see.
    :ivar shown: the last version that each page has shown.
    :ivar killing: whether processes are being killed. Only an answer that meets a kill may break off.
    """

    def __init__(self, victim: Victim, ledger: Ledger) -> None:
        self.victim = victim
        self.ledger = ledger
        self.outcome = Outcome()
        self.shown: dict[Page, int] = {}
        self.kills = 0
        self.killing = False
        self._is_over = threading.Event()

    @contextmanager
    def looking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._look, args=(number,), daemon=True) for number in range(VISITORS)]
        threads.append(threading.Thread(target=self._edit, daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(PATIENCE)
            if any(thread.is_alive() for thread in threads):
                self.outcome.fail("visitors hang")

    @contextmanager
    def while_killing(self) -> Iterator[None]:
        self.kills += 1
        self.killing = True
        yield
        self.killing = False

    def renewal(self) -> float:
        """Make a new version of each thing, and return the seconds until all watched pages have shown it."""
        new, start = {thing: self.ledger.edit(thing) for thing in range(LOOKED_AT)}, time.monotonic()
        for page in WATCHED:
            wait_for(lambda page=page: self._shown(page) >= new[page[1]], BOUND, f"the renewal of {page}")
        return time.monotonic() - start

    def _shown(self, page: Page) -> int:
        self._visit(page)
        return self.shown.get(page, -1)

    def ask(self, method: str, path: str) -> tuple[int, str, bytes] | None:
        """Send a request; return status, the cache's word and the body, or ``None`` if it breaks off."""
        kills, killing, start = self.kills, self.killing, time.monotonic()
        connection = HTTPConnection("127.0.0.1", self.victim.server.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers={"Connection": "close", "Host": "shop.example"})
            with connection.getresponse() as response:
                return response.status, response.headers["X-Cache-Status"] or "no word", response.read()
        except (OSError, HTTPException) as error:
            if kills == self.kills and not killing:
                self.outcome.fail(f"{method} {path} after {time.monotonic() - start:.2f} s: {error!r}")
            return None
        finally:
            connection.close()

    def _look(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._is_over.is_set():
            self._visit((dice.choice(KINDS), dice.randrange(LOOKED_AT)), f"?x={dice.getrandbits(20)}")

    def _visit(self, page: Page, query: str = "") -> None:
        (kind, thing), floor = page, self.ledger.floor(page)
        answer = self.ask("GET", f"/page/{thing}{query}" if kind == "flood" else f"/{kind}/{thing}")
        if answer is None:
            self.outcome.done["broken off"] += 1
            self._is_over.wait(0.02)
            return
        status, word, body = answer
        version = self.outcome.judge(page, (floor, self.ledger.version(thing)), status, body, word=word)
        self.outcome.done[word] += 1
        if version is not None:
            self.shown[page] = version

    def _edit(self) -> None:
        dice = random.Random(99)
        while not self._is_over.wait(0.15):
            thing = dice.randrange(LOOKED_AT)
            self.ledger.edit(thing)
            versions = self.ledger.versions()
            if (answer := self.ask("POST", f"/purge/{thing}")) is None:
                continue
            if answer[0] != 200:
                self.outcome.fail(f"a purge: {answer}")
            self.ledger.purged([(kind, thing) for kind in KINDS], versions)
            self.outcome.done["purges"] += 1
