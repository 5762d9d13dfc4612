"""The storm: a process whose threads do everything at once with a site, and compare each answer with the ledger."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import time_machine
from flask import Flask
from werkzeug.test import EnvironBuilder

from flask_stalecache import FileStore, StoreError
from flask_stalecache.stats import counter_file
from support.soak.clock import SharedClock
from support.soak.figures import Usage
from support.soak.ledger import KINDS, THINGS, Ledger, Page
from support.soak.outcome import Outcome
from support.soak.storm_site import USERS, Site, is_frail, login_cookies, make_site, text_of

#: Seconds after which a visitor or an editor counts as hanging: less than the lock timeout, and ample for seventy threads per core.
HANGS = 90
#: Seconds between two reloads of an app, and between two forks.
RELOAD, FORK = 4, 3
#: How many things a fork of a process does.
OF_A_FORK = 30
HOST = "http://storm.example"


class Storm:
    """What one process does, and what all its threads share.

    :param cookies: those of the users' sessions.
    """

    def __init__(self, directory: Path, ledger: Ledger, cookies: list[str]) -> None:
        self.cookies = cookies
        self.directory = directory
        self.ledger = ledger
        self.outcome = Outcome()
        self.busy: dict[int, tuple[str, float]] = {}
        self.releases: list[weakref.ref[Flask]] = []
        self.site = self.deployed()

    def deployed(self) -> Site:
        made = make_site(self.directory, self.ledger, f"release {len(self.releases)}")
        self.releases.append(weakref.ref(made.app))
        return made

    def act(self, dice: random.Random) -> None:
        """Do one thing."""
        [what] = dice.choices(_ACTS, _WEIGHTS)
        start, site, name = time.monotonic(), self.site, what.__name__.strip("_")
        self.busy[threading.get_ident()] = name, start
        try:
            what(self, site, dice)
        except StoreError:
            # The caller was told of the failure, and nothing was recorded in the ledger.
            name += " refused"
        except Exception:
            self.outcome.fail(traceback.format_exc())
        self.busy.pop(threading.get_ident(), None)
        self.outcome.done[name] += 1
        took = time.monotonic() - start
        if took > self.outcome.slowest.get(name, 0):
            self.outcome.slowest[name] = took

    def see(self, page: Page, floor: int, status: int, body: bytes, user: str, word: str) -> None:
        """Compare an answer with the ledger: a floor read before it was asked for, and the version now."""
        self.outcome.judge(page, (floor, self.ledger.version(page[1])), status, body, user, word)

    def purge(self, pages: Iterable[Page], purge: Callable[[], object]) -> None:
        """Purge pages, and record that in the ledger afterwards."""
        versions = self.ledger.versions()
        purge()
        self.ledger.purged(pages, versions)


# -- visitors --------------------------------------------------------------------------------------------------------


def ask(
    app: Flask, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, parts: int | None = None
) -> tuple[int, str, bytes]:
    """Send a request; return status, the cache's word and the body.

    :param parts: after how many parts the visitor goes away. Default: they read all.
    """
    answered: dict[str, Any] = {}

    def start_response(status: str, fields: list[tuple[str, str]], error: object = None) -> Callable[[bytes], object]:
        answered.update(status=int(status.split()[0]), word=dict(fields).get("X-Cache-Status", ""))
        return lambda data: None

    environ = EnvironBuilder(path, HOST, method=method, headers=dict(headers or {})).get_environ()
    iterable, body = app(environ, start_response), b""
    try:
        for number, part in enumerate(iterable):
            if number == parts:
                break
            body += part
    finally:
        if hasattr(iterable, "close"):
            iterable.close()
    return answered["status"], answered["word"], body


def _visit(storm: Storm, site: Site, dice: random.Random) -> None:
    # Some are visited far more than others.
    page, user = (dice.choice(KINDS), int(THINGS * dice.random() ** 3)), "nobody"
    kind, thing = page
    path, headers = f"/{kind}/{thing}", {}
    if kind == "flood":
        path = f"/page/{thing}?x={dice.getrandbits(30)}"
    if kind == "hello" and dice.random() < 0.5:
        number = dice.randrange(USERS)
        headers, user = {"Cookie": storm.cookies[number]}, f"user-{number}"
    floor = storm.ledger.floor(page)
    status, word, body = ask(site.app, path, headers=headers)
    storm.see(page, floor, status, body, user, word)
    storm.outcome.done[word or "no word"] += 1


def _read_a_part(storm: Storm, site: Site, dice: random.Random) -> None:
    ask(site.app, f"/stream/{dice.randrange(THINGS)}", parts=dice.randrange(3))


def _look_twice(storm: Storm, site: Site, dice: random.Random) -> None:
    """Ask for the head, and for a range."""
    thing = dice.randrange(THINGS)
    status, _, body = ask(site.app, f"/gate/{thing}", method="HEAD")
    if (status, body) != (200, b"") and not is_frail(thing):
        storm.outcome.fail(f"HEAD {thing}: {status} {body[:80]!r}")
    status, _, body = ask(site.app, f"/gate/{thing}", headers={"Range": "bytes=0-3"})
    if (status, body) not in ((206, b"gate"), (503, b"down")) and not (status == 200 and body.startswith(b"gate")):
        storm.outcome.fail(f"Range {thing}: {status} {body[:80]!r}")


def _post(storm: Storm, site: Site, dice: random.Random) -> None:
    """Change a thing by a form. Its visitor is not told if the store fails, and the page is not purged then."""
    thing, counters = dice.randrange(THINGS), site.app.extensions["stalecache"].counters
    failures = counters["store_failures"]
    status, _, body = ask(site.app, f"/gate/{thing}", method="POST")
    if status != 200:
        storm.outcome.fail(f"POST {thing}: {status} {body[:80]!r}")
        return
    versions = [0] * THINGS
    versions[thing] = int(body)
    if counters["store_failures"] == failures:
        storm.ledger.purged([("gate", thing)], versions)


# -- editors ---------------------------------------------------------------------------------------------------------


def _pages(kinds: Iterable[str], things: Iterable[int] = range(THINGS)) -> list[Page]:
    numbers = list(things)
    return [(kind, thing) for kind in kinds for thing in numbers]


def _purge_tag(storm: Storm, site: Site, dice: random.Random) -> None:
    thing = dice.randrange(THINGS)
    storm.ledger.edit(thing)
    with site.app.app_context():
        storm.purge(_pages(KINDS, [thing]), lambda: site.cache.purge(tag=f"thing:{thing}"))


def _purge_shelf(storm: Storm, site: Site, dice: random.Random) -> None:
    shelf = dice.randrange(6)
    storm.ledger.edit(shelf)
    with site.app.app_context():
        storm.purge(_pages(KINDS, range(shelf, THINGS, 6)), lambda: site.cache.purge(tag=f"shelf:{shelf}"))


def _purge_url(storm: Storm, site: Site, dice: random.Random) -> None:
    kind, thing = dice.choice(("page", "gate", "stream", "hello")), dice.randrange(THINGS)
    storm.ledger.edit(thing)
    host = dice.choice((HOST, ""))
    with site.app.app_context():
        storm.purge([(kind, thing)], lambda: site.cache.purge(f"{host}/{kind}/{thing}"))


def _purge_endpoint(storm: Storm, site: Site, dice: random.Random) -> None:
    name, kinds = dice.choice((("page", ["page", "flood"]), ("gate", ["gate"]), ("stream", ["stream"]), ("hello", ["hello"])))
    storm.ledger.edit(dice.randrange(THINGS))
    with site.app.app_context():
        storm.purge(_pages(kinds), lambda: site.cache.purge(endpoint=name))


def _purge_call(storm: Storm, site: Site, dice: random.Random) -> None:
    thing = dice.randrange(THINGS)
    storm.ledger.edit(thing)
    with site.app.app_context():
        storm.purge([("memo", thing)], lambda: site.lookup.purge(thing))


def _purge_all(storm: Storm, site: Site, dice: random.Random) -> None:
    storm.ledger.edit(dice.randrange(THINGS))
    with site.app.app_context():
        storm.purge(_pages(KINDS), lambda: site.cache.purge(all=True))


def _purge_prefix(storm: Storm, site: Site, dice: random.Random) -> None:
    """Purge what a walk finds. A page that is being built for the first time is not stored yet, so it may be stored afterwards."""
    kind, start = dice.choice(("page", "gate", "stream", "hello")), str(dice.randrange(1, 7))
    things = [thing for thing in range(THINGS) if str(thing).startswith(start)]
    storm.ledger.edit(things[0])
    versions = storm.ledger.versions()
    with site.app.app_context():
        batch = site.cache.purge(prefix=f"/{kind}/{start}")
        is_over = batch.wait(HANGS)
    if not is_over:
        storm.outcome.fail(f"a purge by prefix hangs: {batch}")
    if batch.error or batch.failed:
        raise StoreError(batch.error)
    found = {outcome.url for outcome in batch}
    storm.ledger.purged([(kind, thing) for thing in things if f"{HOST}/{kind}/{thing}" in found], versions)


def _purge_softly(storm: Storm, site: Site, dice: random.Random) -> None:
    with site.app.app_context():
        site.cache.purge(tag=f"shelf:{dice.randrange(6)}", soft=True)


def _refresh_many(storm: Storm, site: Site, dice: random.Random) -> None:
    with site.app.app_context():
        do = dice.choice((site.cache.refresh, site.cache.publish))
        batch = do(tag=f"thing:{dice.randrange(THINGS)}")
        if not batch.wait(HANGS):
            storm.outcome.fail(f"a batch hangs: {batch}")


def _warm(storm: Storm, site: Site, dice: random.Random) -> None:
    with site.app.app_context():
        batch = site.cache.warm([f"{HOST}/page/{dice.randrange(THINGS)}" for _ in range(3)])
        if not batch.wait(HANGS):
            storm.outcome.fail(f"warming hangs: {batch}")


def _refresh_call(storm: Storm, site: Site, dice: random.Random) -> None:
    with site.app.app_context():
        site.lookup.refresh(dice.randrange(THINGS))


# -- housekeeping ----------------------------------------------------------------------------------------------------


def _tick(storm: Storm, site: Site, dice: random.Random) -> None:
    site.app.extensions["stalecache"].engine.runtime.tick()


def _sweep(storm: Storm, site: Site, dice: random.Random) -> None:
    site.app.extensions["stalecache"].engine.store.sweep()


def _look_through(storm: Storm, site: Site, dice: random.Random) -> None:
    broken = [checked for checked in site.app.extensions["stalecache"].engine.store.verify(fix=False) if checked.problem]
    if broken:
        storm.outcome.fail(f"verify: {broken[:3]}")
    with site.app.app_context():
        site.cache.stats()


_WEIGHTED: dict[Callable[[Storm, Site, random.Random], None], float] = {
    _visit: 80,
    _read_a_part: 1,
    _look_twice: 2,
    _post: 2,
    _purge_tag: 2,
    _purge_shelf: 0.5,
    _purge_url: 2,
    _purge_endpoint: 0.5,
    _purge_call: 1,
    _purge_all: 0.1,
    _purge_prefix: 0.3,
    _purge_softly: 1,
    _refresh_many: 0.5,
    _refresh_call: 0.5,
    _warm: 0.2,
    _tick: 2,
    _sweep: 0.05,
    _look_through: 0.02,
}
_ACTS, _WEIGHTS = list(_WEIGHTED), list(_WEIGHTED.values())


# -- a process -------------------------------------------------------------------------------------------------------


def rage(directory: Path, ledger_file: Path, clock_file: Path, writer: int, threads: int) -> Outcome:
    """Do everything at once with many threads until the ledger says that it is over, and return what was seen."""
    said, cookies = _Said(), login_cookies()
    logging.getLogger().addHandler(said)
    with SharedClock(clock_file).running():
        storm = Storm(directory, Ledger(ledger_file, writer), cookies)
        raging = [threading.Thread(target=_rage, args=(storm, 1000 * writer + number), daemon=True) for number in range(threads)]
        for thread in raging:
            thread.start()
        _lead(storm)
        for thread in raging:
            thread.join(HANGS)
        if any(thread.is_alive() for thread in raging):
            storm.outcome.fail(f"threads hang: {storm.busy}\n{_stacks()}")
        _calm(storm)
        storm.outcome.said = said.lines
        return storm.outcome


class _Said(logging.Handler):
    """Counts the lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Counter[str]()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        self.lines[f"{record.levelname} {record.msg} {error}"] += 1


def _rage(storm: Storm, seed: int) -> None:
    dice = random.Random(seed)
    while not storm.ledger.is_over:
        storm.act(dice)


def _lead(storm: Storm) -> None:
    """Reload the app, fork, look at what is used, and see whether anybody hangs."""
    reload_at, fork_at = time.monotonic() + RELOAD / 2, time.monotonic() + FORK / 4
    while not storm.ledger.is_over:
        now = time.monotonic()
        if now >= reload_at:
            storm.site, reload_at = storm.deployed(), now + RELOAD
        if now >= fork_at:
            _fork(storm)
            fork_at = now + FORK
        storm.outcome.samples.take([os.getpid()], storm.directory)
        slow = [(what, round(now - since)) for what, since in list(storm.busy.values()) if now - since > HANGS]
        if slow:
            storm.outcome.fail(f"hangs: {slow}\n{_stacks()}")
            storm.ledger.end()
        time.sleep(0.2)


def _fork(storm: Storm) -> None:
    """Let a fork of this process use the site too."""
    with tempfile.TemporaryFile() as told:
        pid = os.fork()
        if pid == 0:
            _be_forked(storm, told)
        until = time.monotonic() + HANGS
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGABRT)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)
        told.seek(0)
        said = told.read().decode()
    storm.outcome.done["fork"] += 1
    if said != "good":
        storm.outcome.fail(f"a fork said: {said}")


def _be_forked(storm: Storm, told: Any) -> None:
    try:
        faulthandler.enable(told)
        storm.outcome, storm.busy, storm.ledger = Outcome(), {}, storm.ledger.forked()
        dice = random.Random(os.getpid())
        acting = [threading.Thread(target=lambda: [storm.act(dice) for _ in range(OF_A_FORK // 3)]) for _ in range(3)]
        for thread in acting:
            thread.start()
        for thread in acting:
            thread.join()
        told.write("\n".join(storm.outcome.wrong or ["good"]).encode())
    except BaseException:
        told.write(traceback.format_exc().encode())
    finally:
        told.flush()
        os._exit(0)


def _calm(storm: Storm) -> None:
    """Wait for background refreshes, and check that apps that were replaced are gone."""
    with storm.site.app.app_context():
        if not storm.site.cache.drain(HANGS):
            storm.outcome.fail(f"refreshes hang\n{_stacks()}")
    until = time.monotonic() + HANGS
    while sum(app() is not None for app in storm.releases) > 1 and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    left = sum(app() is not None for app in storm.releases)
    if left > 1:
        storm.outcome.fail(f"{left} apps are left of {len(storm.releases)}")


def _stacks() -> str:
    return "\n".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values())


def renewed(directory: Path, ledger_file: Path, things: int) -> list[str]:
    """Once all is calm: make new versions of things, purge them, and return what does not show them at once, or is not stored."""
    ledger, wrong = Ledger(ledger_file, 0), []
    site = make_site(directory, ledger, "the last release")
    for thing in range(things):
        for kind in KINDS:
            path = f"/page/{thing}?x=1" if kind == "flood" else f"/{kind}/{thing}"
            with site.app.app_context():
                version = ledger.edit(thing)
                site.cache.purge(tag=f"thing:{thing}")
            seen = [ask(site.app, path) for _ in range(2)]
            if {body for _, _, body in seen} != {text_of("page" if kind == "flood" else kind, thing, version).encode()}:
                wrong.append(f"{path}: {[body[:60] for _, _, body in seen]}, not {version}")
            if kind != "memo" and seen[1][1] != "HIT":
                wrong.append(f"{path}: {[word for _, word, _ in seen]}")
    return wrong


def swept(directory: Path) -> Usage:
    """Sweep as if days had passed, and return what is left."""
    store = FileStore(directory)
    # For the first sweep, entries that were used since the sweep before are still in use.
    for days in (1, 3):
        with time_machine.travel(time.time() + days * 86400):
            store.sweep()
    assert store.usage().entries == 0
    # The sweep leaves the statistics alone. The next worker that makes a file of counts removes those that killed ones left.
    counter_file._remove_leftovers(directory / "stats")
    return Usage.of([], directory)
