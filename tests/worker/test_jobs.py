"""The refreshes of a worker that wait and run."""

from __future__ import annotations

import math

from flask_stalecache.core.packets.packets import Packet
from flask_stalecache.core.packets.refresh_data import OriginKind
from flask_stalecache.worker.jobs import Jobs


def packet(number: int, *, group: int = 1, rank: float = 0.0, serial: int = 1) -> Packet:
    return Packet(OriginKind.PAGE, f"{number:040x}", f"{serial:016x}", group, rank)


def test_a_key_waits_and_runs_once() -> None:
    jobs = Jobs(10)
    for _ in range(3):
        jobs.push(packet(1), 5.0)
    assert len(jobs) == 1
    taken = jobs.pop(6.0, 77)
    assert taken == packet(1)
    assert (len(jobs), jobs.running[packet(1).address].pid) == (0, 77)
    jobs.push(packet(1), 7.0)
    assert len(jobs) == 0
    assert jobs.pop(7.0, 78) is None
    jobs.end(packet(1).address, 8.0)
    jobs.push(packet(1), 8.0)
    assert jobs.pop(8.0, 77) == packet(1)


def test_a_key_waits_once_also_if_its_endpoint_has_changed() -> None:
    jobs = Jobs(10)
    jobs.push(packet(1, group=1), 5.0)
    jobs.push(packet(1, group=2), 6.0)
    assert len(jobs) == 1
    assert jobs.pop(7.0, 77) == packet(1, group=2)
    assert jobs.pop(7.0, 78) is None


def test_endpoints_take_turns_and_what_is_asked_for_most_comes_first() -> None:
    jobs = Jobs(1000)
    for number in range(100):
        jobs.push(packet(number, group=1, rank=1.0), 0.0)
    jobs.push(packet(500, group=2), 0.0)
    jobs.push(packet(99, group=1, rank=50.0), 0.0)
    first = [jobs.pop(0.0, 1) for _ in range(2)]
    assert [each.address for each in first if each] == [packet(99).address, packet(500).address]


def test_one_that_waits_is_asked_for_more() -> None:
    jobs = Jobs(1000)
    jobs.push(packet(1, rank=3.0), 0.0)
    jobs.push(packet(2, rank=3.0), 0.0)
    jobs.push(packet(1, rank=3.0), 0.0)
    assert jobs.pop(0.0, 1) == packet(1, rank=3.0)


def test_a_flood_is_bounded() -> None:
    jobs, told = Jobs(1000), []
    for number in range(20_000):
        told.append(jobs.push(packet(number, group=number % 7, rank=float(number % 13)), float(number)))
    assert len(jobs) == len(jobs._packets) == len(jobs._since) == 1000
    assert jobs.dropped == len(set(told) - {None}) == 19_000
    taken = [jobs.pop(0.0, 1) for _ in range(1001)]
    assert (taken[-1], len(jobs), len(jobs._packets)) == (None, 0, 0)
    # What was asked for most has stayed.
    assert {each.rank for each in taken if each} == {12.0}


def test_the_one_that_is_dropped_is_told() -> None:
    jobs = Jobs(1)
    assert jobs.push(packet(1, rank=5.0), 0.0) is None
    assert jobs.push(packet(2, rank=1.0), 0.0) == packet(2).address
    assert jobs.push(packet(1, rank=5.0), 0.0) is None
    assert jobs.push(packet(3, rank=9.0), 0.0) == packet(1).address
    assert jobs.pop(0.0, 1) == packet(3, rank=9.0)
    # A refresh that has waited until its key was free, and then finds the queue full.
    jobs.push(packet(3)._replace(is_forced=True, rank=-math.inf), 0.0)
    jobs.push(packet(4), 0.0)
    assert jobs.end(packet(3).address, 1.0) == packet(3).address


def test_what_a_dead_child_ran_is_forgotten() -> None:
    jobs = Jobs(10)
    for number in range(4):
        jobs.push(packet(number), 0.0)
    for pid in (1, 1, 2):
        jobs.pop(0.0, pid)
    lost = jobs.lost(1)
    for address in lost:
        jobs.end(address, 1.0)
    assert (len(lost), jobs.lost(1), len(jobs.running)) == (2, [], 1)


def test_how_long_the_oldest_has_waited() -> None:
    jobs = Jobs(10)
    assert jobs.longest_wait(5.0) == 0.0
    jobs.push(packet(1), 10.0)
    jobs.push(packet(2), 11.0)
    jobs.push(packet(1), 12.0)
    assert jobs.longest_wait(15.0) == 5.0
    jobs.clear()
    assert (jobs.longest_wait(15.0), len(jobs), jobs.dropped) == (0.0, 0, 2)


def test_a_newer_entry_of_a_key_that_runs_may_wait() -> None:
    jobs = Jobs(10)
    jobs.push(packet(1), 0.0)
    jobs.pop(0.0, 1)
    jobs.push(packet(1, serial=2, rank=-math.inf), 0.0)
    # A free child does not take it while the key runs, and it is not lost.
    assert (len(jobs), jobs.pop(0.0, 2)) == (0, None)
    jobs.end(packet(1).address, 8.0)
    assert jobs.pop(0.0, 1) == packet(1, serial=2, rank=-math.inf)


def test_the_newest_entry_of_a_key_that_runs_waits_and_stays_forced() -> None:
    jobs = Jobs(10)
    jobs.push(packet(1), 0.0)
    jobs.pop(0.0, 1)
    jobs.push(packet(1, serial=2)._replace(is_forced=True), 0.0)
    jobs.push(packet(1, serial=3), 0.0)
    jobs.end(packet(1).address, 8.0)
    assert jobs.pop(0.0, 1) == packet(1, serial=3)._replace(is_forced=True)
    assert jobs.pop(0.0, 1) is None


def test_what_is_forced_stays_so_if_it_is_asked_for_again() -> None:
    jobs = Jobs(10)
    jobs.push(packet(1)._replace(is_forced=True), 0.0)
    jobs.push(packet(1, rank=5.0), 0.0)
    assert jobs.pop(0.0, 1) == packet(1, rank=5.0)._replace(is_forced=True)


def test_what_is_forced_begins_after_what_runs() -> None:
    """The refresh that runs may have begun before the purge that the forced one is for."""
    jobs = Jobs(10)
    jobs.push(packet(1), 0.0)
    jobs.pop(0.0, 1)
    jobs.push(packet(1)._replace(is_forced=True), 1.0)
    assert (len(jobs), jobs.pop(1.0, 1)) == (0, None)
    jobs.end(packet(1).address, 2.0)
    assert jobs.pop(2.0, 1) == packet(1)._replace(is_forced=True)
