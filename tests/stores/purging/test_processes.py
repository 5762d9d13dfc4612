"""Purging by many processes: races, real servers, processes killed between any two steps, and files that are lost or damaged."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import time_machine

from flask_stalecache import StoreError
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.keys import digest
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.filesystem import locks
from flask_stalecache.filesystem.atomic import write_file
from flask_stalecache.stores import file_store as files_module
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purge_records import PurgeRecord
from flask_stalecache.stores.stamps import FILE_NAME, Stamps
from support.engine import FakeOrigin, body_of, make_engine, make_entry, storable
from support.processes import Worker, workers
from support.servers import Server, Visitor, serving
from support.threads import PATIENCE, wait_until

NEWS, SPORT = "tag:news", "tag:sport"
NAMES = ("all", NEWS)
STALE_WORDS = ("STALE", "UPDATING")
DAY = 86400
HOUR = 3600


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Worker]]:
    with workers(2) as made:
        yield made


@pytest.fixture(scope="module")
def worker(pair: list[Worker]) -> Worker:
    return pair[0]


# -- two processes ---------------------------------------------------------------------------------------------------

#: What processes tell each other: the content's version, which round calls, which may go on; and of each its own publishing.
VERSION, CALLED, GO, OVER = range(4)
PUBLISHED, DONE = (4, 5), (6, 7)


class Numbers:
    """A few numbers that processes share."""

    def __init__(self, place: Path) -> None:
        path = place / "numbers"
        if not path.exists():
            path.write_bytes(bytes(64))
        with path.open("r+b") as file:
            self.all = memoryview(mmap.mmap(file.fileno(), 64)).cast("Q")

    def __getitem__(self, number: int) -> int:
        return self.all[number]

    def __setitem__(self, number: int, value: int) -> None:
        self.all[number] = value


#: What a worker has of each place, as a server's worker does.
ENGINES: dict[Path, tuple[Engine, Numbers]] = {}


def at(place: Path) -> tuple[Engine, Numbers]:
    if place not in ENGINES:
        ENGINES[place] = make_engine(place / "cache"), Numbers(place)
    return ENGINES[place]


def purge(place: Path, name: str, soft: bool) -> None:
    at(place)[0].store.purge(name, soft=soft)


def store_stale(place: Path, key: str) -> None:
    engine, numbers = at(place)
    body = f"{numbers[VERSION]}".encode()
    entry = make_entry(key, body, windows=(0, 600, 600), names=NAMES, seq=engine.store.seq())
    assert engine.store.write(entry)


def visit(place: Path, key: str, number: int) -> tuple[str, int]:
    """Visit a page whose origin is held until its round may go on; return status and version."""
    engine, numbers = at(place)

    def make(start: Start) -> Answer:
        version = numbers[VERSION]
        numbers[CALLED] = number
        wait_until(lambda: numbers[GO] >= number, "that the call may go on")
        return storable(start, f"{version}".encode(), key=key, names=NAMES)

    return seen_by(engine, FakeOrigin(make, key, renewal=make))


def visit_and_wait(place: Path, key: str, number: int) -> tuple[str, int]:
    """The same, and wait for the refresh that it asked for."""
    seen = visit(place, key, number)
    assert at(place)[0].drain(PATIENCE)
    return seen


def seen_by(engine: Engine, origin: FakeOrigin) -> tuple[str, int]:
    served = engine.serve(origin)
    if served.refresh:
        engine.submit(origin.refresh())
    return served.status.value, int(body_of(served))  # type: ignore[call-overload]


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("refresh", [False, True], ids=["a first fill", "a refresh"])
def test_a_purge_by_another_process_wins_over_what_is_under_way(
    pair: list[Worker], tmp_path: Path, refresh: bool, soft: bool, soak: Callable[[int, int], int]
) -> None:
    """It began before the purge: what it made is never served as fresh afterwards, by either, nor to who waited."""
    numbers, (filler, purger) = Numbers(tmp_path), pair
    for number in range(1, 1 + soak(200, 10)):
        key, old, new = f"page-{number}", numbers[VERSION], numbers[VERSION] + 1
        if refresh:
            filler.run(store_stale, tmp_path, key)
        filler.start(visit_and_wait, tmp_path, key, number)
        wait_until(lambda number=number: numbers[CALLED] == number, "the call")  # type: ignore[misc]
        numbers[VERSION] = new
        purger.run(purge, tmp_path, random.choice(NAMES), soft)
        purger.start(visit, tmp_path, key, number)
        numbers[GO] = number
        assert filler.result() == ("STALE" if refresh else "MISS", old)
        seen = [purger.result()]
        for _ in range(2):
            seen += [each.run(visit_and_wait, tmp_path, key, number) for each in pair]
        assert all(version == new or (soft and word in STALE_WORDS) for word, version in seen), seen
        assert seen[-2:] == [("HIT", new)] * 2


def publish_and_look(place: Path, me: int, rounds: int, soft: bool) -> int:
    """Publish and visit at full speed; no answer may be older than what either had purged when its visitor came."""
    engine, numbers = at(place)
    chance = random.Random(me)

    def make(start: Start) -> Answer:
        versions = numbers[PUBLISHED[0]], numbers[PUBLISHED[1]]
        time.sleep(chance.choice((0, 0, 0.0005)))
        return storable(start, b"%d" % (versions[0] << 32 | versions[1]), key="page", names=(*NAMES, SPORT))

    def is_over() -> bool:
        return numbers[DONE[0]] == numbers[DONE[1]] == rounds

    def is_settled() -> bool:
        return seen_by(engine, origin) == ("HIT", rounds << 32 | rounds)

    origin, visits, published = FakeOrigin(make, renewal=make), 0, 0
    while not is_over():
        if published < rounds and chance.random() < 0.4:
            published += 1
            numbers[PUBLISHED[me]] = published
            engine.store.purge((NEWS, SPORT)[me], soft=soft)
            numbers[DONE[me]] = published
        least = numbers[DONE[0]], numbers[DONE[1]]
        word, made = seen_by(engine, origin)
        visits += 1
        is_new = made >> 32 >= least[0] and made & 0xFFFFFFFF >= least[1]
        assert is_new or (soft and word in STALE_WORDS), (word, made >> 32, made & 0xFFFFFFFF, least)
        if published == rounds:
            time.sleep(0.0005)
    wait_until(is_settled, "the last content")
    return visits


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_no_answer_is_older_than_the_last_purge_when_its_visitor_came(
    pair: list[Worker], tmp_path: Path, soft: bool, soak: Callable[[int, int], int]
) -> None:
    Numbers(tmp_path)
    rounds = soak(2000, 30)
    for number, each in enumerate(pair):
        each.start(publish_and_look, tmp_path, number, rounds, soft)
    assert all(each.result() > 0 for each in pair)


# -- servers ---------------------------------------------------------------------------------------------------------

SOURCE = """
import os
from pathlib import Path

from flask import Flask, request
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
cache = StaleCache(app)
version = Path(os.environ["VERSION"])


@app.get("/news/<int:number>")
@cache.cached(3600, 3600, 3600, tags=["news"])
def article(number):
    return version.read_text()


@app.get("/about")
@cache.cached(3600, 3600, 3600)
def about():
    return version.read_text()


@app.post("/purge")
def purge():
    given = request.args.to_dict()
    if "all" in given:
        given["all"] = True
    cache.purge(**{**given, "soft": "soft" in given})
    return "done"


@app.after_request
def tell(response):
    response.headers["X-Pid"] = str(os.getpid())
    return response
"""
#: For two servers after each other; their ports are in the key otherwise.
HOST = {"Host": "shop.example"}
QUERIES = ("tag=news", "endpoint=article", "url=/news/1", "url=http://shop.example/news/1", "all=1")


def one_of_each_worker(server: Server, visitors: list[Visitor]) -> list[Visitor]:
    """Return a visitor of each of two workers; who has connected stays with it."""
    found: dict[str, Visitor] = {}
    while len(found) < 2:
        assert len(visitors) < 100, "all connections went to one worker"
        visitor = Visitor(server)
        visitors.append(visitor)
        found.setdefault(visitor.get("/about", HOST).headers["X-Pid"], visitor)
    return list(found.values())


@pytest.mark.server
def test_every_worker_sees_a_purge_at_its_next_request_and_after_a_restart(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("0")
    env = {"CACHE": tmp_path / "cache", "VERSION": version}
    opened: list[Visitor] = []
    with serving("gthread", SOURCE, tmp_path / "site", env=env) as server:
        pair, about = one_of_each_worker(server, opened), "0"
        for number, query in enumerate([*QUERIES, *(f"{query}&soft=1" for query in QUERIES)], 1):
            purger, other = pair if number % 2 else pair[::-1]
            for visitor in pair:
                while (seen := visitor.get("/news/1", HOST)).cache != "HIT" or seen.text != version.read_text():
                    pass
            old = version.read_text()
            version.write_text(f"{number}")
            assert purger.get(f"/purge?{query}", method="POST").status == 200
            for visitor in (other, purger):
                seen = visitor.get("/news/1", HOST)
                if "soft" in query:
                    assert seen.cache in ("STALE", "UPDATING", "HIT"), query
                    assert (seen.text == old) == (seen.cache != "HIT"), query
                else:
                    assert seen.text == f"{number}", query
            if "all" not in query:
                assert other.get("/about", HOST).text == about
            about = other.get("/about", HOST).text
        for soft in ("&soft=1", ""):
            path = "/news/2" if soft else "/news/3"
            while pair[0].get(path, HOST).cache != "HIT":
                pass
            assert pair[0].get(f"/purge?url={path}{soft}", method="POST").status == 200
        for visitor in opened:
            visitor.__exit__(None, None, None)
    version.write_text("after the restart")
    with serving("gthread", SOURCE, tmp_path / "site", env=env) as server:
        assert server.get("/news/1", HOST).cache == "HIT"
        seen = server.get("/news/2", HOST)
        assert (seen.cache, seen.text) == ("STALE", f"{2 * len(QUERIES)}")
        seen = server.get("/news/3", HOST)
        assert (seen.cache, seen.text) == ("MISS", "after the restart")


# -- killed between any two steps ------------------------------------------------------------------------------------

#: The folders of the modules that are stepped through.
STORES = tuple(str(Path(module.__file__).parent) for module in (files_module, locks))
#: Functions of the stores that change nothing: to be killed in them is to be killed before what comes next.
READING = frozenset(
    {
        "check", "is_current", "_is_current", "_is_whole", "_decoded", "_files", "_missing", "_open_whole", "_path", "_read_file",
        "_size_on_disk", "__init__", "__repr__", "files_in", "folder_of", "last", "on_disk", "read", "read_file", "seq", "slot_of",
        "store_errors",
    }
)  # fmt: skip
#: And functions of which others see nothing before they have returned.
UNSEEN = READING | {"acquire", "held", "make_directories", "make_directory", "make", "release", "write_file"}
OLD, BETWEEN, NEW = b"old", b"between", b"new"


def dying_before(step: int, passed_over: frozenset[str]) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function under which this process is killed before the ``step``-th line that it runs of the stores.

    :param passed_over: functions whose lines don't count.
    """
    left = [step]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        return trace if code.co_filename.startswith(STORES) and code.co_name not in passed_over else None

    return enter


def killed_at(step: int, deed: Callable[[], object], passed_over: frozenset[str] = frozenset()) -> bool:
    """Do something in a fork that is killed before its ``step``-th line; return whether it had so many."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(dying_before(step, passed_over))
            deed()
            sys.settrace(None)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def unless_soaking(names: frozenset[str], soak: Callable[[int, int], int]) -> frozenset[str]:
    return names if soak(0, 1) else frozenset()


def begun(store: FileStore, body: bytes, key: str = "page") -> Entry:
    return make_entry(key, body, names=NAMES, seq=store.seq())


def body_in(store: FileStore, key: str = "page") -> bytes | None:
    """Return what is served of a key: from memory if that stands, as on a hit."""
    entry = (store.lookup(key) or store.load(key)).entry
    return None if entry is None else entry.body


def fresh_body_in(store: FileStore, key: str = "page") -> bytes | None:
    entry = (store.lookup(key) or store.load(key)).entry
    return entry.body if entry is not None and entry.is_fresh(time.time()) else None


def check_no_lock_stays(store: FileStore) -> None:
    for lock in (store.lock("page"), store._cache_directory.lock("purge"), store._cache_directory.lock("sweep")):
        assert lock.acquire(), lock
        lock.release()


def check_a_purge_works(stores: list[FileStore], before: Entry, soft: bool) -> None:
    """A purge by the last store is seen by all, and hides nothing that comes later."""
    stores[-1].purge(NEWS, soft=soft)
    for store in stores:
        assert fresh_body_in(store) is None
        assert soft or body_in(store) is None
    assert stores[0].write(before) is soft
    for store in stores:
        assert fresh_body_in(store) is None
    after = begun(stores[0], OLD)
    assert stores[0].write(after)
    for store in stores:
        assert fresh_body_in(store) == OLD
        assert store.lookup("page") is not None


def play_killed_purges(directory: Path, soft: bool, passed_over: frozenset[str], stride: int) -> int:
    """Kill a purger before each of its lines; return how many there were."""
    stores = [FileStore(directory), FileStore(directory)]
    killed, step = stores[0], 1
    assert stores[0].write(begun(stores[0], OLD))
    while True:
        before = begun(stores[1], BETWEEN)
        for store in stores:
            store.load("page")
        died = killed_at(step, lambda: killed.purge(NEWS, soft=soft), passed_over)
        check_no_lock_stays(stores[1])
        everybody = [*stores, FileStore(directory)]
        for store in everybody:
            # Not acknowledged: it may have taken place or not. Nothing is torn, and others are not touched.
            assert body_in(store) in ((OLD,) if soft else (OLD, None))
        if not died:
            assert all(fresh_body_in(store) is None for store in everybody)
        check_a_purge_works(everybody, before, soft)
        if not died:
            return step
        step += stride


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purger_killed_at_any_step_harms_nobody(
    worker: Worker, directory: Path, soft: bool, soak: Callable[[int, int], int]
) -> None:
    assert worker.run(play_killed_purges, directory, soft, unless_soaking(READING, soak), soak(1, 5 if soft else 1)) > 50


def play_killed_writes(directory: Path, passed_over: frozenset[str]) -> int:
    """Kill a writer before each of its lines; return how many there were."""
    stores, step = [FileStore(directory), FileStore(directory)], 1
    while True:
        assert stores[0].write(begun(stores[0], OLD))
        for store in stores:
            assert body_in(store) == OLD
        before = begun(stores[1], BETWEEN)
        died = killed_at(step, lambda: stores[0].write(begun(stores[0], NEW)), passed_over)
        check_no_lock_stays(stores[1])
        everybody = [*stores, FileStore(directory)]
        on_disk = {store.load("page").entry.body for store in [FileStore(directory)] if store}  # type: ignore[union-attr]
        assert on_disk <= ({OLD, NEW} if died else {NEW})
        for store in everybody:
            # Killed before the stamp: the copies that others hold live on.
            assert body_in(store) in ((OLD, NEW) if died else (NEW,))
        check_a_purge_works(everybody, before, soft=False)
        if not died:
            return step
        step += 1


@pytest.mark.soak
def test_a_writer_killed_at_any_step_harms_nobody(worker: Worker, directory: Path, soak: Callable[[int, int], int]) -> None:
    assert worker.run(play_killed_writes, directory, unless_soaking(READING, soak)) > 30


def play_killed_first_uses(place: Path, passed_over: frozenset[str], stride: int) -> int:
    """Kill a process before each line of its first use, which is a purge; return how many there were."""
    step = 1
    while True:
        directory = place / str(step)
        died = killed_at(step, lambda: FileStore(directory).purge(NEWS, soft=False), passed_over)  # noqa: B023
        stores = [FileStore(directory), FileStore(directory)]
        before = begun(stores[0], OLD)
        assert stores[0].write(before)
        assert [body_in(store) for store in stores] == [OLD] * 2
        check_no_lock_stays(stores[1])
        check_a_purge_works(stores, before, soft=False)
        if not died:
            return step
        step += stride


@pytest.mark.soak
def test_a_process_killed_in_its_first_use_leaves_a_directory_that_works(
    worker: Worker, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    assert worker.run(play_killed_first_uses, tmp_path, unless_soaking(READING, soak), soak(1, 6)) > 80


def leave_a_temporary_file(directory: Path, deed: Callable[[FileStore], object]) -> list[str]:
    """Kill a process with a temporary file open that no other has left; return the names of the files."""
    store, step, others = FileStore(directory), 0, set(directory.rglob("*.tmp"))
    while not (left := set(directory.rglob("*.tmp")) - others):
        step += 1
        assert killed_at(step, lambda: deed(store)), "it left none"
    return [path.name for path in left]


def kill_all_who_write(directory: Path) -> int:
    deeds: list[Callable[[FileStore], object]] = [
        lambda store: store.write(begun(store, NEW)),
        # First it notes its number, and then the record.
        lambda store: store.purge(NEWS, soft=False),
        lambda store: store._names.write(PurgeRecord(NEWS, hard=1)),
        lambda store: write_file(directory / "sweep", b"{}", 0),
        lambda store: Stamps(directory / FILE_NAME),
    ]
    left = []
    for deed in deeds:
        (directory / FILE_NAME).unlink(missing_ok=True)
        left += leave_a_temporary_file(directory, deed)
    return len(left)


def test_what_killed_processes_left_is_swept_away(worker: Worker, directory: Path, clock: time_machine.Traveller) -> None:
    """The temporary files of writers, of purgers and of sweepers, wherever they are."""
    FileStore(directory).write(make_entry())
    assert worker.run(kill_all_who_write, directory) == 5
    # The files have the real clock's times.
    clock.move_to(max(path.stat().st_mtime for path in directory.rglob("*.tmp")) + 2 * HOUR)
    sweep(FileStore(directory), clock)
    assert list(directory.rglob("*.tmp")) == []


# -- something else between any two steps ------------------------------------------------------------------------------


def interrupted(step: int, deed: Callable[[], object], interloper: Callable[[], object], passed_over: frozenset[str]) -> bool:
    """Do something, and something else before the ``step``-th line of the stores that it runs; return whether it had so many."""
    left, before = [step], sys.gettrace()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                interloper()
        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        return trace if code.co_filename.startswith(STORES) and code.co_name not in passed_over else None

    sys.settrace(enter)
    try:
        deed()
    finally:
        sys.settrace(before)
    return left[0] <= 0


@dataclass
class Scene:
    """Two processes' views of one page; the page is purged in the course of things.

    :ivar before: an entry that was begun before that, and is not yet written.
    """

    mine: FileStore
    other: FileStore
    soft: bool
    before: Entry = field(init=False)

    def set(self) -> None:
        """Let the page be stored, and loaded by both."""
        assert self.mine.write(begun(self.mine, OLD))
        for store in (self.mine, self.other):
            store.load("page")
        self.before = begun(self.mine, BETWEEN)

    def check(self) -> None:
        for store in (self.mine, self.other, FileStore(self.mine.directory)):
            assert fresh_body_in(store) is None
            assert self.soft or body_in(store) is None
        for store in (self.mine, self.other):
            store.load("page")
            assert fresh_body_in(store) is None


def lose_the_table_and_purge(scene: Scene) -> None:
    (scene.other.directory / FILE_NAME).unlink()
    scene.other.purge(NEWS, soft=scene.soft)


def forget_and_load(scene: Scene) -> None:
    scene.other.forget()
    scene.other.load("page")


#: What is done, and what comes between two of its steps; one of them is the purge.
SCENES: dict[str, tuple[Callable[[Scene], object], Callable[[Scene], object]]] = {
    "a purge, and somebody looks": (lambda it: it.mine.purge(NEWS, soft=it.soft), lambda it: body_in(it.other)),
    "a purge, and somebody loads": (lambda it: it.mine.purge(NEWS, soft=it.soft), forget_and_load),
    "a purge, and an older fill is written": (lambda it: it.mine.purge(NEWS, soft=it.soft), lambda it: it.other.write(it.before)),
    "a purge, and a new process opens the directory": (
        lambda it: it.mine.purge(NEWS, soft=it.soft),
        lambda it: FileStore(it.mine.directory).seq(),
    ),
    "a look, and a purge": (lambda it: body_in(it.mine), lambda it: it.other.purge(NEWS, soft=it.soft)),
    "a load, and a purge": (lambda it: it.mine.load("page"), lambda it: it.other.purge(NEWS, soft=it.soft)),
    "a write of an older fill, and a purge": (lambda it: it.mine.write(it.before), lambda it: it.other.purge(NEWS, soft=it.soft)),
}


@pytest.mark.soak
@pytest.mark.parametrize(("deed", "interloper"), SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_whatever_comes_between_any_two_steps_the_purge_wins(
    directory: Path,
    soft: bool,
    deed: Callable[[Scene], object],
    interloper: Callable[[Scene], object],
    soak: Callable[[int, int], int],
) -> None:
    scene, step, skip = Scene(FileStore(directory), FileStore(directory), soft), 0, unless_soaking(UNSEEN, soak)
    while True:
        step += 1
        scene.set()
        if not interrupted(step, lambda: deed(scene), lambda: interloper(scene), skip):
            break
        scene.check()
    assert step > 5


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("deed", ["load", "tick", "write"])
def test_a_table_that_is_lost_between_any_two_steps_hides_no_purge(
    directory: Path, soft: bool, deed: str, soak: Callable[[int, int], int]
) -> None:
    """Who has not noticed it holds older copies until it does, and not longer."""
    scene, step, skip = Scene(FileStore(directory), FileStore(directory), soft), 0, unless_soaking(UNSEEN, soak) | {"_sweep"}
    deeds: dict[str, Callable[[], object]] = {
        "load": lambda: scene.mine.load("page"),
        "tick": lambda: scene.mine.tick(),
        "write": lambda: scene.mine.write(scene.before),
    }
    while True:
        step += 1
        scene.set()
        if not interrupted(step, deeds[deed], lambda: lose_the_table_and_purge(scene), skip):
            break
        scene.mine.tick()
        scene.check()
    assert step > 5


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_of_two_purges_of_one_name_both_count(
    directory: Path, monkeypatch: pytest.MonkeyPatch, soft: bool, soak: Callable[[int, int], int]
) -> None:
    """One comes in the middle of the other: what was begun just before it is purged, or it has to wait for the lock."""
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    mine, other = FileStore(directory), FileStore(directory)
    step, waited, skip = 0, 0, unless_soaking(UNSEEN, soak)
    while True:
        step += 1
        both: list[Entry] = []

        def purge(both: list[Entry] = both) -> None:
            entry = begun(other, BETWEEN)
            with suppress(StoreError):
                other.purge(NEWS, soft=soft)
                both.append(entry)

        if not interrupted(step, lambda: mine.purge(NEWS, soft=soft), purge, skip):
            break
        waited += not both
        for entry in both:
            assert mine.write(entry) is soft
            assert [fresh_body_in(store) for store in (mine, other, FileStore(directory))] == [None] * 3
    assert 0 < waited < step - 1


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_while_a_process_maps_a_new_table_is_not_missed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, soft: bool, soak: Callable[[int, int], int]
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    scene, step, skip = Scene(FileStore(directory), FileStore(directory), soft), 0, unless_soaking(UNSEEN, soak) | {"_sweep"}
    purged: list[bool] = []

    def purge() -> None:
        with suppress(StoreError):
            # Where it has to wait for the lock, it comes afterwards.
            scene.other.purge(NEWS, soft=soft)
            purged.append(True)

    while True:
        step += 1
        scene.set()
        (directory / FILE_NAME).unlink()
        purged.clear()
        if not interrupted(step, scene.mine.tick, purge, skip):
            break
        if purged:
            scene.check()
    assert step > 10


# -- a lost table ----------------------------------------------------------------------------------------------------


def delete_table(directory: Path) -> None:
    (directory / FILE_NAME).unlink()


def replace_table(directory: Path) -> None:
    path = directory / FILE_NAME
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(data)))


def truncate_elsewhere(directory: Path) -> None:
    """Somebody put a cut copy in its place."""
    beside = directory / "beside"
    beside.write_bytes((directory / FILE_NAME).read_bytes()[:1000])
    beside.rename(directory / FILE_NAME)


LOSSES = [delete_table, replace_table, truncate_elsewhere]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seen_by", ["tick", "purge", "a new process"])
def test_purges_outlive_the_table(
    directory: Path, clock: time_machine.Traveller, lose: Callable[[Path], None], soft: bool, seen_by: str
) -> None:
    """What was purged stays purged, what was stored stays stored, and the next purges work, whoever makes the new table."""
    stores = [FileStore(directory), FileStore(directory)]
    before = begun(stores[0], OLD)
    for key in ("page", "kept"):
        stores[0].write(make_entry(key, OLD, names=("all", NEWS if key == "page" else SPORT), seq=stores[0].seq()))
        stores[1].load(key)
    stores[1].purge(NEWS, soft=soft)
    numbers = [stores[1].seq()]
    lose(directory)
    clock.shift(-HOUR)
    if seen_by == "tick":
        for store in stores:
            store.tick()
    elif seen_by == "purge":
        stores[0].purge("tag:another", soft=False)
        stores[1].tick()
    else:
        stores = [FileStore(directory), FileStore(directory)]
    for store in stores:
        assert fresh_body_in(store) is None
        assert soft or body_in(store) is None
        assert body_in(store, "kept") == OLD
        assert store.lookup("kept") is store.lookup("kept") is not None
    assert stores[0].write(before) is soft
    after = begun(stores[1], NEW)
    assert after.seq >= numbers[0]
    assert stores[1].write(after)
    assert [fresh_body_in(store) for store in stores] == [NEW] * 2
    stores[0].purge(SPORT, soft=False)
    assert stores[0].seq() > after.seq
    assert [body_in(store, "kept") for store in stores] == [None] * 2
    assert [fresh_body_in(store) for store in stores] == [NEW] * 2
    stores[1].purge(NEWS, soft=False)
    assert [body_in(store) for store in stores] == [None] * 2


@pytest.mark.parametrize("lose", LOSSES)
def test_a_purge_by_a_process_that_has_not_seen_the_loss_is_done_on_the_new_table(
    directory: Path, lose: Callable[[Path], None]
) -> None:
    """One process has mapped the new table already, and holds copies by it."""
    stores = [FileStore(directory), FileStore(directory)]
    stores[0].purge("tag:another", soft=False)
    stores[0].write(begun(stores[0], OLD))
    stores[1].load("page")
    lose(directory)
    stores[0].tick()
    copy = stores[0].load("page")
    assert stores[0].lookup("page") is copy
    stores[1].purge(NEWS, soft=False)
    assert [body_in(store) for store in stores] == [None] * 2


def test_a_directory_deleted_while_a_purge_runs_is_purged_anew(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has made the directory anew by then, and holds copies of it."""
    mine, other = FileStore(directory), FileStore(directory)
    mine.write(begun(mine, OLD))
    write, done = mine._names.write, []

    def replace_the_directory(*args: Any) -> None:
        if not done:
            done.append(True)
            directory.rename(directory.with_name("away"))
            other.tick()
            other.write(begun(other, OLD))
            assert body_in(other) == OLD
            assert other.lookup("page") is not None
        write(*args)

    monkeypatch.setattr(mine._names, "write", replace_the_directory)
    mine.purge(NEWS, soft=False)
    assert done
    assert [body_in(store) for store in (mine, other, FileStore(directory))] == [None] * 3


def play_loss_under_way(place: Path, rounds: int) -> None:
    """Publish and visit while somebody deletes the table again and again; each purge is seen at once by who did it."""
    engine, numbers = at(place)
    origin = FakeOrigin(lambda start: storable(start, b"%d" % numbers[VERSION], names=NAMES))
    for _ in range(rounds):
        numbers[VERSION] += 1
        engine.store.purge(NEWS, soft=False)
        assert seen_by(engine, origin)[1] == numbers[VERSION]
        engine.store.tick()
    numbers[OVER] = 1


@pytest.mark.soak
def test_the_table_may_be_lost_while_a_process_purges(worker: Worker, tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    numbers = Numbers(tmp_path)
    worker.start(play_loss_under_way, tmp_path, soak(2000, 25))
    pause, other = threading.Event(), FileStore(tmp_path / "cache")
    while not numbers[OVER] and worker.process.is_alive():
        (tmp_path / "cache" / FILE_NAME).unlink(missing_ok=True)
        other.tick()
        pause.wait(0.01)
    worker.result()
    other.purge(NEWS, soft=False)
    assert body_in(other) is None


def test_without_a_table_purges_work_from_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path) -> Any:
        raise OSError("no room for the table")

    monkeypatch.setattr(files_module, "Stamps", no_room)
    stores = [FileStore(directory), FileStore(directory)]
    for soft in (False, True, False):
        before = begun(stores[0], OLD)
        assert stores[0].write(before)
        assert [fresh_body_in(store) for store in stores] == [OLD] * 2
        stores[1].purge(SPORT, soft=soft)
        assert [fresh_body_in(store) for store in stores] == [OLD] * 2
        stores[1].purge(NEWS, soft=soft)
        for store in stores:
            assert fresh_body_in(store) is None
            assert soft or body_in(store) is None
        assert stores[0].write(before) is soft


# -- damaged and copied files ----------------------------------------------------------------------------------------


def damaged(path: Path, data: bytes, time_ns: int | None = None) -> None:
    """Replace what a file holds, and leave its time as it was unless one is given."""
    status = path.stat()
    path.write_bytes(data)
    time_ns = status.st_mtime_ns if time_ns is None else time_ns
    os.utime(path, ns=(time_ns, time_ns))


def record_of(directory: Path, name: str) -> Path:
    return directory / "names" / digest(name)


GARBAGE: list[bytes] = [
    b"",
    b"{",
    b"\0" * 70,
    b"null",
    b"{}",
    b'{"name": "tag:news", "hard": null, "soft": 0, "soft_at": 0}',
    b'{"name": "tag:news", "hard": "many", "soft": 0, "soft_at": 0}',
    b'{"name": "tag:news", "hard": 1e999, "soft": 0, "soft_at": 0}',
    b'{"name": "tag:news", "hard": 1' + b"0" * 5000 + b', "soft": 0, "soft_at": 0}',
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("opened", [False, True], ids=["found by a new process", "found by a running one"])
def test_who_has_a_damaged_record_is_dropped_and_can_be_purged_again(
    directory: Path, clock: time_machine.Traveller, data: bytes, soft: bool, opened: bool
) -> None:
    """Nobody can tell any more what was purged: what was begun before is dropped, what comes later is kept."""
    store = FileStore(directory)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=soft)
    damaged(record_of(directory, NEWS), data)
    clock.shift(HOUR)
    if not opened:
        store = FileStore(directory)
    store.load("page")
    assert fresh_body_in(store) is None
    store.purge(SPORT, soft=False)
    assert store.write(begun(store, NEW))
    assert fresh_body_in(store) == NEW
    # An hour later, so that it is not by the damaged record's time that this purge is effective.
    store.purge(NEWS, soft=soft)
    assert fresh_body_in(store) is None
    assert soft or body_in(store) is None
    for each in (store, FileStore(directory)):
        assert each.write(begun(each, NEW))
        assert fresh_body_in(each) == NEW
        assert each.lookup("page") is not None


def test_no_flipped_bit_of_a_record_is_an_error(directory: Path) -> None:
    store = FileStore(directory, memory_size=0)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=True)
    path = record_of(directory, NEWS)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 4, 6):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            damaged(path, bytes(changed))
            assert fresh_body_in(store) is None
            assert body_in(store) in (OLD, None)


LAST_DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: damaged(path, b""),
    "cut": lambda path: damaged(path, path.read_bytes()[:5]),
    "zeros": lambda path: damaged(path, bytes(19)),
    "garbage": lambda path: damaged(path, b"<!doctype html>"),
    "a number that no slot holds": lambda path: damaged(path, b"9" * 40),
    "a negative number": lambda path: damaged(path, b"-1800000000000000000"),
}


@pytest.mark.parametrize("damage", LAST_DAMAGES.values(), ids=LAST_DAMAGES)
def test_without_the_last_number_the_records_tell_it(
    directory: Path, clock: time_machine.Traveller, damage: Callable[[Path], object]
) -> None:
    """Together with the table, and with a clock that stepped back: still no number is given twice, and nothing old comes back."""
    store = FileStore(directory)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=False)
    store.purge(SPORT, soft=False)
    after = make_entry("after", NEW, names=NAMES, seq=store.seq())
    assert store.write(after)
    damage(directory / "names" / "last")
    delete_table(directory)
    clock.shift(-HOUR)
    store = FileStore(directory)
    assert body_in(store) is None
    assert body_in(store, "after") == NEW
    assert store.seq() >= after.seq
    assert store.write(begun(store, NEW))
    store.purge(NEWS, soft=False)
    for each in (store, FileStore(directory)):
        assert (body_in(each), body_in(each, "after")) == (None, None)


@pytest.mark.parametrize("preserve", [True, False], ids=["with its times", "with new times"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_copied_directory_has_the_same_purged(
    directory: Path, tmp_path: Path, clock: time_machine.Traveller, soft: bool, preserve: bool
) -> None:
    """A copy takes a while, and takes the files in any order; the table comes along or not."""
    store, names = FileStore(directory), [f"tag:{number}" for number in range(6)]
    for name in names:
        store.write(make_entry(name, OLD, names=("all", name), seq=store.seq()))
        clock.shift(10)
        store.purge(name, soft=soft)
    kept = make_entry("kept", OLD, windows=(DAY, 0, 0), names=("all", SPORT), seq=store.seq())
    store.write(kept)
    for number, order in enumerate((names, names[::-1])):
        copied = shutil.copytree(directory, tmp_path / f"copy-{number}", copy_function=shutil.copy2)
        if not preserve:
            for minutes, name in enumerate(order):
                later = int((time.time() + 60 * minutes) * 1e9)
                os.utime(record_of(copied, name), ns=(later, later))
        if number:
            delete_table(copied)
        clock.shift(HOUR)
        stores = [FileStore(copied), FileStore(copied)]
        for name in names:
            assert [fresh_body_in(store, name) for store in stores] == [None] * 2
            assert soft or [body_in(store, name) for store in stores] == [None] * 2
        assert [body_in(store, "kept") for store in stores] == [OLD] * 2
        for name in names:
            assert stores[0].write(make_entry(name, NEW, names=("all", name), seq=stores[0].seq()))
        assert [fresh_body_in(store, name) for store in stores for name in names] == [NEW] * 12
        stores[1].purge("all", soft=soft)
        assert [fresh_body_in(store, name) for store in stores for name in names] == [None] * 12


# -- how long records are kept ---------------------------------------------------------------------------------------


def sweep(store: FileStore, clock: time_machine.Traveller) -> None:
    """Let a whole sweep go by, from its beginning to its end."""
    path = store.directory / "sweep"

    def progress() -> dict[str, Any]:
        return json.loads(path.read_bytes()) if path.exists() else {"folder": 0, "next_at": 0.0}  # type: ignore[no-any-return]

    store.load("anything")
    assert progress()["folder"] == 0
    clock.shift(61)
    while not (progress()["folder"] == 0 and progress()["next_at"] > time.time()):
        store.tick()


def records_in(directory: Path) -> int:
    return sum(len(path.name) == 40 for path in (directory / "names").iterdir())


@pytest.fixture
def store(directory: Path) -> FileStore:
    return FileStore(directory, inactive=30 * DAY)


@pytest.mark.parametrize("soft", [False, True])
def test_a_record_is_kept_for_a_day_and_no_longer(
    store: FileStore, directory: Path, clock: time_machine.Traveller, soft: bool
) -> None:
    store.purge(NEWS, soft=soft)
    clock.shift(DAY - 200)
    for _ in range(2):
        sweep(store, clock)
        assert records_in(directory) == 1
    clock.shift(200)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0


def test_a_record_is_kept_while_an_entry_needs_it(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    """A soft purge is known beside the entry, for as long as that is there."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES))
    store.purge(NEWS, soft=True)
    store.purge(SPORT, soft=False)
    clock.shift(2 * DAY)
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 1
    for each in (store, FileStore(directory)):
        assert (body_in(each), fresh_body_in(each)) == (OLD, None)
    store.write(make_entry(body=NEW, windows=(30 * DAY, 30 * DAY, 0), names=NAMES, seq=store.seq()))
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0
    for each in (store, FileStore(directory)):
        assert fresh_body_in(each) == NEW


def test_a_record_is_kept_until_what_it_drops_is_gone(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    """The sweep can't remove an entry that somebody works at."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 0, 0), names=NAMES))
    store.purge(NEWS, soft=False)
    lock = store.lock("page")
    assert lock.acquire()
    clock.shift(2 * DAY)
    for _ in range(3):
        sweep(store, clock)
        assert records_in(directory) == 1
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    lock.release()
    for _ in range(3):
        sweep(store, clock)
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    assert records_in(directory) == 0
    assert not list(directory.glob("*/" + digest("page")))


def test_a_record_outlives_a_sweep_that_began_before_it(
    store: FileStore, directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge comes when the sweep has been at its entry, and the sweep goes on a day later."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 0, 0), names=NAMES))
    number = int(digest("page")[:2], 16)
    assert number < 255
    with monkeypatch.context() as patch:
        # As a process does that is stopped in the middle, or by a folder that is slow.
        ticks, me = iter([0.0] * (number + 2)), threading.get_ident()
        # The app of another test may still be looked after, in another thread.
        monotonic = time.monotonic
        own = SimpleNamespace(time=time.time, monotonic=lambda: next(ticks, 1e9) if threading.get_ident() == me else monotonic())
        patch.setattr("flask_stalecache.stores.sweep.time", own)
        clock.shift(61)
        store.tick()
    assert 0 < json.loads((directory / "sweep").read_bytes())["folder"] < 255
    store.purge(NEWS, soft=False)
    clock.shift(2 * DAY)
    while json.loads((directory / "sweep").read_bytes())["folder"]:
        store.tick()
    assert records_in(directory) == 1
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 0
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("hours", [1, 23, 24.5, 25, 100])
def test_what_an_origin_took_a_day_for_is_not_taken_for_new(
    store: FileStore, directory: Path, clock: time_machine.Traveller, hours: float, soft: bool
) -> None:
    """By then the record of the purge that came meanwhile may be gone."""
    started = time.time()
    before = make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES, seq=store.seq(), started=started)
    clock.shift(1)
    store.purge(NEWS, soft=soft)
    clock.shift(hours * HOUR - 500)
    for _ in range(3):
        sweep(store, clock)
    clock.move_to(started + hours * HOUR)
    if hours >= 25:
        assert records_in(directory) == 0
    store.write(replace(before, answered=time.time()))
    assert [fresh_body_in(each) for each in (store, FileStore(directory))] == [None] * 2


def test_what_an_origin_took_a_day_for_is_not_taken_for_new_by_a_clock_that_stepped_back(
    store: FileStore, directory: Path, clock: time_machine.Traveller
) -> None:
    """By the clock it took less."""
    before = begun(store, OLD)
    store.purge(NEWS, soft=False)
    clock.shift(24.5 * HOUR)
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 0
    clock.shift(-HOUR)
    store.write(replace(before, answered=time.time()))
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2


def test_the_clock_may_step_while_records_are_kept(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    store.write(make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES))
    clock.shift(HOUR)
    store.purge(NEWS, soft=True)
    clock.shift(-2 * HOUR)
    store.purge(SPORT, soft=True)
    for shift in (DAY, -HOUR, DAY, HOUR):
        clock.shift(shift)
        sweep(store, clock)
        for each in (store, FileStore(directory)):
            assert (body_in(each), fresh_body_in(each)) == (OLD, None)
    store.purge(NEWS, soft=False)
    for shift in (DAY, -HOUR, DAY, HOUR, DAY):
        clock.shift(shift)
        sweep(store, clock)
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    assert records_in(directory) == 0


def test_a_sweep_that_removes_records_leaves_copies_alone(store: FileStore, clock: time_machine.Traveller) -> None:
    """Nobody reads a file because of it."""
    store.purge(SPORT, soft=False)
    store.write(make_entry(body=NEW, windows=(30 * DAY, 0, 0), names=NAMES, seq=store.seq()))
    copy = store.load("page")
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(store.directory) == 0
    assert store.lookup("page") is copy
