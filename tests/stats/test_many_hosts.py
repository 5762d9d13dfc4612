"""Adding up the statistics of hosts, and reading what others have told. At a real server: tests/stores/shared/test_numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_stalecache.core.model.reasons import BY_CODE
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.stats.counter_file import LABELS, OTHERS
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.many_hosts import Host, Hosts, HostState, heard, over_hosts, told
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stats.schema import Stats

REASON = next(iter(BY_CODE))


def counted(hits: int, *, label: str = "page", entries: int = 0, max_size: int | None = 1000) -> Stats:
    """Return the statistics of a host."""
    registry = Registry(Counters())
    for _ in range(hits):
        registry.tally("endpoint", label).served(CacheStatus.HIT, 0.002)
    registry.tally("endpoint", label).asked(0.3, failed=False)
    registry.gauge("refreshes_pending", 2)
    registry.count("purges", 1)
    return registry.read(entries, 10 * entries, max_size)


def host(name: str, stats: Stats | None, told: float = 1.0, **known: Any) -> Host:
    return Host(name, name == "here", HostState.CONNECTED, 0.5, stats=stats, told=told, **known)


def test_sums_count_every_host() -> None:
    mine, other, gone = counted(3), counted(4, label="other"), counted(5)
    total = over_hosts(mine, Hosts("", (host("here", counted(1)), host("b", other), host("c", None)), (gone,)))
    assert total["requests"]["HIT"] == 12
    assert total["origin_calls"] == 3
    assert total["purges"] == 3
    assert {name: series["requests"]["HIT"] for name, series in total["endpoints"].items()} == {"page": 8, "other": 4}
    page = total["endpoints"]["page"]["served"]
    assert (page["count"], page["buckets"]["0.0025"], page["buckets"]["+Inf"]) == (8, 8, 8)
    assert total["since"] == min(mine["since"], other["since"], gone["since"])
    assert mine == {**counted(3), "since": mine["since"]}


@pytest.mark.parametrize(("mine", "other", "total"), [(0.0, 5.0, 5.0), (5.0, 0.0, 5.0), (4.0, 5.0, 4.0), (0.0, 0.0, 0.0)])
def test_counts_began_with_the_first_host_that_knows_when(mine: float, other: float, total: float) -> None:
    here, there = counted(1), counted(1)
    here["since"], there["since"] = mine, other
    assert over_hosts(here, Hosts("", (host("b", there),)))["since"] == total


def test_gauges_are_of_hosts_that_were_heard_lately() -> None:
    hosts = (host("b", counted(1, entries=20)), host("c", counted(1, entries=300), told=61.0))
    total = over_hosts(counted(1, entries=1), Hosts("", hosts, (counted(1, entries=4000),)))
    assert (total["entries"], total["bytes"], total["workers"], total["max_size"]) == (21, 210, 2, 2000)
    assert total["refreshes"]["pending"] == 4
    assert total["requests"]["HIT"] == 4


def test_a_host_without_a_limit_has_no_limit() -> None:
    assert over_hosts(counted(1), Hosts("", (host("b", counted(1, max_size=None)),)))["max_size"] is None


def test_the_hosts_are_listed() -> None:
    known = Hosts("", (host("b", None, behind=2, late=4.0), host("here", None)), (counted(1),), last_purge=7.0)
    assert known.behind == ["b"]
    shared = over_hosts(counted(2, entries=5), known)["shared"]
    assert (shared["problem"], shared["gone"], shared["last_purge"]) == ("", 1, 7.0)
    assert [(each["name"], each["here"], each["behind"], each["late"], each["entries"]) for each in shared["hosts"]] == [
        ("b", False, 2, 4.0, None),
        ("here", True, 0, 0.0, 5),
    ]


def test_what_is_told_is_heard() -> None:
    stats = counted(3, entries=2)
    assert heard(json.loads(json.dumps(told(stats)))) == stats
    assert len(json.dumps(told(stats))) < 1000


def test_many_labels_are_told_under_one_name() -> None:
    registry = Registry(Counters())
    series = registry.read(0, 0, None)
    one = counted(1)["endpoints"]["page"]
    busy = counted(7)["endpoints"]["page"]
    series["endpoints"] = {**{f"page {number}": one for number in range(3 * LABELS)}, "busy": busy, OTHERS: one}
    again = heard(told(series))
    assert len(again["endpoints"]) == LABELS
    assert again["endpoints"]["busy"] == busy
    assert sum(each["requests"]["HIT"] for each in again["endpoints"].values()) == 3 * LABELS + 8


def test_another_version_may_tell_more_and_less() -> None:
    data: dict[str, Any] = told(counted(2))
    data.update(new=5, reasons={"of_the_future": 3}, purges=0)
    data["requests"] = {"HIT": 2, "MIRACLE": 9}
    stats = heard(data)
    assert stats["reasons"] == {}
    assert stats["requests"] == counted(2)["requests"]
    assert "new" not in stats
    assert stats["purges"] == 0


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        7,
        {"requests": 7},
        {"requests": {"HIT": -1}},
        {"requests": {"HIT": "many"}},
        {"requests": {"HIT": True}},
        {"requests": {"HIT": 2**63}},
        {"purges": float("nan")},
        {"purges": float("inf")},
        {"reasons": [1]},
        {"endpoints": []},
        {"endpoints": {"page": 7}},
        {"endpoints": {"page": {"reasons": {REASON: -1}}}},
        {"endpoints": {f"page {number}": {} for number in range(LABELS + 1)}},
        {"max_size": "all"},
    ],
    ids=lambda data: str(data)[:40],
)
def test_damaged_numbers_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"can't|mapping"):
        heard(data)
