"""Two hosts with a real server between them against a simple model: purges, pages passed on, failovers, lost memory, trimmed logs.

No answer of a host is older than the last purge that it has heard of. A host that reads hears of all that the server has, or was
told again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flask_stalecache import StoreError
from flask_stalecache.core.model.entry import Entry
from support.engine import make_entry
from support.shared_hosts import Host, Server

pytestmark = pytest.mark.server

PAGES = {"a": ("all", "tag:x"), "b": ("all", "tag:x", "tag:y"), "c": ("all", "tag:y")}
PREFIX = "stalecache:{test}:"
PLAYED: Counter[str] = Counter()
SERVERS: list[Server] = []

which, keys, kinds = st.integers(0, 1), st.sampled_from(sorted(PAGES)), st.booleans()
names = st.sampled_from(["all", "tag:x", "tag:y", "tag:z"])


@dataclass(frozen=True)
class Event:
    """One purge.

    :ivar number: its place in the order of all events.
    """

    number: int
    name: str
    soft: bool


class Hosts(RuleBasedStateMachine):
    """Each rule is what somebody does on one of the hosts, or what happens to the server."""

    @initialize()
    def open(self) -> None:
        self.server = SERVERS[0]
        self.client = self.server.client()
        self.client.flushall()
        self.place = Path(tempfile.mkdtemp())
        self.hosts = [self._host(number) for number in (0, 1)]
        self.heard = [set[Event](), set[Event]()]
        #: What each host would tell the server again.
        self.kept = [set[Event](), set[Event]()]
        self.at_server: set[Event] = set()
        self.begun: dict[str, int] = {}
        self.events = 0
        self.saved: tuple[dict[str, bytes], set[Event]] = ({}, set())
        for number in (0, 1):
            self.hosts[number].read()

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def _host(self, number: int) -> Host:
        return Host(self.place / str(number), self.server)

    # -- pages ---------------------------------------------------------------------------------------------------

    @rule(host=which, key=keys)
    def fill(self, host: int, key: str) -> None:
        self.events += 1
        files = self.hosts[host].files
        entry = make_entry(key, b"", names=PAGES[key], seq=files.seq(), serial=f"{self.events}", windows=(600, 600, 600))
        self.begun[entry.serial] = self.events
        if files.write(entry):
            PLAYED["filled"] += 1

    @rule(host=which, key=keys)
    def pass_on(self, host: int, key: str) -> None:
        """A page of the other host gets here, after this one has read what that had read."""
        if not self._reads(host):
            return
        entry = self.hosts[1 - host].files.load(key).entry
        if entry is not None and self.hosts[host].files.write(entry):
            PLAYED["passed on"] += 1
        self.look(host, True)

    @rule(host=which, load=kinds)
    def look(self, host: int, load: bool) -> None:
        files = self.hosts[host].files
        for key in PAGES:
            entry = ((None if load else files.lookup(key)) or files.load(key)).entry
            if entry is not None:
                self._check(host, entry)

    def _check(self, host: int, entry: Entry) -> None:
        later = {each for each in self.heard[host] if each.name in entry.names and each.number > self.begun[entry.serial]}
        assert not any(not each.soft for each in later)
        if later:
            assert not entry.is_fresh(time.time())
        PLAYED["seen"] += 1

    # -- purges --------------------------------------------------------------------------------------------------

    @rule(host=which, name=names, soft=kinds, waits=kinds)
    def purge(self, host: int, name: str, soft: bool, waits: bool) -> None:
        self.events += 1
        event, mine = Event(self.events, name, soft), self.hosts[host]
        try:
            mine.follower.purge((name,), soft=soft)
        except StoreError:
            mine.purge_alone(name, soft=soft)
            self.heard[host].add(event)
            self.kept[host].add(event)
            PLAYED["purged alone"] += 1
            return
        self.at_server.add(event)
        self.heard[host].add(event)
        self.kept[host].add(event)
        PLAYED["purged"] += 1
        if waits:
            self._reads(1 - host)
        for number in (0, 1):
            self.look(number, False)

    @rule(host=which)
    def read(self, host: int) -> None:
        self._reads(host)
        self.look(host, False)

    def _reads(self, host: int) -> bool:
        before = self.hosts[host].files.seq()
        try:
            self.hosts[host].read()
        except StoreError:
            return False
        self.at_server |= self.kept[host]
        self.heard[host] |= self.at_server
        self.kept[host] |= self.at_server
        PLAYED["heard"] += self.hosts[host].files.seq() != before
        return True

    # -- what happens to hosts and server ------------------------------------------------------------------------

    @rule(host=which, is_cut=kinds)
    def cut_off(self, host: int, is_cut: bool) -> None:
        self.hosts[host].link.is_cut = is_cut
        if is_cut:
            self.hosts[host].follower.step(0.0)

    @rule(host=which, knows=kinds)
    def restart(self, host: int, knows: bool) -> None:
        if not knows:
            # It does not know any more what it has told: if the server has lost it too, nobody else hears of it.
            self.kept[host] = set()
            (self.hosts[host].directory / "known-1").unlink(missing_ok=True)
        self.hosts[host] = self._host(host)

    @rule()
    def save(self) -> None:
        found = {kind: self.client.dump(PREFIX + kind) for kind in "mPC"}
        self.saved = {kind: data for kind, data in found.items() if data is not None}, set(self.at_server)

    @rule()
    def fail_over(self) -> None:
        """The server goes on from an older state."""
        if self.saved[0]:
            self.client.flushall()
            for kind, data in self.saved[0].items():
                self.client.restore(PREFIX + kind, 0, data)
            self.at_server = set(self.saved[1])
            PLAYED["failed over"] += 1

    @rule()
    def lose_memory(self) -> None:
        self.client.flushall()
        self.at_server, self.saved = set(), ({}, set())
        PLAYED["lost memory"] += 1

    @rule(host=which)
    def trim(self, host: int) -> None:
        self.client.xtrim(f"{PREFIX}P", maxlen=1, approximate=False)
        self.client.xtrim(f"{PREFIX}C", maxlen=1, approximate=False)


@pytest.mark.soak
def test_two_hosts_and_a_simple_model_agree(long_server: Server, soak: Callable[[int, int], int]) -> None:
    PLAYED.clear()
    SERVERS[:] = [long_server]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Hosts, settings=settings(max_examples=soak(300, 12), stateful_step_count=40, derandomize=soak(0, 1) == 1)
    )
    wanted = ("filled", "passed on", "seen", "purged", "heard", "purged alone", "failed over", "lost memory")[: soak(8, 4)]
    assert all(PLAYED[what] for what in wanted), PLAYED
