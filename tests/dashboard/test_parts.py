"""What the dashboard makes of entries and numbers, before any of it is a page.

Covers ``dashboard.charts``, ``dashboard.health``, ``dashboard.store_scan`` and ``dashboard.windows_bar``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import Entry, StaleCache
from flask_stalecache.core.model.inputs import NO_NAMES
from flask_stalecache.core.model.note import Note
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.rules.serving import PLAIN
from flask_stalecache.dashboard.charts import NOTHING, STATUSES, IntervalCounts, Moment, charts, moment_of, rows
from flask_stalecache.dashboard.data import DashboardData
from flask_stalecache.dashboard.entry_view import card_of, line_of
from flask_stalecache.dashboard.health import Health, Level, health
from flask_stalecache.dashboard.overview import overview
from flask_stalecache.dashboard.store_scan import search, survey
from flask_stalecache.dashboard.windows_bar import bar_of
from flask_stalecache.frontends.memoize.handler import Suspended
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stores.base import Stored

NOW = 1_800_000_000.0


def entry(max_age: float = 60, swr: float = 600, sie: float = 86400, **changes: Any) -> Entry:
    known: dict[str, Any] = {
        "key": "the key",
        "serial": "1",
        "names": ("all", "endpoint:news", "path:/news", "url:http://shop.example/news", "tag:a", "tag:b"),
        "seq": 1,
        "version": "",
        "started": NOW - 0.2,
        "answered": NOW,
        "windows": Windows(max_age, swr, sie),
        "never_stale": False,
        "shared": False,
        "absent": NO_NAMES,
        "varied": (),
        "status": 200,
        "headers": (("Content-Type", "text/html"),),
        "body": b"",
        "recipe": {},
    }
    return Entry(**{**known, **changes})


def stored(number: int = 1, note: Note | None = None, **changes: Any) -> Stored:
    return Stored(entry(key=f"key {number}", **changes), 100 * number, 4096 * number, NOW + number, note or Note())


# -- the bar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "changes", "states"),
    [
        ((60, 600, 86400), {}, ["fresh", "stale", "if-error", "expired"]),
        ((60, 600, 60), {}, ["fresh", "stale", "expired"]),
        ((60, 0, 600), {}, ["fresh", "if-error", "expired"]),
        ((0, 600, 0), {}, ["stale", "expired"]),
        ((60, 600, 86400), {"never_stale": True}, ["fresh", "expired"]),
        ((0, 0, 0), {}, ["expired"]),
    ],
)
def test_the_bar_has_the_windows_that_there_are(windows: tuple[float, ...], changes: Any, states: list[str]) -> None:
    bar = bar_of(entry(*windows, **changes), NOW)
    assert [part.state.value for part in bar.parts] == states
    assert sum(part.width for part in bar.parts) == pytest.approx(100, abs=0.1)
    assert bar.parts[-1].lasts == "", "the last one has no end"


@pytest.mark.parametrize("age", [-5, 0, 30, 59.9, 60, 300, 660, 5000, 86459, 86461, 10**7, 10**12])
def test_now_is_in_the_part_that_the_entry_is_in(age: float) -> None:
    one = entry()
    bar, now = bar_of(one, NOW + age), NOW + age
    inside = [part.state.value for part in bar.parts if part.left <= bar.now <= part.left + part.width]
    assert line_of(Stored(one, 1, 1, NOW, Note()), now, PLAIN, "").state.value in inside
    assert 0 <= bar.now < 100


# -- entries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "here", "title"),
    [
        ({}, "", "http://shop.example/news"),
        ({}, "http://shop.example", "/news"),
        ({"names": ("all", "url:http://shop.example/caf\xc3\xa9?q=%20")}, "", "http://shop.example/caf%C3%A9?q=%20"),
        (
            {"recipe": {"function": "shop.rates", "arguments": {"args": ["EUR"], "kwargs": {"day": 1}}}},
            "",
            "shop.rates('EUR', day=1)",
        ),
        ({"names": ("all",)}, "", "key 1"),
    ],
)
def test_what_an_entry_is_called(changes: Any, here: str, title: str) -> None:
    assert line_of(stored(**changes), NOW, PLAIN, here).title == title


def test_a_card_says_what_is_known_and_why_it_would_be_served() -> None:
    note = Note(written=NOW, failures=3, retry_at=NOW + 100)
    card = card_of(stored(note=note), NOW + 70, PLAIN, pending=False)
    facts = dict(card.facts)
    assert (card.state.value, card.status) == ("stale", "UPDATING")
    assert "the origin failed 3 times in a row" in card.why
    assert facts["Tags"] == "a, b"
    assert (facts["Failures"], facts["Next try"], facts["Made in"]) == ("3 in a row", "in 30 s", "0.2 s")
    assert "Version" not in facts, "what there is not is left out"


# -- looking through the store ---------------------------------------------------------------------------------------


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the monotonic clock advance by 10 ms whenever it is read."""
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 100)


def many(count: int, **changes: Any) -> Iterator[Stored]:
    return (stored(number, **changes) for number in range(count))


def test_a_survey_knows_the_biggest_the_latest_and_what_is_left_alone() -> None:
    failing = [stored(n, Note(written=NOW, failures=1, retry_at=NOW + 9 - n % 5)) for n in (5, 6)]
    seen = survey(iter([*many(1000), *failing]), NOW, PLAIN)
    assert (seen.looked, seen.is_cut) == (1002, False)
    assert [each.entry.key for each in seen.biggest[:2]] == ["key 999", "key 998"]
    assert [each.entry.key for each in seen.latest[:2]] == ["key 999", "key 998"]
    assert [each.entry.key for each in seen.left_alone] == ["key 6", "key 5"]
    assert {state.value: count for state, count in seen.states.items()} == {"fresh": 1002}


@pytest.mark.usefixtures("ticking")
def test_a_survey_ends_in_time_and_says_so() -> None:
    seen = survey(many(10**6), NOW, PLAIN, longest=0.2)
    assert seen.is_cut
    assert seen.looked <= 20


@pytest.mark.usefixtures("ticking")
def test_a_search_ends_in_time_and_says_so() -> None:
    found = search(many(10**6), lambda one: one.key == "key 3", 0.2, 5)
    assert ([each.entry.key for each in found.entries], found.is_cut) == (["key 3"], True)


def test_a_search_ends_when_it_has_found_enough() -> None:
    found = search(many(10**6), lambda one: True, 10**6, 5)
    assert (len(found.entries), found.is_cut) == (5, True)
    assert found.looked < 1000


# -- the last hour ---------------------------------------------------------------------------------------------------


def moment(
    at: float, calls: int = 0, failures: int = 0, name: str = "shop.rates", kind: str = "functions", **requests: int
) -> Moment:
    line = IntervalCounts(calls, failures, {0.001: 5, 0.5: 5}, {1.0: calls})
    lines = {(kind, name): line} if calls or failures else {}
    return Moment(NOW + at, 15.0, requests, failures, lines, line if calls else NOTHING)


def test_what_the_charts_draw() -> None:
    moments = [moment(0, HIT=30, STALE=15), moment(15, 4, 1, HIT=60)]
    drawn = charts(moments, "functions/shop.rates", 0)
    assert drawn["at"] == [NOW, NOW + 15]
    assert (drawn["rates"]["HIT"], drawn["rates"]["STALE"], drawn["rates"]["MISS"]) == ([2, 4], [1, 0], [0, 0])
    assert drawn["latency"]["origin50"] == [None, 0.5]
    assert drawn["latency"]["served50"] == [None, 0.001]
    assert charts(moments, "", NOW)["at"] == [NOW + 15], "what was drawn is not sent again"
    assert charts(moments, "hosts/of nobody", 0)["latency"]["served50"] == [None, None]


def test_the_table_has_five_minutes_a_row_and_the_last_first() -> None:
    first, second = rows([moment(0, HIT=30), moment(15, 4, 1, HIT=60), moment(300, HIT=7)], "")
    assert (first.clock, second.clock) == ("08:05", "08:00")
    assert (first.counts[0], second.counts[0]) == ("7", "90")
    assert (first.failures, second.failures) == ("0", "1")
    assert len(second.latencies) == 4


# -- health ----------------------------------------------------------------------------------------------------------


def numbers(**changes: Any) -> dict[str, Any]:
    return {
        "requests": dict.fromkeys(STATUSES, 0),
        "refreshes": {
            "handed_over": 0, "returned": 0, "queued": 0, "pending": 0, "done": 0, "failed": 0, "dropped": 0, "overdue": 0,
            "seconds": 0.0,
        },
        "scans": {"running": 0, "waiting": 0, "found": 0, "done": 0, "failed": 0, "skipped": 0, "refused": 0},
        "evictions": {"size": 0, "inactive": 0, "purged": 0, "broken": 0, "notes": 0},
        "purges": 0, "store_failures": 0, "broken_entries": 0,
        "entries": 3, "bytes": 50, "max_size": 100, "workers": 2, "since": NOW,
        "endpoints": {}, "functions": {}, "hosts": {},
        **changes,
    }  # fmt: skip


FULL: dict[str, Any] = {"bytes": 95, "evictions": {"size": 7, "inactive": 0, "purged": 0, "broken": 0, "notes": 0}}


@pytest.mark.parametrize(
    ("moments", "suspended", "stats", "level", "says"),
    [
        ([], [], {}, "good", "All is well"),
        ([moment(0, 4)], [], {}, "good", "All is well"),
        ([moment(0, 4, 4)], [], {}, "bad", "shop.rates fails."),
        ([moment(0, 4, 4), moment(15, HIT=3)], [], {}, "bad", "shop.rates fails."),
        ([moment(0, 4, 4), moment(15, 1, 0)], [], {}, "good", "All is well"),
        ([moment(0, 4, 4), moment(15, 4, 1)], [], {}, "notice", "shop.rates (fetch function) fails now and then: 5 of 8 calls"),
        ([moment(0, 4, 4, "api.example", "hosts")], [], {}, "bad", "api.example fails."),
        ([moment(0, 4, 1, "", "endpoints")], [], {}, "notice", "The app (endpoint) fails now and then: 1 of 4 calls"),
        ([moment(0, 4, 1, "api.example", "hosts")], [], {}, "notice", "api.example (third party) fails now and then"),
        # The call was counted in the sample before, its failure in this one.
        ([moment(0, 0, 1)], [], {}, "bad", "shop.rates fails."),
        ([moment(0, 4, 4), moment(4000, HIT=3)], [], {}, "good", "All is well"),
        ([moment(0, 4, 4), moment(1, 4, 4, "other")], [], {}, "bad", "other and 1 more fail."),
        ([moment(0, 4, 4)], [Suspended("shop.rates", 6, 3.0)], {}, "bad", "shop.rates fails."),
        ([], [Suspended("shop.rates", 6, 3.0)], {}, "bad", "shop.rates fails."),
        ([], [], FULL, "notice", "The store is 95.0 % full: 7 entries were evicted"),
        ([], [], {"bytes": 95}, "good", "All is well"),
        ([], [], {"refreshes": {"pending": 1001}}, "notice", "Refreshes wait for others: 1,001 of 2,000 places are taken"),
        ([], [], {"refreshes": {"pending": 999}}, "good", "All is well"),
    ],
)
def test_health(moments: list[Moment], suspended: list[Suspended], stats: Any, level: str, says: str) -> None:
    found = health(numbers(**stats), moments, suspended, 300, 1000)
    assert (found.level.value, found.headline[: len(says)]) == (level, says)


def test_a_suspended_function_is_told_once() -> None:
    found = health(numbers(), [moment(0, 4, 4)], [Suspended("shop.rates", 6, 3.0)], 300, 1000)
    assert [trouble.says for trouble in found.problems] == ["is suspended after 6 failures in a row; tried again in 3 s."]


def test_what_has_no_series_of_its_own_is_shown_with_all_endpoints() -> None:
    shown = overview(numbers(), [], Health(Level.GOOD, "", []), NOW, "functions/of.nobody")
    assert (shown.series, shown.series_label, shown.from_store) == ("", "all endpoints", "\N{EN DASH}")
    assert math.isclose(sum(share.width for share in shown.shares), 0)
    assert [tile.figure for tile in shown.tiles if tile.title == "Size"] == ["50 bytes"]


def sample(at: float, calls: int = 1) -> dict[str, Any]:
    series = {
        "origin_calls": calls,
        "origin_failures": 0,
        "served": {"buckets": {"0.001": 2, "+Inf": 1}},
        "origin": {"buckets": {"0.001": calls, "+Inf": 0}},
    }
    return {
        "at": at, "seconds": 15.0, "requests": {"HIT": 3}, "origin_failures": 0,
        "endpoints": {"news": series, "front": series}, "functions": {}, "hosts": {},
    }  # fmt: skip


def test_a_sample_is_added_up_over_endpoints_once() -> None:
    one = moment_of(sample(NOW))
    assert one.endpoints == IntervalCounts(2, 0, {0.001: 4, math.inf: 2}, {0.001: 2})
    assert one.lines["endpoints", "news"] == IntervalCounts(1, 0, {0.001: 2, math.inf: 1}, {0.001: 1})


def test_what_was_read_of_the_history_once_is_not_read_again(
    make_app: Callable[..., tuple[Flask, StaleCache]], clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _cache = make_app()
    desk, taken, asked = DashboardData(app, ()), [sample(NOW - 5000), sample(NOW - 30)], []

    def history(registry: Registry, since: float = 0.0) -> list[Any]:
        asked.append(since)
        return [each for each in taken if each["at"] > max(since, time.time() - 3600)]

    monkeypatch.setattr(Registry, "history", history)

    def shown() -> list[float]:
        with app.app_context():
            return [at - NOW for at in desk.now("", 0)[1]["at"]]

    assert shown() == [-30]
    taken.append(sample(NOW - 15))
    assert shown() == [-30, -15]
    assert asked == [0.0, NOW - 30]
    clock.shift(-1000)
    # The clock was ahead until now. The samples that were read then are from the future, and must not hide the new ones.
    taken[:] = [sample(NOW - 1010)]
    assert shown() == [-1010]
    clock.shift(5000)
    assert shown() == []


def test_what_is_rare_is_told_only_if_it_happened() -> None:
    rare = numbers(store_failures=2, broken_entries=1)
    rare["refreshes"] |= {"done": 4, "overdue": 3, "seconds": 2.0}
    notes = {
        name: {tile.title: tile.note for tile in overview(stats, [], Health(Level.GOOD, "", []), NOW, "").tiles}
        for name, stats in (("rare", rare), ("usual", numbers()))
    }
    assert (notes["usual"]["Size"], notes["rare"]["Size"]) == ("3 entries", "3 entries, 2 failures of the store, 1 broken")
    assert notes["usual"]["Refreshes"] == "0 done, 0 failed, 0 dropped"
    assert notes["rare"]["Refreshes"] == "4 done, 0 failed, 0 dropped, 3 given up, 500 ms each"
