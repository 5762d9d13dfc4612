"""Workers and masters of all servers are killed under load: nothing is wrong, stuck, left over, or grows."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.soak.figures import COLUMNS, MIB
from support.soak.kills import SERVERS, VISITORS, Crowd, Victim
from support.soak.ledger import Ledger
from support.soak.storm import swept

#: 301 kills over all servers. uWSGI and granian take seconds to start a worker again.
KILLS, SLOW = 53, {"uwsgi": 14, "granian": 22}
#: Out of this many kills, one is of the master.
MASTERS = 7
KINDS = list(SERVERS) if os.environ.get("STALECACHE_SOAK") == "1" else ["gthread"]


@pytest.mark.server
@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
def test_kills_under_load(
    name: str, tmp_path: Path, soak: Callable[[int, int], int], figures: Callable[[str, list[list[object]]], None]
) -> None:
    dice, ledger = random.Random(name), Ledger.make(tmp_path / "ledger")
    victim = Victim(name, tmp_path, ledger)
    crowd, renewals, masters, kills = Crowd(victim, ledger), [], 0, soak(SLOW.get(name, KILLS), 1)
    try:
        with crowd.looking():
            crowd.renewal()
            for number in range(kills):
                time.sleep(dice.uniform(0, 0.1))
                with crowd.while_killing():
                    if number % MASTERS == MASTERS - 1:
                        masters += 1
                        victim.kill_master(alone=masters % 2 == 0)
                    else:
                        victim.kill_worker(dice)
                renewals.append(crowd.renewal())
                crowd.outcome.samples.take(victim.pids, victim.directory)
    finally:
        victim.stop()
    left, outcome, done = swept(victim.directory), crowd.outcome, crowd.outcome.done
    answers = sum(count for word, count in done.items() if word not in ("purges", "broken off"))
    head = ["server", "when", *COLUMNS]
    figures(f"{kills} kills of {name}", [head, *outcome.samples.rows(name), [name, "after a sweep", *left.row()]])
    rows = [["kills", kills], ["of masters", masters], ["answers", answers], *done.most_common()]
    figures("", [*rows, ["slowest renewal s", f"{max(renewals):.2f}"], ["wrong answers", outcome.wrongs]])
    assert outcome.wrong == []
    assert left.unfinished == 0, [*victim.directory.rglob("*.tmp")]
    # The last one is made with the first sample of the history, within 15 seconds; a run of one kill may be shorter.
    assert left.locks <= len(["purge.lock", "sweep.lock", "stats/history.lock"])
    if kills > 1:
        # A worker of gevent has a connection of each visitor at the moments when it is the only one.
        outcome.samples.assert_flat(memory=20 * MIB, descriptors=16 + VISITORS)
