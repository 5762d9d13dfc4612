"""What a server has lost is said again by those hosts that know it, and undoes nothing that was made since."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.addressing.purge_names import EVERYTHING
from flask_stalecache.stores.shared.known import local_number
from support.purging import NEW, NEWS, OLD, SPORT, begun, body_in, fresh_body_in
from support.shared_hosts import Host, Server

pytestmark = pytest.mark.server

MakeHost = Callable[[str], Host]


def fill(*hosts: Host, body: bytes = OLD) -> None:
    for host in hosts:
        assert host.files.write(begun(host.files, body))


def bodies(*hosts: Host) -> list[bytes | None]:
    return [body_in(host.files) for host in hosts]


def test_a_host_that_was_away_for_hours_hears_of_purges_that_the_server_has_lost(
    hosts: list[Host], server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = hosts
    fill(one, two)
    one.follower.purge((NEWS,), soft=False)
    one.known.has_heard()
    server.client().flushall()
    with time_machine.travel(time.time() + 6 * 3600, tick=False), caplog.at_level(logging.WARNING):
        for host in (two, one, two):
            host.read()
    assert bodies(one, two) == [None, None]
    assert caplog.text.count("told again of 1 hard purges") == 1


def test_what_was_made_since_a_purge_outlives_its_repetition(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    one.follower.purge((NEWS,), soft=False)
    two.read()
    fill(one, two, body=NEW)
    server.client().flushall()
    for host in (two, one, two, one):
        host.read()
    assert bodies(one, two) == [NEW, NEW]
    # All hosts know it, so it is said once.
    assert [entry for entry in server.client().xrange("stalecache:{test}:P") if b"w" in entry[1]][1:] == []


def test_a_host_with_a_new_table_says_what_its_files_know(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    one, two = hosts
    fill(two)
    one.follower.purge((NEWS,), soft=False)
    (one.directory / "known-1").unlink()
    server.client().flushall()
    two.read()
    again = Host(tmp_path / "one", server)
    again.read()
    two.read()
    assert bodies(two) == [None]
    assert again.known.applied > 0


def test_after_a_start_of_all_machines_all_freshness_ends(hosts: list[Host], server: Server, tmp_path: Path) -> None:
    fill(*hosts)
    hosts[0].follower.purge((SPORT,), soft=True)
    for host in hosts:
        (host.directory / "known-1").unlink()
    server.client().flushall()
    again = [Host(tmp_path / name, server) for name in ("one", "two")]
    for host in again:
        host.read()
    assert [fresh_body_in(host.files) for host in again] == [None, None]
    assert bodies(*again) == [OLD, OLD]


def test_merged_purges_are_one_of_everything_for_who_was_away(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(two)
    one.files._records.most = 4
    for number in range(12):
        one.files._records._writes_left = 0
        one.follower.purge((f"tag:{number}",), soft=False)
    one.follower.purge((NEWS,), soft=False)
    assert one.files.hard_purges()[1] > 0
    server.client().flushall()
    fill(one, body=NEW)
    for host in (two, one, two, one):
        host.read()
    assert bodies(one, two) == [NEW, None]


def test_entries_of_an_earlier_generation_count_as_none(hosts: list[Host]) -> None:
    one, _ = hosts
    generation = int(one.logs.read("host", 0, 0, notes=False).generation)
    assert one.files.seq() > local_number(generation)
    assert one.known.applied >= generation


def test_a_lost_purge_of_everything_is_said_again(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    fill(one, two)
    one.follower.purge((EVERYTHING,), soft=False)
    server.client().flushall()
    for host in (two, one, two):
        host.read()
    assert bodies(one, two) == [None, None]
