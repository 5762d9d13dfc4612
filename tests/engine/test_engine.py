"""The driver, with an origin that does what a test says, over a real store."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import CacheStatus, FileStore, StoreError
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.serving import Verdict
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Served, Start
from flask_stalecache.engine.singleflight import Flight, Flights
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, make_entry, personal, storable, unstorable
from support.threads import PATIENCE, crowd, go, results, wait_until

HIT, MISS, EXPIRED = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.EXPIRED
STALE, UPDATING, BYPASS = CacheStatus.STALE, CacheStatus.UPDATING, CacheStatus.BYPASS

#: Seconds after which an entry of the windows below is in SWR, past it but in SIE, and past all.
WINDOWS = (60, 600, 3600)
IN_SWR, IN_SIE, PAST_ALL = 61, 700, 4000


@pytest.fixture
def engine(directory: Path) -> Engine:
    return make_engine(directory)


@pytest.fixture
def elsewhere(directory: Path) -> FileStore:
    """The same store, as another process has it."""
    return FileStore(directory)


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event on which origins hang; set at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One key for each visitor who has joined or leads a flight."""
    keys: list[str] = []
    join = Flights.join

    def noting_join(flights: Flights, key: str) -> tuple[Flight, bool]:
        outcome = join(flights, key)
        keys.append(key)
        return outcome

    monkeypatch.setattr(Flights, "join", noting_join)
    return keys


@pytest.fixture
def eager() -> Iterator[None]:
    """Let threads take turns at each step, so that they meet where they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def store_old(engine: Engine, **options: Any) -> None:
    """Store an entry as it is after some fill."""
    engine.store.write(make_entry(body=b"old", **{"windows": WINDOWS, **options}))


def asking(engine: Engine, origin: FakeOrigin) -> Callable[[], Served]:
    return lambda: engine.serve(origin)


def once(first: Callable[[Start], Answer], later: Callable[[Start], Answer] = storable) -> Callable[[Start], Answer]:
    """Return a script whose first call differs."""
    calls: list[Start] = []

    def script(start: Start) -> Answer:
        calls.append(start)
        return first(start) if len(calls) == 1 else later(start)

    return script


def waiting_for(condition: Callable[[], object], answer: Callable[[Start], Answer]) -> Callable[[Start], Answer]:
    """Return a script that waits for something before it answers."""

    def script(start: Start) -> Answer:
        wait_until(condition)
        return answer(start)

    return script


def is_free(store: FileStore, key: str = "page") -> bool:
    """Whether nobody holds the key's lock."""
    lock = store.lock(key)
    free = lock.acquire()
    lock.release()
    return free


def nothing_is_left(engine: Engine, store: FileStore) -> None:
    """Fail if a flight or a lock is left behind: the next visitor would wait for it."""
    assert is_free(store)
    late = FakeOrigin(key="page", patience=0.0)
    engine.store.remove("page")
    engine.store.write_note("page", NOTHING)
    assert go(engine.serve, late).result(PATIENCE).status is MISS
    assert late.calls == 1


# -- one visitor -----------------------------------------------------------------------------------------------------


def test_miss_hit_and_expired(engine: Engine, clock: time_machine.Traveller) -> None:
    origin = FakeOrigin(lambda start: storable(start, f"{origin.calls}".encode(), windows=(60, 0, 0)))
    miss, hit = engine.serve(origin), engine.serve(origin)
    assert (miss.status, body_of(miss), miss.stored, miss.collapsed) == (MISS, b"1", True, False)
    assert (hit.status, body_of(hit), hit.refresh) == (HIT, b"1", False)
    clock.shift(60)
    expired, hit = engine.serve(origin), engine.serve(origin)
    assert (expired.status, body_of(expired), expired.stored) == (EXPIRED, b"2", True)
    assert (hit.status, body_of(hit)) == (HIT, b"2")
    assert origin.calls == 2


def test_the_origin_is_told_what_is_stored_and_when_it_started(engine: Engine, clock: time_machine.Traveller) -> None:
    origin = FakeOrigin(lambda start: storable(start, windows=(60, 0, 0)))
    engine.serve(origin)
    clock.shift(100)
    engine.serve(origin)
    first, second = origin.starts
    assert first.previous is None
    assert second.previous is not None
    assert second.previous.serial == first.serial != second.serial
    assert second.started - first.started == 100
    assert first.seq == engine.store.seq()


@pytest.mark.parametrize(
    ("age", "note", "status", "calls"),
    [
        (0, NOTHING, HIT, 0),
        (59, NOTHING, HIT, 0),
        (IN_SWR, NOTHING, STALE, 0),
        (659, NOTHING, STALE, 0),
        (IN_SIE, NOTHING, EXPIRED, 1),
        (PAST_ALL, NOTHING, EXPIRED, 1),
        (IN_SWR, "backing off", UPDATING, 0),
        (IN_SIE, "backing off", STALE, 0),
        (PAST_ALL, "backing off", EXPIRED, 1),
    ],
)
def test_one_row_of_the_decision_each(
    engine: Engine, clock: time_machine.Traveller, age: float, note: Any, status: CacheStatus, calls: int
) -> None:
    store_old(engine)
    clock.shift(age)
    if note == "backing off":
        engine.store.write_note("page", NOTHING.failed(time.time(), (2, 300), 0))
    origin = FakeOrigin()
    answered = engine.serve(origin)
    assert answered.status is status
    assert origin.calls == calls
    assert body_of(answered) == (b"new" if calls else b"old")
    assert answered.refresh == (status is STALE and age < 660)


def test_keys_do_not_meet(engine: Engine) -> None:
    page, news = (
        FakeOrigin(lambda start: storable(start, b"page")),
        FakeOrigin(lambda start: storable(start, b"news", key="news"), key="news"),
    )
    for origin in (page, news, page, news):
        engine.serve(origin)
    assert [body_of(engine.serve(origin)) for origin in (page, news)] == [b"page", b"news"]
    assert (page.calls, news.calls) == (1, 1)


# -- collapsing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [None, PAST_ALL], ids=["absent", "expired"])
@pytest.mark.parametrize("windows", [(60, 0, 0), (0, 0, 0)], ids=["fresh", "stale at once"])
def test_a_hundred_visitors_cost_one_call(
    engine: Engine, clock: time_machine.Traveller, age: float | None, windows: tuple[float, float, float]
) -> None:
    if age is not None:
        store_old(engine)
        clock.shift(age)
    origin = FakeOrigin()
    origin.script = waiting_for(lambda: len(origin.asked) == 100, lambda start: storable(start, windows=windows))
    answers = results(crowd(100, asking(engine, origin)))
    assert origin.calls == 1
    assert [body_of(answer) for answer in answers] == [b"new"] * 100
    assert [answer.status for answer in answers] == [MISS if age is None else EXPIRED] * 100
    assert sorted(answer.collapsed for answer in answers) == [False] + [True] * 99
    assert [answer.stored for answer in answers].count(True) == 1


def test_who_waits_here_for_a_call_elsewhere_is_served_what_that_stored(
    engine: Engine, elsewhere: FileStore, joined: list[str]
) -> None:
    lock = elsewhere.lock("page")
    assert lock.acquire()
    origin = FakeOrigin()
    futures = crowd(10, asking(engine, origin))
    wait_until(lambda: len(joined) == 10)
    elsewhere.write(make_entry(body=b"from elsewhere", windows=(0, 0, 0)))
    lock.release()
    answers = results(futures)
    assert [body_of(answer) for answer in answers] == [b"from elsewhere"] * 10
    assert [(answer.status, answer.collapsed) for answer in answers] == [(MISS, True)] * 10
    assert origin.calls == 0


def test_who_waits_is_served_before_the_lock_is_free(engine: Engine, elsewhere: FileStore, joined: list[str]) -> None:
    lock = elsewhere.lock("page")
    assert lock.acquire()
    futures = crowd(5, asking(engine, FakeOrigin()))
    wait_until(lambda: len(joined) == 5)
    elsewhere.write(make_entry(body=b"from elsewhere"))
    assert {body_of(answer) for answer in results(futures)} == {b"from elsewhere"}
    lock.release()


def test_who_comes_when_the_lock_is_let_go_without_an_entry_calls(engine: Engine, elsewhere: FileStore, joined: list[str]) -> None:
    lock = elsewhere.lock("page")
    assert lock.acquire()
    origin = FakeOrigin()
    futures = crowd(10, asking(engine, origin))
    wait_until(lambda: len(joined) == 10)
    assert origin.calls == 0
    lock.release()
    assert [body_of(answer) for answer in results(futures)] == [b"new"] * 10
    assert origin.calls == 1


def test_what_was_stored_long_ago_is_not_taken_for_what_was_waited_for(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was killed between its rename and the stamp: our copy still stands, and the file is another one."""
    store_old(engine)
    assert engine.serve(FakeOrigin()).status is HIT
    with monkeypatch.context() as killed:
        killed.setattr("flask_stalecache.stores.stamps.Stamps.move", lambda *_: None)
        elsewhere.load("page")
        elsewhere.write(make_entry(body=b"a day old", windows=WINDOWS))
    clock.shift(86400)
    origin = FakeOrigin()
    answered = engine.serve(origin)
    assert (answered.status, body_of(answered), origin.calls) == (EXPIRED, b"new", 1)


@pytest.mark.parametrize("status", [MISS, EXPIRED])
def test_who_carries_what_the_new_entry_lacks_gets_a_page_of_their_own(
    engine: Engine, clock: time_machine.Traveller, joined: list[str], status: CacheStatus
) -> None:
    if status is EXPIRED:
        store_old(engine)
        clock.shift(PAST_ALL)
    leader = FakeOrigin()
    leader.script = waiting_for(lambda: len(joined) == 3, lambda start: storable(start, absent=("member",)))
    member, guest = FakeOrigin(cookies=frozenset({"member"})), FakeOrigin()
    first = go(engine.serve, leader)
    wait_until(lambda: leader.calls)
    others = [go(engine.serve, origin) for origin in (member, guest)]
    assert first.result(PATIENCE).stored
    mine, guests = results(others)
    assert (mine.status, body_of(mine), member.lives, member.calls) == (BYPASS, "live", member.lives, 0)
    assert len(member.lives) == 1
    assert (guests.collapsed, body_of(guests), guest.calls) == (True, b"new", 0)


@pytest.mark.parametrize("age", [0, IN_SWR, IN_SIE, PAST_ALL])
def test_who_carries_an_absent_name_never_sees_the_entry(engine: Engine, clock: time_machine.Traveller, age: float) -> None:
    store_old(engine, absent=("member",))
    clock.shift(age)
    member = FakeOrigin(lambda _: failed(), cookies=frozenset({"member"}))
    answered = engine.serve(member)
    assert (answered.status, body_of(answered), answered.refresh) == (BYPASS, "live", False)
    assert (len(member.lives), member.calls) == (1, 0)


# -- what can't be stored --------------------------------------------------------------------------------------------


def test_waiters_for_what_cannot_be_stored_call_all_at_once(engine: Engine, joined: list[str]) -> None:
    together = threading.Barrier(19)

    def later(_: Start) -> Answer:
        # Passes only if all who waited are in their calls at the same time.
        together.wait(PATIENCE)
        return unstorable()

    origin = FakeOrigin()
    origin.script = once(waiting_for(lambda: len(joined) == 20, lambda _: unstorable()), later)
    answers = results(crowd(20, asking(engine, origin)))
    assert origin.calls == 20
    assert [(answer.status, answer.stored, answer.collapsed) for answer in answers] == [(MISS, False, False)] * 20


def test_they_do_so_although_the_mark_cannot_be_written(engine: Engine, joined: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(9)

    def later(_: Start) -> Answer:
        together.wait(PATIENCE)
        return unstorable()

    monkeypatch.setattr(engine.store, "write_note", fail)
    origin = FakeOrigin()
    origin.script = once(waiting_for(lambda: len(joined) == 10, lambda _: unstorable()), later)
    assert {body_of(answer) for answer in results(crowd(10, asking(engine, origin)))} == {"for nobody else"}
    assert origin.calls == 10


def test_the_next_visitors_do_not_queue_for_ten_seconds(directory: Path, clock: time_machine.Traveller, joined: list[str]) -> None:
    """Neither here nor in another process; then one of them tries again for all."""
    engine, other = make_engine(directory), make_engine(directory)
    engine.serve(FakeOrigin(lambda _: unstorable()))
    together = threading.Barrier(4)

    def meet(_: Start) -> Answer:
        together.wait(PATIENCE)
        return unstorable()

    for seconds in (0, 9):
        clock.shift(seconds)
        joined.clear()
        results([go(each.serve, FakeOrigin(meet)) for each in (engine, engine, other, other)])
        assert joined == []
    clock.shift(1)
    engine.serve(FakeOrigin(lambda _: unstorable()))
    assert joined == ["page"]


def test_the_first_storable_fill_clears_the_mark(directory: Path) -> None:
    engine, other = make_engine(directory), make_engine(directory)
    engine.serve(FakeOrigin(lambda _: unstorable()))
    assert other.store.load("page").note != NOTHING
    assert other.serve(FakeOrigin()).stored
    assert engine.store.load("page").note == NOTHING
    assert engine.serve(FakeOrigin()).status is HIT


def test_what_can_no_longer_be_stored_drops_what_is_stored(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller
) -> None:
    store_old(engine)
    clock.shift(IN_SIE)
    assert body_of(engine.serve(FakeOrigin(lambda _: unstorable()))) == "for nobody else"
    assert elsewhere.load("page").entry is None


def test_one_member_first_and_a_hundred_guests_cost_two_calls(engine: Engine, joined: list[str]) -> None:
    member = FakeOrigin(cookies=frozenset({"member"}))
    member.script = waiting_for(lambda: len(joined) == 101, lambda _: personal("member"))
    guest = FakeOrigin(lambda start: storable(start, absent=("member",)))
    first = go(engine.serve, member)
    wait_until(lambda: member.calls)
    answers = results(crowd(100, asking(engine, guest)))
    assert body_of(first.result(PATIENCE)) == "one member's"
    assert {body_of(answer) for answer in answers} == {b"new"}
    assert (member.calls, guest.calls) == (1, 1)


def test_carriers_do_not_queue_once_the_name_is_noted(directory: Path, joined: list[str]) -> None:
    engine, other = make_engine(directory), make_engine(directory)
    engine.serve(FakeOrigin(lambda _: personal("member"), cookies=frozenset({"member"})))
    assert engine.store.load("page").note.kept_out.cookies == ("member",)
    joined.clear()
    together = threading.Barrier(4)

    def meet(_: Start) -> Answer:
        together.wait(PATIENCE)
        return personal("member")

    members = [FakeOrigin(meet, cookies=frozenset({"member", "theme"})) for _ in range(4)]
    answers = results([go(each.serve, origin) for each, origin in zip((engine, engine, other, other), members, strict=True)])
    assert [body_of(answer) for answer in answers] == ["one member's"] * 4
    assert joined == []
    guest = FakeOrigin()
    assert engine.serve(guest).stored
    assert joined == ["page"]


def test_names_add_up_in_the_note(engine: Engine) -> None:
    for name in ("member", "token", "member"):
        engine.serve(FakeOrigin(lambda _, name=name: personal(name), cookies=frozenset({name})))
    assert engine.store.load("page").note.kept_out.cookies == ("member", "token")


def test_a_personal_answer_keeps_what_is_stored_for_others(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller
) -> None:
    store_old(engine)
    clock.shift(IN_SIE)
    member = FakeOrigin(lambda _: personal("member"), cookies=frozenset({"member"}))
    assert body_of(engine.serve(member)) == "one member's"
    assert elsewhere.load("page").entry is not None


def test_who_does_not_queue_is_not_waited_for(engine: Engine, held: threading.Event, joined: list[str]) -> None:
    """A HEAD, say: its answer is unlikely to be stored."""
    slow = FakeOrigin(waiting_for(held.is_set, lambda _: unstorable()), may_collapse=False)
    head = go(engine.serve, slow)
    wait_until(lambda: slow.calls)
    assert joined == []
    assert engine.serve(FakeOrigin()).stored
    held.set()
    assert body_of(head.result(PATIENCE)) == "for nobody else"
    assert engine.serve(FakeOrigin()).status is HIT


# -- failures --------------------------------------------------------------------------------------------------------


def test_a_failure_that_could_be_anybodys_is_shared(engine: Engine, joined: list[str]) -> None:
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 50, lambda _: failed()))
    answers = results(crowd(50, asking(engine, origin)))
    assert origin.calls == 1
    errors = [answer.answer.error for answer in answers if answer.answer is not None]
    assert len(errors) == 50
    assert {type(error) for error in errors} == {ConnectionError}
    assert sorted(answer.collapsed for answer in answers) == [False] + [True] * 49
    assert {answer.status for answer in answers} == {MISS}


def test_a_failure_that_was_one_visitors_own_is_not_shared(engine: Engine, joined: list[str]) -> None:
    """The others try one at a time, and the first that succeeds ends it."""
    running: list[int] = []

    def call(start: Start) -> Answer:
        running.append(1)
        assert len(running) == 1
        running.pop()
        return failed(anybodys=False) if origin.calls < 4 else storable(start)

    origin = FakeOrigin()
    origin.script = once(waiting_for(lambda: len(joined) == 10, lambda _: failed(anybodys=False)), call)
    answers = results(crowd(10, asking(engine, origin)))
    assert origin.calls == 4
    bad = [answer for answer in answers if answer.answer is not None and answer.answer.error is not None]
    assert len(bad) == 3
    assert not any(answer.collapsed for answer in bad)
    assert len([answer for answer in answers if body_of(answer) == b"new"]) == 7


def test_a_failure_is_not_shared_with_who_carries_what_it_lacked(engine: Engine, joined: list[str]) -> None:
    guest = FakeOrigin()
    without_member = replace(failed(), absent=personal("member").carried)
    guest.script = waiting_for(lambda: len(joined) == 2, lambda _: without_member)
    member = FakeOrigin(lambda _: personal("member"), cookies=frozenset({"member"}))
    first = go(engine.serve, guest)
    wait_until(lambda: guest.calls)
    second = go(engine.serve, member)
    assert isinstance(first.result(PATIENCE).answer, Answer)
    assert body_of(second.result(PATIENCE)) == "one member's"
    assert member.calls == 1


def test_a_failure_within_sie_serves_all_what_is_stored(
    engine: Engine, clock: time_machine.Traveller, joined: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store_old(engine)
    clock.shift(IN_SIE)
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 50, lambda _: failed()))
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        answers = results(crowd(50, asking(engine, origin)))
    assert origin.calls == 1
    assert [(answer.status, body_of(answer)) for answer in answers] == [(STALE, b"old")] * 50
    assert len(caplog.records) == 1
    assert "the third party is down" in caplog.text


def test_a_failure_past_all_windows_is_the_visitors(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine)
    clock.shift(PAST_ALL)
    answered = engine.serve(FakeOrigin(lambda _: failed()))
    assert answered.status is EXPIRED
    assert answered.answer is not None
    assert isinstance(answered.answer.error, ConnectionError)


def test_failures_back_off_for_all_and_a_success_ends_it(directory: Path, clock: time_machine.Traveller) -> None:
    """Doubling from the first pause to the longest, lengthened by a quarter at most."""
    engines = [make_engine(directory, REFRESH_BACKOFF=(2, 10)) for _ in range(2)]
    store_old(engines[0], windows=(60, 0, 10**6))
    clock.shift(61)
    down = FakeOrigin(lambda _: failed())
    for turn, pause in enumerate((2, 4, 8, 10, 10), 1):
        assert engines[turn % 2].serve(down).status is STALE
        assert down.calls == turn
        for engine in engines:
            assert engine.serve(down).status is STALE
        clock.shift(pause - 0.01)
        for engine in engines:
            assert engine.serve(down).status is STALE
        assert down.calls == turn
        clock.shift(pause / 4 + 0.02)
    up = FakeOrigin()
    assert engines[0].serve(up).status is EXPIRED
    assert engines[1].store.load("page").note == NOTHING


def test_a_clock_that_steps_back_ends_a_pause(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine, windows=(60, 0, 10**9), started=time.time() - 10**6)
    engine.serve(FakeOrigin(lambda _: failed()))
    clock.shift(-3600)
    up = FakeOrigin()
    assert engine.serve(up).status is EXPIRED
    assert up.calls == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError()], ids=repr)
def test_what_is_no_answer_passes_and_frees_flight_and_lock(
    engine: Engine, elsewhere: FileStore, joined: list[str], error: BaseException
) -> None:
    """The leader's visitor alone sees it; the next in the queue calls for the others."""

    def die(_: Start) -> Answer:
        wait_until(lambda: len(joined) == 5)
        raise error

    origin = FakeOrigin(once(die))
    futures = crowd(5, asking(engine, origin))
    outcomes = [future.exception(PATIENCE) for future in futures]
    assert [outcome for outcome in outcomes if outcome is not None] == [error]
    assert {body_of(future.result()) for future in futures if future.exception() is None} == {b"new"}
    assert origin.calls == 2
    nothing_is_left(engine, elsewhere)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_visitor_who_dies_waiting_for_the_lock_frees_the_flight(
    engine: Engine, elsewhere: FileStore, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    lock = elsewhere.lock("page")
    assert lock.acquire()

    def die(_: float) -> None:
        raise error

    with monkeypatch.context() as dying:
        dying.setattr(time, "sleep", die)
        assert go(engine.serve, FakeOrigin()).exception(PATIENCE) is error
    lock.release()
    nothing_is_left(engine, elsewhere)


# -- recursion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [None, IN_SIE, PAST_ALL])
def test_a_view_that_asks_for_its_own_page_is_answered_live(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller, age: float | None
) -> None:
    if age is not None:
        store_old(engine)
        clock.shift(age)
    inner: list[Served] = []

    def script(start: Start) -> Answer:
        inner.append(engine.serve(origin))
        return storable(start)

    origin = FakeOrigin(script)
    outer = go(engine.serve, origin).result(PATIENCE)
    assert outer.stored
    assert [(body_of(answered), answered.stored) for answered in inner] == [("live", False)]
    assert (origin.calls, len(origin.lives)) == (1, 1)
    assert is_free(elsewhere)


def test_a_view_that_asks_for_another_page_holds_both_locks(engine: Engine, elsewhere: FileStore) -> None:
    inner = FakeOrigin(lambda start: storable(start, b"inner", key="inner"), key="inner")

    def script(start: Start) -> Answer:
        return storable(start, bytes(body_of(engine.serve(inner))))

    assert body_of(go(engine.serve, FakeOrigin(script)).result(PATIENCE)) == b"inner"
    assert engine.serve(inner).status is HIT
    assert is_free(elsewhere)
    assert is_free(elsewhere, "inner")


def test_a_refresh_that_asks_for_its_own_page_is_served_the_copy(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine)
    clock.shift(IN_SWR)
    seen: list[Served] = []

    def script(start: Start) -> Answer:
        seen.append(engine.serve(FakeOrigin()))
        return storable(start)

    assert engine.serve(FakeOrigin()).refresh
    engine.submit(FakeRefresh(script))
    assert engine.drain(PATIENCE)
    assert [(answered.status, body_of(answered)) for answered in seen] == [(UPDATING, b"old")]
    assert body_of(engine.serve(FakeOrigin())) == b"new"


# -- waiting too long ------------------------------------------------------------------------------------------------


def hang(engine: Engine, held: threading.Event, answer: Callable[[Start], Answer]) -> tuple[FakeOrigin, Future[Served]]:
    """Let a leader hang in its call until ``held`` is set."""
    hung = FakeOrigin(waiting_for(held.is_set, answer))
    future = go(engine.serve, hung)
    wait_until(lambda: hung.calls)
    return hung, future


@pytest.mark.parametrize("age", [IN_SIE, PAST_ALL, 10**7])
def test_who_waits_too_long_gets_the_stale_entry_however_old(
    engine: Engine, clock: time_machine.Traveller, held: threading.Event, age: float
) -> None:
    store_old(engine)
    clock.shift(age)
    hang(engine, held, storable)
    impatient = FakeOrigin(patience=0.05)
    answers = results(crowd(5, asking(engine, impatient)))
    assert [(answer.status, body_of(answer)) for answer in answers] == [(STALE, b"old")] * 5
    assert impatient.calls == 0
    assert engine.counters["lock_timeouts"] == 5


@pytest.mark.parametrize("never_stale", [True, None], ids=["must-revalidate", "absent"])
def test_else_one_who_waits_too_long_calls_for_all(
    engine: Engine, clock: time_machine.Traveller, held: threading.Event, joined: list[str], never_stale: bool | None
) -> None:
    if never_stale:
        store_old(engine, never_stale=True)
        clock.shift(IN_SIE)
    hung, leader = hang(engine, held, lambda start: storable(start, b"late"))
    clock.shift(1)
    patient = FakeOrigin()
    others = crowd(8, asking(engine, patient))
    wait_until(lambda: len(joined) == 9)
    taker = FakeOrigin(lambda start: storable(start, b"taken over"), patience=0.05)
    taken = go(engine.serve, taker).result(PATIENCE)
    assert (body_of(taken), taken.stored, taker.calls) == (b"taken over", True, 1)
    assert {body_of(answer) for answer in results(others)} == {b"taken over"}
    assert patient.calls == 0
    assert engine.serve(FakeOrigin()).status is HIT

    held.set()
    late = leader.result(PATIENCE)
    assert (body_of(late), late.stored, hung.calls) == (b"late", False, 1)
    assert body_of(engine.serve(FakeOrigin())) == b"taken over"


def test_who_takes_over_from_a_leader_that_hangs_takes_over_its_lock(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller, held: threading.Event
) -> None:
    """Else all other processes would wait for it, at each expiry, for as long as it hangs."""
    hang(engine, held, storable)
    clock.shift(1)
    taker = FakeOrigin(waiting_for(lambda: not is_free(elsewhere), storable), patience=0.05)
    assert engine.serve(taker).stored
    assert is_free(elsewhere)
    assert not held.is_set()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_of_many_who_wait_too_long_one_calls_and_the_others_wait_for_that(
    engine: Engine, elsewhere: FileStore, held: threading.Event, where: str
) -> None:
    """They came at the same moment, so they lose their patience at the same moment."""
    lock = elsewhere.lock("page")
    if where == "here":
        hang(engine, held, storable)
    else:
        assert lock.acquire()
    second = threading.Event()

    def script(start: Start) -> Answer:
        if origin.calls > 1:
            second.set()
        # Long enough for the others to call too, if they do, and far shorter than their patience with this call.
        second.wait(0.2)
        return storable(start, b"taken over")

    origin = FakeOrigin(script, patience=2.0)
    answers = results(crowd(8, asking(engine, origin)))
    assert {body_of(answer) for answer in answers} == {b"taken over"}
    assert origin.calls == 1
    assert sorted(answer.collapsed for answer in answers) == [False] + [True] * 7
    assert engine.serve(FakeOrigin()).status is HIT
    lock.release()


@pytest.mark.parametrize("late", [storable, lambda _: unstorable(), lambda _: failed(), lambda _: personal("member")])
def test_no_late_answer_undoes_a_newer_one(
    engine: Engine,
    elsewhere: FileStore,
    clock: time_machine.Traveller,
    held: threading.Event,
    late: Callable[[Start], Answer],
) -> None:
    _, leader = hang(engine, held, late)
    clock.shift(1)
    assert engine.serve(FakeOrigin(lambda start: storable(start, b"newer"), patience=0.05)).stored
    clock.shift(1)
    held.set()
    assert not leader.result(PATIENCE).stored
    entry = elsewhere.load("page").entry
    assert entry is not None
    assert entry.body == b"newer"
    assert engine.serve(FakeOrigin()).status is HIT
    assert is_free(elsewhere)


@pytest.mark.parametrize("stored", [True, False])
def test_who_waits_too_long_for_another_process_gets_on(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller, joined: list[str], stored: bool
) -> None:
    if stored:
        store_old(engine)
        clock.shift(PAST_ALL)
    lock = elsewhere.lock("page")
    assert lock.acquire()
    origin = FakeOrigin(patience=0.1)
    answers = results(crowd(5, asking(engine, origin)))
    if stored:
        assert [(answer.status, body_of(answer)) for answer in answers] == [(STALE, b"old")] * 5
        assert origin.calls == 0
    else:
        assert {body_of(answer) for answer in answers} == {b"new"}
        assert 1 <= origin.calls <= 5
        assert engine.serve(FakeOrigin()).status is HIT
    assert not is_free(elsewhere)
    lock.release()


def test_a_leader_that_was_replaced_leaves_no_lock(
    engine: Engine, elsewhere: FileStore, clock: time_machine.Traveller, held: threading.Event
) -> None:
    _, leader = hang(engine, held, storable)
    clock.shift(1)
    engine.serve(FakeOrigin(patience=0.05))
    held.set()
    leader.result(PATIENCE)
    assert is_free(elsewhere)
    nothing_is_left(engine, elsewhere)


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3600, 10**8])
def test_a_clock_step_leaves_no_entry_that_cannot_be_replaced(engine: Engine, clock: time_machine.Traveller, step: float) -> None:
    store_old(engine, windows=(0, 0, 0), started=time.time() + step)
    answered = engine.serve(FakeOrigin(lambda start: storable(start, windows=(60, 0, 0))))
    assert (answered.status, answered.stored) == (EXPIRED, True)
    assert body_of(engine.serve(FakeOrigin())) == b"new"


def test_a_clock_that_steps_back_while_the_origin_runs_stores_all_the_same(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine, windows=(0, 0, 0))

    def script(start: Start) -> Answer:
        clock.shift(-3600)
        return storable(start)

    assert engine.serve(FakeOrigin(script)).stored
    assert body_of(engine.serve(FakeOrigin())) == b"new"


# -- refreshes -------------------------------------------------------------------------------------------------------


def stale_engine(directory: Path, clock: time_machine.Traveller, **settings: Any) -> Engine:
    engine = make_engine(directory, **settings)
    store_old(engine)
    clock.shift(IN_SWR)
    return engine


def hand_over(engine: Engine, job: FakeRefresh) -> None:
    """Do what a front end does for a visitor of a stale page, and fail if it was not asked for."""
    answered = engine.serve(FakeOrigin())
    assert (answered.status, body_of(answered), answered.refresh) == (STALE, b"old", True)
    engine.submit(job)


def hold_refresh(engine: Engine, held: threading.Event, answer: Callable[[Start], Answer] = storable) -> FakeRefresh:
    """Hand over a refresh that hangs until ``held`` is set, and wait until it runs."""
    job = FakeRefresh(waiting_for(held.is_set, answer))
    hand_over(engine, job)
    wait_until(lambda: job.calls)
    return job


def test_a_stale_hit_hands_over_one_refresh(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, origin = stale_engine(directory, clock), FakeOrigin()
    job = hold_refresh(engine, held)
    for _ in range(5):
        answered = engine.serve(origin)
        assert (answered.status, body_of(answered), answered.refresh) == (UPDATING, b"old", False)
    held.set()
    assert engine.drain(PATIENCE)
    answered = engine.serve(origin)
    assert (answered.status, body_of(answered)) == (HIT, b"new")
    assert (job.calls, origin.calls) == (1, 0)
    assert engine.counters["refreshes"] == 1


@pytest.mark.soak
def test_of_many_stale_hits_at_once_one_hands_over(
    directory: Path, clock: time_machine.Traveller, eager: None, soak: Callable[[int, int], int]
) -> None:
    engine, keys = make_engine(directory), [f"page-{number}" for number in range(soak(200, 20))]
    for key in keys:
        engine.store.write(make_entry(key, b"old", windows=WINDOWS))
        engine.store.load(key)
    clock.shift(IN_SWR)
    for key in keys:
        answers = results(crowd(10, asking(engine, FakeOrigin(key=key))))
        assert sorted(answer.status for answer in answers) == [STALE] + [UPDATING] * 9
        assert [answer.refresh for answer in answers].count(True) == 1


def test_a_refresh_is_told_what_is_stored(directory: Path, clock: time_machine.Traveller) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    hand_over(engine, job)
    assert engine.drain(PATIENCE)
    assert job.starts[0].previous is not None
    assert job.starts[0].previous.body == b"old"


def test_without_workers_a_refresh_is_done_when_it_is_handed_over(directory: Path, clock: time_machine.Traveller) -> None:
    engine = stale_engine(directory, clock, REFRESH_WORKERS=0)
    hand_over(engine, FakeRefresh())
    assert engine.serve(FakeOrigin()).status is HIT


def test_one_refresh_at_a_time_over_all_processes(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], held: threading.Event
) -> None:
    """Another process that finds the lock taken looks again after a quarter of a second, or when something was written."""
    engine, other = stale_engine(directory, clock), make_engine(directory)
    hold_refresh(engine, held)
    late = FakeRefresh()
    hand_over(other, late)
    assert other.drain(PATIENCE)
    assert late.calls == 0
    assert other.serve(FakeOrigin()).status is UPDATING
    monotonic(0.2)
    assert other.serve(FakeOrigin()).status is UPDATING
    monotonic(0.1)
    hand_over(other, late)
    assert other.drain(PATIENCE)
    assert late.calls == 0
    assert other.serve(FakeOrigin()).status is UPDATING
    held.set()
    assert engine.drain(PATIENCE)
    assert other.serve(FakeOrigin()).status is HIT


def test_a_pause_for_a_taken_lock_ends_when_something_is_written(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore
) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    lock = elsewhere.lock("page")
    assert lock.acquire()
    hand_over(engine, job)
    assert engine.drain(PATIENCE)
    assert engine.serve(FakeOrigin()).status is UPDATING
    elsewhere.write(make_entry(body=b"old", windows=(0, 600, 0)))
    lock.release()
    hand_over(engine, job)
    assert engine.drain(PATIENCE)
    assert job.calls == 1


def test_a_refresh_of_what_is_fresh_by_now_is_not_run(directory: Path, clock: time_machine.Traveller, elsewhere: FileStore) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    assert engine.serve(FakeOrigin()).refresh
    elsewhere.write(make_entry(body=b"renewed elsewhere"))
    engine.submit(job)
    assert engine.drain(PATIENCE)
    assert job.calls == 0
    assert body_of(engine.serve(FakeOrigin())) == b"renewed elsewhere"


@pytest.mark.parametrize("gone", ["removed", "backing off"])
def test_a_refresh_of_what_is_not_to_be_renewed_is_not_run(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore, gone: str
) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    assert engine.serve(FakeOrigin()).refresh
    if gone == "removed":
        elsewhere.remove("page")
    else:
        elsewhere.write_note("page", NOTHING.failed(time.time(), (2, 300), 0))
    engine.submit(job)
    assert engine.drain(PATIENCE)
    assert job.calls == 0
    assert is_free(elsewhere)


@pytest.mark.parametrize("bad", [lambda _: failed(), lambda _: failed(anybodys=False), lambda _: personal("member")])
def test_a_refresh_that_fails_keeps_the_entry_and_backs_off_for_all(
    directory: Path,
    clock: time_machine.Traveller,
    caplog: pytest.LogCaptureFixture,
    bad: Callable[[Start], Answer],
) -> None:
    engine = stale_engine(directory, clock, REFRESH_BACKOFF=(2, 300))
    other, job = make_engine(directory, REFRESH_BACKOFF=(2, 300)), FakeRefresh(bad)
    turn, origin = 0, FakeOrigin()
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for pause in (2, 4, 8):
            hand_over((engine, other)[turn % 2], job)
            turn += 1
            assert engine.drain(PATIENCE)
            assert other.drain(PATIENCE)
            assert job.calls == turn
            for seconds in (0, pause - 0.01):
                clock.shift(seconds)
                for each in (engine, other):
                    answered = each.serve(origin)
                    assert (answered.status, body_of(answered), answered.refresh) == (UPDATING, b"old", False)
            clock.shift(pause / 4 + 0.02)
    assert len([record for record in caplog.records if "the refresh of the page failed" in record.getMessage()]) == 2
    hand_over(other, FakeRefresh())
    assert other.drain(PATIENCE)
    assert engine.serve(origin).status is HIT
    assert engine.store.load("page").note == NOTHING
    assert origin.calls == 0


def test_a_refresh_that_finds_the_page_private_now_drops_it(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore
) -> None:
    engine = stale_engine(directory, clock)
    hand_over(engine, FakeRefresh(lambda _: unstorable()))
    assert engine.drain(PATIENCE)
    assert elsewhere.load("page").entry is None
    assert elsewhere.load("page").note.unstorable(time.time())
    assert engine.serve(FakeOrigin(lambda _: unstorable())).status is MISS


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_refresh_that_dies_frees_all_and_backs_off(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore, error: BaseException
) -> None:
    engine = stale_engine(directory, clock, REFRESH_WORKERS=1)

    def die(_: Start) -> Answer:
        raise error

    hand_over(engine, FakeRefresh(die))
    assert engine.drain(PATIENCE)
    assert is_free(elsewhere)
    assert engine.serve(FakeOrigin()).status is UPDATING
    assert elsewhere.load("page").note.failures == 1
    clock.shift(3)
    hand_over(engine, FakeRefresh())
    assert engine.drain(PATIENCE)
    assert engine.serve(FakeOrigin()).status is HIT


def test_who_must_wait_waits_for_a_refresh_that_runs(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, joined: list[str]
) -> None:
    engine, origin = stale_engine(directory, clock), FakeOrigin()
    job = hold_refresh(engine, held)
    clock.shift(PAST_ALL)
    before = len(joined)
    futures = crowd(10, asking(engine, origin))
    wait_until(lambda: len(joined) == before + 10)
    held.set()
    answers = results(futures)
    assert {(answer.status, body_of(answer), answer.collapsed) for answer in answers} == {(EXPIRED, b"new", True)}
    assert (job.calls, origin.calls) == (1, 0)


def test_a_full_queue_drops_the_refresh_and_the_next_hit_tries_again(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    engine = make_engine(directory, REFRESH_WORKERS=1, REFRESH_QUEUE=1)
    for key in ("page", "second", "third"):
        engine.store.write(make_entry(key, b"old", windows=WINDOWS))
    clock.shift(IN_SWR)
    hold_refresh(engine, held)
    jobs = {key: FakeRefresh(lambda start, key=key: storable(start, key=key), key=key) for key in ("second", "third")}
    for key, job in jobs.items():
        assert engine.serve(FakeOrigin(key=key)).refresh
        engine.submit(job)
    assert engine.counters["refreshes_dropped"] == 1
    assert engine.serve(FakeOrigin(key="second")).status is UPDATING
    dropped = engine.serve(FakeOrigin(key="third"))
    assert (dropped.status, dropped.refresh, body_of(dropped)) == (STALE, True, b"old")
    held.set()
    assert engine.drain(PATIENCE)
    engine.submit(jobs["third"])
    assert engine.drain(PATIENCE)
    assert [engine.serve(FakeOrigin(key=key)).status for key in jobs] == [HIT, HIT]
    assert engine.counters["refreshes_dropped"] == 1


def test_a_refresh_that_was_never_handed_over_is_asked_for_again(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None]
) -> None:
    """A worker's thread died between the answer and the close, say."""
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    assert engine.serve(FakeOrigin()).refresh
    monotonic(99)
    assert engine.serve(FakeOrigin()).status is UPDATING
    monotonic(2)
    hand_over(engine, FakeRefresh())
    assert engine.drain(PATIENCE)


# -- the deadline ----------------------------------------------------------------------------------------------------


def give_up(engine: Engine, monotonic: Callable[[float], None]) -> None:
    """Let the deadline of a refresh pass."""
    monotonic(99)
    engine.tick()
    assert engine.counters["refreshes_overdue"] == 0
    monotonic(2)
    engine.tick()
    assert engine.counters["refreshes_overdue"] == 1


def test_a_refresh_past_its_deadline_is_given_up(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its lock is free, it counts as a failure for all, and another thread takes the place of the one that hangs."""
    engine = stale_engine(directory, clock, REFRESH_WORKERS=1, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    assert not is_free(elsewhere)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        give_up(engine, monotonic)
        engine.tick()
    assert engine.counters["refreshes_overdue"] == 1
    assert "REFRESH_DEADLINE" in caplog.text
    assert is_free(elsewhere)
    assert elsewhere.load("page").note.failures == 1
    assert engine.serve(FakeOrigin()).status is UPDATING
    clock.shift(3)
    hand_over(engine, FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.drain(PATIENCE)
    assert body_of(engine.serve(FakeOrigin())) == b"newer"


@pytest.mark.parametrize("late", [storable, lambda _: unstorable(), lambda _: failed(), lambda _: personal("member")])
def test_a_late_refresh_does_not_undo_a_newer_one(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    late: Callable[[Start], Answer],
) -> None:
    engine, returned = stale_engine(directory, clock, REFRESH_DEADLINE=100), threading.Event()

    def script(start: Start) -> Answer:
        returned.set()
        return late(start)

    hung = hold_refresh(engine, held, script)
    give_up(engine, monotonic)
    clock.shift(3)
    hand_over(engine, FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.drain(PATIENCE)
    thread = thread_in(hung)
    held.set()
    assert returned.wait(PATIENCE)
    wait_until(lambda: not thread.is_alive(), "the end of the stuck thread")
    copy = elsewhere.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"newer"
    assert copy.note == NOTHING
    assert is_free(elsewhere)


def thread_in(job: FakeRefresh) -> threading.Thread:
    """Return the thread that runs a job, found by its frame."""
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None:
            if frame.f_code is FakeRefresh.run.__code__ and frame.f_locals["self"] is job:
                return thread
            frame = frame.f_back
    raise AssertionError("nobody runs it")


@pytest.mark.parametrize(("taken", "stored"), [(False, True), (True, False)], ids=["lock free", "lock taken"])
def test_a_late_result_is_stored_only_if_nobody_is_at_it(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    taken: bool,
    stored: bool,
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hung = hold_refresh(engine, held, lambda start: storable(start, b"late"))
    give_up(engine, monotonic)
    lock = elsewhere.lock("page")
    if taken:
        assert lock.acquire()
    thread = thread_in(hung)
    held.set()
    wait_until(lambda: not thread.is_alive(), "the end of the stuck thread")
    lock.release()
    entry = elsewhere.load("page").entry
    assert entry is not None
    assert entry.body == (b"late" if stored else b"old")
    if stored:
        assert elsewhere.load("page").note == NOTHING


def test_visitors_who_wait_for_a_refresh_that_is_given_up_get_on(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    joined: list[str],
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    clock.shift(PAST_ALL)
    origin, before = FakeOrigin(patience=10**6), len(joined)
    futures = crowd(5, asking(engine, origin))
    wait_until(lambda: len(joined) == before + 5)
    give_up(engine, monotonic)
    assert {body_of(answer) for answer in results(futures)} == {b"new"}
    assert origin.calls == 1


def test_a_visitors_own_call_has_no_deadline(directory: Path, monotonic: Callable[[float], None], held: threading.Event) -> None:
    engine = make_engine(directory, REFRESH_DEADLINE=100)
    _, leader = hang(engine, held, storable)
    monotonic(10**6)
    engine.tick()
    held.set()
    assert leader.result(PATIENCE).stored
    assert engine.counters["refreshes_overdue"] == 0


def test_the_housekeeper_gives_up_by_itself(
    directory: Path,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
    held: threading.Event,
    elsewhere: FileStore,
) -> None:
    monkeypatch.setattr("flask_stalecache.engine.housekeeper.INTERVAL", 0.005)
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=0.01)
    hold_refresh(engine, held)
    wait_until(lambda: is_free(elsewhere), "the end of the refresh")
    wait_until(lambda: engine.counters["refreshes_overdue"] == 1)


# -- a store that fails ----------------------------------------------------------------------------------------------

VERDICTS: dict[str, Callable[[Start], Answer]] = {
    "storable": storable,
    "unstorable": lambda _: unstorable(),
    "personal": lambda _: personal("member"),
    "failed": lambda _: failed(),
}


def fail(*_: object) -> None:
    raise StoreError("the disk is gone")


def break_store(engine: Engine, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one step of the store fail, or ``every`` one."""
    steps = ["load", "write", "remove", "write_note", "lock"] if step == "every" else [step]
    for name in steps:
        if name != "lock":
            monkeypatch.setattr(engine.store, name, fail)
            continue
        make = engine.store.lock

        def broken_lock(key: str, make: Callable[[str], Any] = make) -> Any:
            lock = make(key)
            lock.acquire = fail
            return lock

        monkeypatch.setattr(engine.store, "lock", broken_lock)


@pytest.mark.parametrize("step", ["load", "lock", "write", "write_note", "remove", "every"])
@pytest.mark.parametrize("answer", VERDICTS.values(), ids=VERDICTS)
@pytest.mark.parametrize("may_collapse", [True, False])
@pytest.mark.parametrize("age", [None, PAST_ALL], ids=["absent", "expired"])
def test_a_store_that_fails_costs_no_visitor_the_page(
    engine: Engine,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    answer: Callable[[Start], Answer],
    may_collapse: bool,
    age: float | None,
) -> None:
    if age is not None:
        store_old(engine)
        clock.shift(age)
    with monkeypatch.context() as broken:
        break_store(engine, step, broken)
        origin = FakeOrigin(answer, may_collapse=may_collapse)
        answered = go(engine.serve, origin).result(PATIENCE)
        assert origin.calls == 1
        assert answered.answer is not None
        assert (answered.answer.value, type(answered.answer.error)) in [
            (b"new", type(None)),
            ("for nobody else", type(None)),
            ("one member's", type(None)),
            (None, ConnectionError),
        ]
        if step in ("load", "every") or (step == "lock" and may_collapse):
            assert engine.counters["store_failures"] >= 1
    again = FakeOrigin()
    clock.shift(11)
    assert body_of(go(engine.serve, again).result(PATIENCE)) == b"new"
    assert engine.serve(again).status is HIT


@pytest.mark.parametrize("step", ["load", "lock", "write", "every"])
def test_a_store_that_fails_still_costs_one_call_for_all_who_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, joined: list[str], step: str
) -> None:
    break_store(engine, step, monkeypatch)
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 20, storable))
    answers = results(crowd(20, asking(engine, origin)))
    assert [body_of(answer) for answer in answers] == [b"new"] * 20
    assert origin.calls == 1


@pytest.mark.parametrize("step", ["load", "lock", "write", "write_note", "remove", "every"])
@pytest.mark.parametrize("answer", VERDICTS.values(), ids=VERDICTS)
def test_a_store_that_fails_in_a_refresh_keeps_the_copy(
    directory: Path,
    clock: time_machine.Traveller,
    elsewhere: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    answer: Callable[[Start], Answer],
) -> None:
    engine = stale_engine(directory, clock)
    assert engine.serve(FakeOrigin()).refresh
    with monkeypatch.context() as broken:
        break_store(engine, step, broken)
        engine.submit(FakeRefresh(answer))
        assert engine.drain(PATIENCE)
        if step in ("load", "lock", "every"):
            assert engine.counters["store_failures"] == 1
    assert is_free(elsewhere)
    nothing_is_left(engine, elsewhere)


def test_a_store_that_fails_is_told_once_a_minute(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    monotonic: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_store(engine, "write", monkeypatch)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for _ in range(5):
            engine.serve(FakeOrigin())
        assert len(caplog.records) == 1
        monotonic(59)
        engine.serve(FakeOrigin())
        assert len(caplog.records) == 1
        monotonic(2)
        engine.serve(FakeOrigin())
    assert len(caplog.records) == 2
    assert "the disk is gone" in caplog.records[1].getMessage()
    assert engine.counters["store_failures"] == 7


@pytest.mark.parametrize("step", ["load", "write_note", "every"])
def test_a_deadline_passes_although_the_store_fails(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    break_store(engine, step, monkeypatch)
    give_up(engine, monotonic)
    assert is_free(elsewhere)
    assert engine.counters["store_failures"] >= 1


def test_copies_may_be_lost_at_any_moment(directory: Path, clock: time_machine.Traveller) -> None:
    """Without copies in memory all is as before, only slower."""
    engine, origin = make_engine(directory, MEMORY_SIZE=0), FakeOrigin()
    assert [engine.serve(origin).status for _ in range(2)] == [MISS, HIT]
    clock.shift(61)
    hand_over_new = engine.serve(origin)
    assert (hand_over_new.status, hand_over_new.refresh) == (STALE, True)
    assert engine.serve(origin).status is UPDATING
    engine.submit(FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.drain(PATIENCE)
    assert body_of(engine.serve(origin)) == b"newer"
    assert origin.calls == 1


# -- everything at once ----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_many_visitors_of_two_engines_and_every_kind_of_answer(directory: Path, soak: Callable[[int, int], int]) -> None:
    """Whatever comes, everybody is answered, no page is another key's, and nothing is left behind."""
    engines, rounds = [make_engine(directory, REFRESH_BACKOFF=(0.01, 0.05)) for _ in range(2)], soak(2000, 100)
    keys = ["a", "b", "c"]

    def script_for(key: str) -> Callable[[Start], Answer]:
        def script(start: Start) -> Answer:
            match start.serial[0]:
                case "0" | "1":
                    return failed(anybodys=start.serial[1] < "8")
                case "2":
                    return unstorable(key.encode())
                case "3":
                    return replace(personal("member"), value=key.encode())
                case _:
                    return storable(start, key.encode(), key=key, windows=(0.002, 0.01, 0.05))

        return script

    def play(number: int) -> int:
        answered = 0
        for turn in range(rounds):
            key, engine = keys[(turn + number) % 3], engines[(turn // 3 + number) % 2]
            member = frozenset({"member"}) if (turn + number) % 7 == 0 else frozenset[str]()
            served = engine.serve(FakeOrigin(script_for(key), key=key, cookies=member))
            if served.refresh:
                engine.submit(FakeRefresh(script_for(key), key=key))
            failure = served.answer is not None and served.answer.verdict is Verdict.FAILED
            assert failure or body_of(served) in (key.encode(), "live")
            answered += 1
        return answered

    assert results([go(play, number) for number in range(8)]) == [rounds] * 8
    for engine in engines:
        assert engine.drain(PATIENCE)
        assert engine.counters["store_failures"] == 0
        assert engine.counters["broken_entries"] == 0
        assert engine.counters["lock_timeouts"] == 0
    store = FileStore(directory)
    assert all(is_free(store, key) for key in keys)
    assert isinstance(store.load("a").note, Note)
