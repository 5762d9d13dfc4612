"""An hour of site life in fast motion: two workers, visitors, members, an editor, deploys and outages of a third party."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import workers
from support.soak.clock import SharedClock
from support.soak.figures import COLUMNS, MIB
from support.soak.hour import HOUR, Seen, live
from support.soak.ledger import Ledger
from support.soak.storm import swept

#: Seconds by which the shared clock moves in a real second.
SPEED = 20


@pytest.mark.soak
def test_an_hour_of_a_site(
    directory: Path, tmp_path: Path, soak: Callable[[int, int], int], figures: Callable[[str, list[list[object]]], None]
) -> None:
    hour = soak(HOUR, SPEED)
    ledger = Ledger.make(tmp_path / "ledger")
    with workers(2) as pair:
        SharedClock.make(tmp_path / "clock", SPEED)
        for number, worker in enumerate(pair):
            worker.start(live, directory, ledger.file, tmp_path / "clock", number, hour)
        seen: list[Seen] = [worker.result(hour / SPEED + 300) for worker in pair]
    left = swept(directory)
    words, origins = (sum((getattr(one, name) for one in seen), Counter[str]()) for name in ("words", "origins"))
    visits, wrong = sum(words.values()) - words["down"], [wrong for one in seen for wrong in one.wrong]
    rows = [row for number, one in enumerate(seen, 1) for row in one.samples.rows(f"worker {number}")]
    figures("an hour of site life", [["process", "when", *COLUMNS], *rows, ["days later", "", *left.row()]])
    served = sum(words[word] for word in ("HIT", "STALE", "UPDATING"))
    more = [["answers", visits], ["served at once", f"{served / visits:.1%}"], *words.most_common()]
    calls = [[f"calls of {name}", count] for name, count in origins.most_common()]
    oldest = [["purges", sum(one.purges for one in seen)], ["oldest s", f"{max(one.oldest for one in seen):.0f}"]]
    figures("", [*more, *calls, *oldest, ["wrong answers", len(wrong)]])
    assert wrong == []
    assert left.unfinished == 0
    if hour == HOUR:
        assert {"HIT", "STALE", "UPDATING", "EXPIRED", "MISS", "BYPASS"} <= words.keys()
        for one in seen:
            one.samples.assert_flat(memory=16 * MIB)
