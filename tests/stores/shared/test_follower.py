"""Follows the logs of a real server: purges, changes, gaps, lost memory, lost purges. Covers ``stores.shared.logs``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.base import Acknowledged
from flask_stalecache.stores.shared import follower as follower_module
from flask_stalecache.stores.shared import logs
from flask_stalecache.stores.shared.known import number_of, shared_number
from flask_stalecache.stores.shared.logs import EntryChange
from flask_stalecache.stores.table.stamps import slot_of
from support.engine import make_entry
from support.purging import NAMES, NEW, NEWS, OLD, SPORT, begun, body_in, fresh_body_in
from support.shared_hosts import Host, Server
from support.threads import PATIENCE, wait_until

pytestmark = pytest.mark.server

MakeHost = Callable[[str], Host]


def fill(*hosts: Host, body: bytes = OLD) -> None:
    for host in hosts:
        assert host.files.write(begun(host.files, body))


def bodies(*hosts: Host) -> list[bytes | None]:
    return [body_in(host.files) for host in hosts]


# -- purges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_reaches_the_other_host(hosts: list[Host], soft: bool) -> None:
    one, two = hosts
    fill(one, two)
    one.follower.purge((NEWS,), soft=soft)
    assert fresh_body_in(one.files) is None
    assert fresh_body_in(two.files) == OLD
    two.read()
    assert fresh_body_in(two.files) is None
    assert bodies(one, two) == ([OLD, OLD] if soft else [None, None])
    fill(one, two, body=NEW)
    for host in hosts:
        host.read()
        assert fresh_body_in(host.files) == NEW


def test_a_purge_costs_one_round_trip_and_brings_what_came_before(hosts: list[Host]) -> None:
    one, two = hosts
    fill(one, two)
    one.follower.purge((NEWS,), soft=False)
    two.link.sent.clear()
    two.follower.purge((SPORT,), soft=False)
    assert len(two.link.sent) == 1
    # Else a page could be made of a value that the first purge ends, and seem to be newer than that purge.
    assert bodies(two) == [None]


def test_what_was_begun_after_a_purge_elsewhere_outlives_it(hosts: list[Host]) -> None:
    one, two = hosts
    number = one.follower.purge((NEWS,), soft=False)
    entry = begun(one.files, NEW)
    assert shared_number(entry.seq) == number
    two.read()
    assert two.files.write(make_entry("page", NEW, names=NAMES, seq=entry.seq))
    assert fresh_body_in(two.files) == NEW


def test_numbers_rise_though_a_host_is_ahead(hosts: list[Host]) -> None:
    one, two = hosts
    with time_machine.travel(time.time() + 3600, tick=False):
        one.files.purge(SPORT, soft=False)
    ahead = one.files.seq()
    number = one.follower.purge((NEWS,), soft=False)
    assert number > ahead // 1000
    assert two.follower.purge((NEWS,), soft=False) > number


def test_many_purges_are_read_in_parts(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = hosts
    fill(two)
    monkeypatch.setattr(follower_module, "MOST", 3)
    monkeypatch.setattr(logs, "READ", logs.READ.replace(str(logs.MOST), "3"))
    for each in range(10):
        last = one.follower.purge((f"tag:{each}",), soft=True)
    one.follower.purge((NEWS,), soft=False)
    two.read()
    assert two.known.applied > last
    assert bodies(two) == [None]


def test_who_waits_for_others_is_told_who_is_late(hosts: list[Host], make_host: MakeHost) -> None:
    one, two = hosts
    number = one.follower.purge((NEWS,), soft=False)
    assert one.follower.acknowledged(number, 0) == Acknowledged(2, (two.known.host_id(),), 0)
    two.read()
    assert one.follower.acknowledged(number, PATIENCE).late == ()


def test_nobody_waits_for_who_has_gone(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    number = one.follower.purge((NEWS,), soft=False)
    monkeypatch.setattr(logs, "LIVE", 0)
    assert one.follower.acknowledged(number, 0).late == ()


# -- changes -------------------------------------------------------------------------------------------------------


def test_a_changed_key_is_loaded_again_with_its_serial(hosts: list[Host]) -> None:
    one, two = hosts
    fill(two)
    assert bodies(two) == [OLD]
    one.tell("page", "serial")
    two.read()
    assert two.files.lookup("page") is None
    assert two.known.serial(slot_of(digest("page"))) == number_of("serial")
    one.tell("page", "")
    two.read()
    assert two.known.serial(slot_of(digest("page"))) == 0


def test_own_changes_move_nothing(hosts: list[Host]) -> None:
    one, _ = hosts
    fill(one)
    assert bodies(one) == [OLD]
    one.tell("page", "serial")
    one.read()
    assert one.files.lookup("page") is not None
    assert one.known.change == 1


def everything_is_asked_for(host: Host) -> bool:
    return host.files.lookup("page") is None and host.known.serial(slot_of(digest("other"))) == 0


def remember(host: Host) -> None:
    fill(host)
    bodies(host)
    host.known.put(slot_of(digest("other")), 5)


@pytest.mark.parametrize(
    "break_log",
    [
        lambda client: client.xtrim("stalecache:{test}:C", maxlen=1, approximate=False),
        lambda client: client.delete("stalecache:{test}:C"),
        lambda client: (client.delete("stalecache:{test}:C"), client.hset("stalecache:{test}:m", "c", 1)),
    ],
    ids=["trimmed", "deleted", "gone back"],
)
def test_after_a_gap_in_the_changes_every_key_is_asked_for(
    hosts: list[Host], server: Server, break_log: Callable[..., object]
) -> None:
    one, two = hosts
    for _ in range(3):
        one.tell("elsewhere", "serial")
    two.read()
    remember(two)
    for _ in range(3):
        one.tell("elsewhere", "serial")
    break_log(server.client())
    two.read()
    assert everything_is_asked_for(two)
    remember(two)
    two.read()
    assert not everything_is_asked_for(two)
    one.tell("page", "newer")
    two.read()
    assert two.known.serial(slot_of(digest("page"))) == number_of("newer")


def test_after_a_failover_that_puts_other_changes_in_their_place(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    for number in range(3):
        one.tell(f"page {number}", "serial")
    two.read()
    remember(two)
    client = server.client()
    client.delete("stalecache:{test}:C")
    client.hset("stalecache:{test}:m", "c", 0)
    for number in range(5):
        one.tell(f"other {number}", "serial")
    two.read()
    assert everything_is_asked_for(two)


def test_an_older_serial_that_was_noted_at_the_same_moment_does_not_stay(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = hosts
    slot = slot_of(digest("page"))
    one.tell("page", "newer")
    monkeypatch.setattr(follower_module, "_SECOND", PATIENCE)
    two.read()
    two.known.put(slot, number_of("older"))
    monkeypatch.setattr(follower_module, "_SECOND", 0)
    two.read()
    assert two.known.serial(slot) == 0


# -- joining, gaps, lost memory --------------------------------------------------------------------------------------


def test_what_a_directory_had_before_is_not_trusted(hosts: list[Host], make_host: MakeHost) -> None:
    hosts[0].follower.purge((NEWS,), soft=False)
    late = make_host("late")
    fill(late)
    late.read()
    assert bodies(late) == [None]
    fill(late, body=NEW)
    late.read()
    assert bodies(late) == [NEW]


def test_a_restarted_host_reads_on(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    one, two = hosts
    fill(two)
    one.follower.purge((SPORT,), soft=False)
    two.read()
    applied = two.known.applied
    (two.directory / "known-1").unlink()
    again = Host(tmp_path / "two", server)
    assert again.known.applied == 0
    again.read()
    assert again.known.applied == applied
    assert bodies(again) == [OLD]
    one.follower.purge((NEWS,), soft=False)
    again.read()
    assert bodies(again) == [None]


def test_who_joined_before_there_was_a_purge_reads_on(hosts: list[Host], caplog: pytest.LogCaptureFixture) -> None:
    one, _ = hosts
    fill(one)
    (one.directory / "known-1").unlink()
    one.read()
    assert fresh_body_in(one.files) == OLD
    assert caplog.text == ""


@pytest.mark.parametrize("all_of_it", [False, True])
def test_after_a_gap_in_the_purges_all_is_purged_here(hosts: list[Host], server: Server, all_of_it: bool) -> None:
    one, two = hosts
    fill(one, two)
    for name in (NEWS, SPORT):
        one.follower.purge((f"{name}s",), soft=True)
    server.client().xtrim("stalecache:{test}:P", maxlen=0 if all_of_it else 1, approximate=False)
    two.read()
    one.read()
    assert bodies(one, two) == [OLD, None]
    fill(two, body=NEW)
    two.read()
    assert bodies(two) == [NEW]


def test_a_server_that_has_lost_its_memory_ends_the_freshness_of_all_once(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(one, two)
    server.client().flushall()
    two.read()
    one.read()
    assert [fresh_body_in(host.files) for host in hosts] == [None, None]
    assert bodies(one, two) == [OLD, OLD]
    fill(one, body=NEW)
    for host in (two, one, two, one):
        host.read()
    # By one purge: a second one would have ended what was renewed.
    assert fresh_body_in(one.files) == NEW
    assert one.known.generation == two.known.generation
    one.follower.purge((NEWS,), soft=False)
    two.read()
    assert bodies(one, two) == [None, None]


def test_a_purge_that_went_with_the_memory_is_made_again(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(one, two)
    one.follower.purge((NEWS,), soft=False)
    server.client().flushall()
    for host in (two, one, two):
        host.read()
    assert bodies(one, two) == [None, None]


def test_a_purge_right_after_the_memory_was_lost(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(one, two)
    server.client().flushall()
    one.follower.purge((NEWS,), soft=False)
    assert bodies(one) == [None]
    two.read()
    assert bodies(two) == [None]


def test_a_purge_that_a_failover_has_lost_is_made_again(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(one, two)
    client = server.client()
    before = client.dump("stalecache:{test}:m")
    one.follower.purge((NEWS,), soft=False)
    client.restore("stalecache:{test}:m", 0, before, replace=True)
    client.delete("stalecache:{test}:P")
    two.read()
    assert bodies(two) == [OLD]
    one.read()
    two.read()
    assert bodies(one, two) == [None, None]
    seqs = [host.files.seq() for host in hosts]
    for host in (one, two, one):
        host.read()
    assert [host.files.seq() for host in hosts] == seqs


def test_a_purge_made_while_nobody_heard_reaches_the_others_later(hosts: list[Host]) -> None:
    one, two = hosts
    fill(one, two)
    one.link.is_cut = True
    with pytest.raises(StoreError):
        one.follower.purge((NEWS,), soft=False)
    # As a store does then.
    one.purge_alone(NEWS, soft=False)
    assert one.follower.step(0.0) > 0
    one.link.is_cut = False
    one.read()
    two.read()
    assert bodies(one, two) == [None, None]


def test_a_clock_that_differs_is_said_once(hosts: list[Host], caplog: pytest.LogCaptureFixture) -> None:
    with time_machine.travel(time.time() + 10, tick=False):
        for _ in range(2):
            hosts[0].read()
    assert caplog.text.count("differs from that of the shared server by 10 s") == 1


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_another_thread_during_a_read_is_not_taken_for_a_lost_one(
    hosts: list[Host], server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, soft: bool
) -> None:
    one, _ = hosts
    read = one.logs.read

    def read_then_purge(host: str, applied: int, change: int, *, notes: bool) -> logs.LogState:
        found = read(host, applied, change, notes=notes)
        monkeypatch.undo()
        one.follower.purge((NEWS,), soft=soft)
        return found

    one.follower.purge((SPORT,), soft=soft)
    monkeypatch.setattr(one.logs, "read", read_then_purge)
    for _ in range(3):
        one.read()
    assert server.client().xlen("stalecache:{test}:P") == 2
    assert "lacks purges" not in caplog.text


@pytest.mark.parametrize("during", [False, True])
def test_two_processes_of_a_host_that_read_in_turn_forget_nothing(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch, during: bool
) -> None:
    one, two = hosts
    other = follower_module.Follower(one.files, one.known, one.logs, lambda address: None)
    forgotten: list[int] = []
    monkeypatch.setattr(one.known, "forget_all", lambda: forgotten.append(1))
    read = one.logs.read

    def read_twice(host: str, applied: int, change: int, *, notes: bool) -> logs.LogState:
        found = read(host, applied, change, notes=notes)
        if during and one.logs.read is read_twice:
            monkeypatch.setattr(one.logs, "read", read)
            two.tell("between", "5" * 16)
            other.read_once()
        return found

    for turn in range(6):
        two.tell(f"page {turn}", f"{turn}" * 16)
        monkeypatch.setattr(one.logs, "read", read_twice)
        (one.follower, other)[turn % 2].read_once()
        one.read()
        assert one.known.serial(slot_of(digest(f"page {turn}"))) == number_of(f"{turn}" * 16)
    assert forgotten == []


@pytest.mark.parametrize(("before", "after"), [(9, 0), (0, 9)])
def test_an_answer_that_takes_long_says_nothing_about_clocks(
    hosts: list[Host], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    link = hosts[0].link
    ask = link.run

    def run(script: str, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        clock.shift(before)
        answer = ask(script, keys, args)
        clock.shift(after)
        return answer

    hosts[0].read()
    monkeypatch.setattr(link, "run", run)
    # While it is asked, this clock is that of the server.
    with time_machine.travel(time.time() - before, tick=False) as clock:
        hosts[0].read()
    assert "differs" not in caplog.text


def test_old_names_are_dropped(hosts: list[Host], server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    one.follower.purge((NEWS, SPORT), soft=False)
    client, fields = server.client(), [f"n:{digest(name)}" for name in (NEWS, SPORT)]
    client.hset("stalecache:{test}:m", fields[0], "1 0 0 2")
    monkeypatch.setattr(follower_module, "_HOUR", 0)
    one.read()
    assert [client.hexists("stalecache:{test}:m", field) for field in fields] == [False, True]


# -- threads, processes, failures ------------------------------------------------------------------------------------


def test_one_process_of_a_host_follows_and_another_takes_over(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    one, two = hosts
    beside = Host(tmp_path / "two", server)
    two.follower.tick()
    beside.follower.tick()
    assert (two.follower.follows, beside.follower.follows) == (True, False)
    fill(beside)
    assert bodies(beside) == [OLD]
    number = one.follower.purge((NEWS,), soft=False)
    assert one.follower.acknowledged(number, PATIENCE).late == ()
    assert bodies(beside) == [None]
    two.follower.stop()
    beside.follower.tick()
    assert beside.follower.follows
    number = one.follower.purge((SPORT,), soft=False)
    assert one.follower.acknowledged(number, PATIENCE).late == ()
    beside.follower.stop()


def test_the_follower_ends_with_its_store(make_host: MakeHost) -> None:
    host = make_host("alone")
    host.follower.tick()
    thread = host.follower._thread
    assert thread is not None
    del host
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_without_threads_a_tick_reads(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = hosts
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    fill(two)
    one.follower.purge((NEWS,), soft=False)
    two.follower.tick()
    assert bodies(two) == [None]
    assert "XREAD" not in two.link.sent


def _no_thread(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_the_host_knows_that_the_server_is_down_and_nobody_else_tries(hosts: list[Host], caplog: pytest.LogCaptureFixture) -> None:
    _, two = hosts
    two.link.is_cut = True
    with caplog.at_level(logging.WARNING):
        pauses = [two.follower.step(0.0)]
        for _ in range(8):
            assert two.known.is_down
            pauses.append(two.follower.step(pauses[-1]))
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert pauses[-1] == 2.0
    assert caplog.text.count("can't be reached") == 1
    two.link.is_cut = False
    assert two.follower.step(2.0) == 0.0
    assert not two.known.is_down


def test_a_process_catches_up_before_its_first_answer(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    one, two = hosts
    fill(two)
    one.follower.purge((NEWS,), soft=False)
    first = Host(tmp_path / "two", server)
    first.known.open()
    first.known._header[1] = 0
    first.follower.catch_up()
    assert bodies(first) == [None]
    first.link.sent.clear()
    first.follower.catch_up()
    assert first.link.sent == []


def test_a_killed_server_with_its_data_is_read_on(server: Server, hosts: list[Host]) -> None:
    one, two = hosts
    fill(one, two)
    two.follower.tick()
    server.save()
    server.restart()
    number = one.follower.purge((NEWS,), soft=False)
    wait_until(lambda: two.known.applied >= number)
    assert bodies(one, two) == [None, None]
    two.follower.stop()


def test_what_the_return_of_a_server_makes_stale_is_locked_at_the_server(
    server: Server, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hosts refresh it once together: none of them counts as alone any more when it becomes stale."""
    one, two = hosts
    fill(one, two)
    server.lose()
    one.known.note_down(PATIENCE)
    alone: list[bool] = []
    apply = one.files.apply_purges

    def applying(purges: Sequence[Any]) -> None:
        alone.append(one.known.is_down)
        apply(purges)

    monkeypatch.setattr(one.files, "apply_purges", applying)
    one.read()
    assert fresh_body_in(one.files) is None
    assert alone[-1:] == [False]


def test_an_empty_server_after_a_kill(server: Server, hosts: list[Host]) -> None:
    one, two = hosts
    fill(one, two)
    two.follower.tick()
    server.lose()
    wait_until(lambda: fresh_body_in(two.files) is None)
    one.read()
    assert [fresh_body_in(one.files), *bodies(one, two)] == [None, OLD, OLD]
    two.follower.stop()


def test_changes_that_another_thread_reads_while_slots_are_checked_are_checked_later(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge reads the logs in the thread of its request."""
    _, two = hosts
    two.read()
    follower, checked = two.follower, []

    def heed_more(slot: int) -> int:
        checked.append(slot)
        if len(checked) == 1:
            follower._heed_each([EntryChange("e" * 40, "00000000000000ee", "another host")])
        return 0

    follower._heed_each([EntryChange("a" * 40, "00000000000000aa", "another host")])
    monkeypatch.setattr(two.known, "serial", heed_more)
    follower._look_at_slots()
    follower._look_at_slots()
    assert {slot_of("a" * 40), slot_of("e" * 40)} <= set(checked)
