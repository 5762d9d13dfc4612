"""Origins, entries, threads and processes for the tests of the engine and of stores."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from flask_stalecache import config
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import ReadNames
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.rules.serving import PLAIN, Terms, Verdict
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.engine.thread_pool import Refresher
from flask_stalecache.stats.schema import Counters
from flask_stalecache.stats.tally import Tally
from flask_stalecache.stores.base import Copy
from flask_stalecache.stores.file_store import FileStore

T = TypeVar("T")

#: Seconds after which something that should have happened never will.
PATIENCE = 30.0
#: A user who owns nothing.
NOBODY = 65534
SPAWN = multiprocessing.get_context("spawn")


# -- entries and answers ---------------------------------------------------------------------------------------------


def make_entry(
    key: str = "page",
    body: bytes = b"<h1>Prices</h1>",
    *,
    windows: tuple[float, float, float] = (60, 600, 86400),
    serial: str = "",
    started: float | None = None,
    never_stale: bool = False,
    absent: tuple[str, ...] = (),
    names: tuple[str, ...] = ("all", "endpoint:prices", "path:/prices/eur", "url:http://shop.example/prices/eur"),
    seq: int = 0,
    version: str = "",
) -> Entry:
    """Return an entry that was made just now."""
    now = time.time()
    return Entry(
        key=key,
        serial=serial or os.urandom(8).hex(),
        names=names,
        seq=seq,
        version=version,
        started=now if started is None else started,
        answered=now if started is None else started,
        windows=Windows(*windows),
        never_stale=never_stale,
        shared=False,
        absent=ReadNames(cookies=absent),
        varied=("Cookie",) if absent else (),
        status=200,
        headers=(("Content-Type", "text/html; charset=utf-8"), ("X-Greeting", "ü")),
        body=body,
        recipe={"scheme": "http", "path": "/prices/eur", "fields": {"Host": "shop.example"}},
    )


def storable(start: Start, body: bytes = b"new", **options: Any) -> Answer:
    """Return an answer that may be stored."""
    entry = make_entry(body=body, serial=start.serial, started=start.started, **{"seq": start.seq, **options})
    return Answer(verdict=Verdict.STORABLE, value=body, entry=entry)


def unstorable(value: object = "for nobody else") -> Answer:
    """Return an answer that can't be stored, whoever asks."""
    return Answer(verdict=Verdict.UNSTORABLE, value=value)


def personal(*cookies: str) -> Answer:
    """Return an answer that can't be stored because of the cookies that its request carried."""
    return Answer(verdict=Verdict.PERSONAL, value="one member's", carried=ReadNames(cookies=cookies), anybodys=False)


def failed(*, anybodys: bool = True) -> Answer:
    """Return the answer of an origin that raised."""
    return Answer(verdict=Verdict.FAILED, error=ConnectionError("the third party is down"), anybodys=anybodys)


# -- fakes -----------------------------------------------------------------------------------------------------------


@dataclass
class FakeOrigin:
    """An origin that answers as its script says; any number of threads may ask it.

    :ivar script: what a call does. A plain value is answered as it is.
    :ivar renewal: what its refresh does.
    :ivar cookies: what its request carries.
    :ivar starts: what each call was given.
    :ivar lives: one item for each call for one visitor alone.
    :ivar asked: the threads of visitors who may have to queue.
    """

    script: Callable[[Start], Answer] = storable
    key: str = "page"
    label: str = "the page"
    patience: float = PATIENCE
    queues: bool = True
    wait: float | None = None
    tally: Tally = field(default_factory=lambda: Tally("function", "shop.rates"))
    apart: bool = False
    terms: Terms = PLAIN
    renewal: Callable[[Start], Answer] = storable
    cookies: frozenset[str] = frozenset()
    starts: list[Start] = field(default_factory=list)
    lives: list[int] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.starts)

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's call; the engine asks for it once it has seen what is stored."""
        self.asked.add(threading.get_ident())
        return self.patience

    def call(self, start: Start) -> Answer:
        """Answer as the script says."""
        self.starts.append(start)
        return self.script(start)

    def aim(self) -> bool:
        """It has one key."""
        return False

    def refused(self, copy: Copy) -> Answer | None:
        """It is never refused."""
        return None

    def live(self) -> Answer:
        """Answer one visitor alone."""
        self.lives.append(threading.get_ident())
        return Answer(verdict=Verdict.UNSTORABLE, value="live")

    def refresh(self) -> FakeRefresh:
        """Return the renewal."""
        return FakeRefresh(self.renewal, self.key, self.label, self.terms, fills=self.apart)

    def barred_from(self, entry: Entry) -> bool:
        """Whether the request carries a cookie that the entry remembers as absent."""
        return not self.cookies.isdisjoint(entry.absent.cookies)

    def carries(self, names: ReadNames) -> bool:
        """Whether the request carries one of the cookies."""
        return not self.cookies.isdisjoint(names.cookies)


@dataclass
class FakeRefresh:
    """A refresh that answers as its script says."""

    script: Callable[[Start], Answer] = storable
    key: str = "page"
    label: str = "the page"
    terms: Terms = PLAIN
    pool: Refresher | None = None
    fills: bool = False
    forced: bool = False
    patience: float | None = None
    tally: Tally = field(default_factory=lambda: Tally("function", "shop.rates"))
    starts: list[Start] = field(default_factory=list)
    overdue: int = 0

    def is_left_alone(self, copy: Copy) -> bool:
        """It never is."""
        return False

    def renew_parts(self, keys: tuple[str, ...]) -> None:
        """It is made of nothing."""

    def given_up(self) -> None:
        """Count how often it took too long."""
        self.overdue += 1

    @property
    def calls(self) -> int:
        """How often it was run."""
        return len(self.starts)

    def run(self, start: Start) -> Answer:
        """Answer as the script says."""
        self.starts.append(start)
        return self.script(start)


def make_engine(directory: Path, **settings: Any) -> Engine:
    """Return an engine over files; settings come without ``STALECACHE_``."""
    counters = Counters()
    checked = config.read({f"STALECACHE_{name}": value for name, value in settings.items()})
    store = FileStore(
        directory,
        memory_size=checked.memory_size,
        max_size=checked.max_size,
        min_free=checked.min_free,
        inactive=checked.inactive,
        counters=counters,
    )
    return Engine(store, checked, counters)


def body_of(answered: Any) -> object:
    """Return what a visitor is shown: the body of the copy, or the value of the origin's own answer."""
    return answered.copy.entry.body if answered.answer is None else answered.answer.value


# -- names of cases --------------------------------------------------------------------------------------------------


def named(value: object) -> str:
    """Return what a case is called by its value: the same in each process that collects the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))


# -- waiting and threads ---------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition, and fail if it does not come true."""
    deadline = time.perf_counter() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.perf_counter() < deadline, f"{what} did not happen"
        pause.wait(0.002)


def go(function: Callable[..., T], *args: Any) -> Future[T]:
    """Run a function in a daemon thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def crowd(count: int, function: Callable[[], T]) -> list[Future[T]]:
    """Run a function in many threads, all let go at once."""
    barrier = threading.Barrier(count)

    def run() -> T:
        barrier.wait(PATIENCE)
        return function()

    return [go(run) for _ in range(count)]


def results(futures: list[Future[T]]) -> list[T]:
    """Return what threads returned; fail if one hangs."""
    return [future.result(PATIENCE) for future in futures]


# -- locks of the package ------------------------------------------------------------------------------------------

_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def locks_in(root: object) -> list[Any]:
    """Return every lock that the package's objects below ``root`` hold; what belongs to others is not looked into."""
    found, seen, todo = [], {id(root)}, [root]
    while todo:
        thing = todo.pop()
        if isinstance(thing, _LOCKS):
            found.append(thing)
            continue
        if not isinstance(thing, (*_CONTAINERS, threading.Event)) and not _is_ours(thing):
            continue
        for referent in gc.get_referents(thing):
            if id(referent) not in seen:
                seen.add(id(referent))
                todo.append(referent)
    return found


def _is_ours(thing: object) -> bool:
    return not isinstance(thing, type) and type(thing).__module__.partition(".")[0] == "flask_stalecache"


@contextmanager
def all_taken(locks: list[Any]) -> Iterator[None]:
    """Hold locks in a thread of its own."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            taken.set()
            assert release.wait(PATIENCE)

    holding = go(hold)
    try:
        assert taken.wait(PATIENCE)
        yield
    finally:
        release.set()
        holding.result(PATIENCE)


# -- processes -------------------------------------------------------------------------------------------------------


class Worker:
    """A fresh process that runs one function after the other."""

    def __init__(self) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Let it run a function that is found by its name."""
        self._pipe.send((function, args))

    def result(self) -> Any:
        """Return what the function returned; fail if it raised, hangs, or if the process died."""
        assert self._pipe.poll(3 * PATIENCE), "a process hangs"
        try:
            good, value = self._pipe.recv()
        except EOFError:
            self.process.join(PATIENCE)
            raise AssertionError(f"a process died: {self.process.exitcode}") from None
        assert good, value
        return value

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there, and return what it returned."""
        self.start(function, *args)
        return self.result()

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.join(PATIENCE)

    def close(self) -> None:
        """End it, and leave nothing."""
        self.kill()
        self._pipe.close()
        self.process.close()


def _work(pipe: Connection) -> None:
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            outcome = True, function(*args)
        except BaseException:
            outcome = False, traceback.format_exc()
        pipe.send(outcome)


@contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    """Start fresh processes, and end them."""
    made: list[Worker] = []
    try:
        for _ in range(count):
            made.append(Worker())
        yield made
    finally:
        for worker in made:
            worker.close()


def forked(function: Callable[[], T]) -> T:
    """Run a function in a fork of this process, and return what it returned.

    Call it in a :class:`Worker`: the runner of the tests has threads, and newer Pythons warn of a fork then.
    """
    mine, theirs = SPAWN.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        _answer_and_exit(theirs, function)
    theirs.close()
    try:
        assert wait([mine], PATIENCE), "a forked process hangs"
        good, value = pickle.loads(mine.recv_bytes())
    except EOFError:
        raise AssertionError("a forked process died") from None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        mine.close()
    assert good, value
    return value  # type: ignore[no-any-return]


def _answer_and_exit(pipe: Connection, function: Callable[[], object]) -> None:
    try:
        outcome = True, function()
    except BaseException:
        outcome = False, traceback.format_exc()
    try:
        pipe.send_bytes(pickle.dumps(outcome))
    finally:
        os._exit(0)


def become_nobody() -> None:
    """Give up root's rights for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
