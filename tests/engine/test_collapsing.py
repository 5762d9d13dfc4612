"""The engine: one origin call for many visitors, answers that can't be stored, recursion, and waits that end.

Covers ``engine.fetch_state`` and ``engine.origin`` too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache import CacheStatus, FileStore
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.core.model.reasons import Refusal, StoreRefusal
from flask_stalecache.core.rules.serving import PLAIN
from flask_stalecache.core.rules.storability import Verdict
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Served, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, make_entry, personal, storable, unstorable
from support.engine_calls import (
    BYPASS,
    EXPIRED,
    HIT,
    IN_SIE,
    IN_SWR,
    MISS,
    PAST_ALL,
    STALE,
    UPDATING,
    WINDOWS,
    asking,
    fail,
    hang,
    hold_refresh,
    is_free,
    nothing_is_left,
    once,
    stale_engine,
    store_old,
    waiting_for,
)
from support.threads import PATIENCE, crowd, go, results, wait_until

# -- collapsing ------------------------------------------------------------------------------------------------------


@pytest.mark.grid
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
    """Another process was killed between its rename and the stamp: our copy counts as current, although the file is a new one."""
    store_old(engine)
    assert engine.serve(FakeOrigin()).status is HIT
    with monkeypatch.context() as killed:
        killed.setattr("flask_stalecache.stores.table.stamps.Stamps.move", lambda *_: None)
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


@pytest.mark.parametrize(
    ("reason", "before", "queues", "queues_after_purge"),
    [
        pytest.param(StoreRefusal.NO_LIFETIME, 1, False, False, id="no policy could store it"),
        pytest.param(StoreRefusal.CACHE_CONTROL, 1, True, True, id="once"),
        pytest.param(StoreRefusal.CACHE_CONTROL, 2, False, True, id="twice"),
        pytest.param(StoreRefusal.AUTHORIZATION, 2, True, True, id="what one request is about"),
    ],
)
def test_nobody_queues_for_what_is_never_stored(
    directory: Path,
    clock: time_machine.Traveller,
    joined: list[str],
    reason: StoreRefusal,
    before: int,
    queues: bool,
    queues_after_purge: bool,
) -> None:
    """The mark lasts as long as the process runs. Each process has its own.

    A hard purge removes the note, since the page has changed: then requests queue again, unless no policy could store the answer.
    """
    engine, other = make_engine(directory), make_engine(directory)
    refused = Answer(Verdict.UNSTORABLE, "for nobody else", reason=Refusal(reason))
    for _ in range(before):
        engine.serve(FakeOrigin(lambda _: refused))
    clock.shift(3600)
    joined.clear()
    engine.serve(FakeOrigin(lambda _: refused))
    assert (joined == ["page"]) is queues
    clock.shift(3600)
    joined.clear()
    engine.store.write_note("page", NOTHING)
    engine.serve(FakeOrigin(lambda _: refused))
    assert (joined == ["page"]) is queues_after_purge
    clock.shift(3600)
    joined.clear()
    other.serve(FakeOrigin(lambda _: refused))
    assert joined == ["page"]
    assert engine.serve(FakeOrigin()).stored
    engine.store.remove("page")
    joined.clear()
    engine.serve(FakeOrigin())
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
    engine.runtime.submit(FakeRefresh(script))
    assert engine.runtime.drain(PATIENCE)
    assert [(answered.status, body_of(answered)) for answered in seen] == [(UPDATING, b"old")]
    assert body_of(engine.serve(FakeOrigin())) == b"new"


# -- waiting too long ------------------------------------------------------------------------------------------------


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
    """Otherwise all other processes would wait for the lock at each expiry, as long as the leader hangs."""
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


# -- requests that renew -----------------------------------------------------------------------------------------------


def test_requests_that_renew_share_only_calls_that_began_after_them(engine: Engine, held: threading.Event) -> None:
    store_old(engine)
    renewing = FakeOrigin(terms=PLAIN.renewing())
    renewing.script = once(
        lambda start: held.wait(PATIENCE) and storable(start, b"first"), lambda start: storable(start, b"second")
    )
    first = go(asking(engine, renewing))
    wait_until(lambda: renewing.calls == 1)
    # The content may have changed since the first call began, so its answer may be too old for them.
    later = crowd(5, asking(engine, renewing))
    wait_until(lambda: len(renewing.asked) == 6)
    assert body_of(engine.serve(FakeOrigin())) == b"old", "nobody else waits"
    held.set()
    assert body_of(results([first])[0]) == b"first"
    answers = results(later)
    assert ({body_of(answer) for answer in answers}, renewing.calls) == ({b"second"}, 2)
    assert {answer.status for answer in answers} == {EXPIRED}
    assert body_of(engine.serve(FakeOrigin())) == b"second"


def test_a_request_that_renews_calls_again_after_a_refresh_that_began_before_it(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held, lambda start: storable(start, b"of the refresh"))
    clock.shift(1)
    renewing = FakeOrigin(lambda start: storable(start, b"renewed"), terms=PLAIN.renewing())
    waiting = go(asking(engine, renewing))
    wait_until(lambda: renewing.asked)
    held.set()
    assert body_of(results([waiting])[0]) == b"renewed"
    assert body_of(engine.serve(FakeOrigin())) == b"renewed"
