"""The numbers on a page for Prometheus, read by its own parsers. Covers ``metrics``."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text

from flask_stalecache import ConfigError, GatewayCache, StoreError
from flask_stalecache.metrics import StaleCacheCollector
from flask_stalecache.stats.prometheus import families
from support.client import MakeApp, visit

#: A sample: its name, its labels, its value.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STATUSES = ("MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT")
BOUNDS = ("0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "+Inf")


def samples_of(metrics: Iterable[Any]) -> Samples:
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for metric in metrics for sample in metric.samples}


def sample(metric: str, /, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"stalecache_{metric}", tuple(sorted(labels.items()))


def histogram(count: int, total: float, *, first: int = 0) -> dict[str, Any]:
    """Return a cumulative histogram: the first bucket has ``first`` observations, the last but one (10 to 30 s) the others."""
    return {"count": count, "sum": total, "buckets": {bound: count if float(bound) >= 30 else first for bound in BOUNDS}}


def series(hits: int, calls: int) -> dict[str, Any]:
    return {
        "requests": {**dict.fromkeys(STATUSES, 0), "HIT": hits, "MISS": calls},
        "origin_calls": calls,
        "origin_failures": 1,
        "waits": 2,
        "refreshes": {"done": 3, "failed": 1, "seconds": 6.5},
        "computed": {"calls": 2, "seconds": 7.5},
        "served": histogram(hits + calls, 0.25, first=hits),
        "origin": histogram(calls, 12.5),
        "reasons": {"nothing_stored": calls} if calls else {},
    }


STATS: Any = {
    "requests": {**dict.fromkeys(STATUSES, 0), "HIT": 5, "MISS": 2},
    "calls": {**dict.fromkeys(STATUSES, 0), "HIT": 16, "MISS": 8},
    "reasons": {"nothing_stored": 10},
    "origin_calls": 10,
    "origin_failures": 4,
    "computed": {"calls": 8, "seconds": 30.0},
    "waits": 8,
    "lock_timeouts": 9,
    "slow_readers": 7,
    "copies_given_up": 8,
    "refreshes": {
        "handed_over": 21,
        "returned": 7,
        "queued": 20,
        "pending": 3,
        "done": 12,
        "failed": 4,
        "dropped": 5,
        "overdue": 6,
        "seconds": 26.0,
    },
    "scans": {"running": 1, "waiting": 2, "found": 40, "done": 30, "failed": 4, "skipped": 5, "refused": 6},
    "purges": 11,
    "store_failures": 12,
    "broken_entries": 13,
    "evictions": {"size": 14, "inactive": 15, "purged": 16, "broken": 17, "notes": 18},
    "entries": 19,
    "bytes": 20_000,
    "max_size": 104_857_600,
    "workers": 4,
    "since": 1_800_000_000.0,
    "endpoints": {'odd "name"\n\\': series(5, 2), "": series(0, 0)},
    "functions": {"shop.rates": series(9, 3)},
    "hosts": {"api.example": series(7, 5)},
}


class Numbers:
    """A collector of given numbers."""

    def __init__(self, stats: Any) -> None:
        self.stats = stats

    def collect(self) -> Iterable[Any]:
        return families(self.stats)


def registry_of(*collectors: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


PARSERS: Mapping[str, Callable[[CollectorRegistry], Samples]] = {
    "text": lambda registry: samples_of(parsed_text(generate_latest(registry).decode())),
    "openmetrics": lambda registry: samples_of(parsed_openmetrics(generate_openmetrics(registry).decode())),
}


@pytest.mark.grid
@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    ("which", "value"),
    [
        (sample("requests_total", endpoint='odd "name"\n\\', status="HIT"), 5),
        (sample("requests_total", endpoint='odd "name"\n\\', status="MISS"), 2),
        (sample("requests_total", endpoint='odd "name"\n\\', status="EXPIRED"), 0),
        (sample("requests_total", endpoint="", status="HIT"), 0),
        (sample("calls_total", function="shop.rates", status="HIT"), 9),
        (sample("host_requests_total", host="api.example", status="MISS"), 5),
        (sample("origin_calls_total", kind="function", name="shop.rates"), 3),
        (sample("origin_failures_total", kind="host", name="api.example"), 1),
        (sample("origin_computed_total", kind="host", name="api.example"), 2),
        (sample("origin_computed_seconds_total", kind="function", name="shop.rates"), 7.5),
        (sample("waits_total", kind="endpoint", name=""), 2),
        (sample("uncached_total", kind="host", name="api.example", reason="nothing_stored"), 5),
        (sample("served_duration_seconds_bucket", kind="function", name="shop.rates", le="0.001"), 9),
        (sample("served_duration_seconds_bucket", kind="function", name="shop.rates", le="+Inf"), 12),
        (sample("served_duration_seconds_count", kind="function", name="shop.rates"), 12),
        (sample("served_duration_seconds_sum", kind="function", name="shop.rates"), 0.25),
        (sample("origin_duration_seconds_bucket", kind="host", name="api.example", le="10.0"), 0),
        (sample("origin_duration_seconds_bucket", kind="host", name="api.example", le="30.0"), 5),
        (sample("origin_duration_seconds_sum", kind="host", name="api.example"), 12.5),
        (sample("refreshes_total", outcome="done"), 12),
        (sample("refreshes_total", outcome="failed"), 4),
        (sample("refreshes_total", outcome="dropped"), 5),
        (sample("refreshes_overdue_total"), 6),
        (sample("refreshes_handed_over_total"), 21),
        (sample("refreshes_returned_total"), 7),
        (sample("refreshes_queued_total"), 20),
        (sample("refreshes_pending"), 3),
        (sample("refresh_duration_seconds_sum", kind="host", name="api.example"), 6.5),
        (sample("refresh_duration_seconds_count", kind="host", name="api.example"), 4),
        (sample("scans_running"), 1),
        (sample("scans_waiting"), 2),
        (sample("scan_found_total"), 40),
        (sample("scan_results_total", outcome="done"), 30),
        (sample("scan_results_total", outcome="failed"), 4),
        (sample("scan_results_total", outcome="skipped"), 5),
        (sample("scans_refused_total"), 6),
        (sample("lock_timeouts_total"), 9),
        (sample("slow_readers_total"), 7),
        (sample("copies_given_up_total"), 8),
        (sample("purges_total"), 11),
        (sample("store_failures_total"), 12),
        (sample("broken_entries_total"), 13),
        *[(sample("evictions_total", reason=reason), count) for reason, count in STATS["evictions"].items()],
        (sample("entries"), 19),
        (sample("size_bytes"), 20_000),
        (sample("max_size_bytes"), 104_857_600),
        (sample("workers"), 4),
    ],
)
def test_what_is_told(parser: str, which: Any, value: float) -> None:
    assert told_by(parser)[which] == value


@cache
def told_by(parser: str) -> Samples:
    return PARSERS[parser](registry_of(Numbers(STATS)))


def test_without_a_limit_there_is_no_number_of_it() -> None:
    stats = {**copy.deepcopy(STATS), "max_size": None}
    assert sample("max_size_bytes") not in PARSERS["text"](registry_of(Numbers(stats)))


def test_names_units_and_types_are_as_prometheus_wants_them() -> None:
    for metric in families(STATS):
        assert metric.name.startswith("stalecache_")
        assert metric.documentation.endswith(".")
        # The help says first what is measured, and the name says it last. What is only counted has no unit.
        unit = {"Seconds": "seconds", "Bytes": "bytes"}.get(metric.documentation.split()[0], "")
        last = metric.name.rpartition("_")[2]
        assert (last if last in ("seconds", "bytes") else "") == unit, metric.name
        assert metric.name.endswith("_duration_seconds") is (metric.type in ("histogram", "summary")), metric.name
    # The parser of OpenMetrics is the strict one: suffixes, order of buckets, no sample twice.
    assert PARSERS["openmetrics"](registry_of(Numbers(STATS))) == PARSERS["text"](registry_of(Numbers(STATS)))


def test_buckets_are_in_order_whatever_order_the_numbers_have() -> None:
    stats = json.loads(json.dumps(STATS, sort_keys=True))
    assert PARSERS["openmetrics"](registry_of(Numbers(stats))) == PARSERS["openmetrics"](registry_of(Numbers(STATS)))


# -- of an app -------------------------------------------------------------------------------------------------------


def test_the_page_of_an_app(make_app: MakeApp) -> None:
    app, cache = make_app(REFRESH_WORKERS=0, MAX_SIZE=None)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    app.add_url_rule("/rates", "rates", lambda: str(rates()))

    @cache.memoize(60)
    def rates() -> int:
        return 1

    registry = registry_of(StaleCacheCollector(app))
    app.add_url_rule("/metrics", "metrics", lambda: Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST))
    for path in ("/", "/", "/", "/rates", "/rates"):
        visit(app, path)
    told = samples_of(parsed_text(visit(app, "/metrics").text))
    assert told[sample("requests_total", endpoint="page", status="HIT")] == 2
    assert told[sample("requests_total", endpoint="page", status="MISS")] == 1
    assert told[sample("origin_calls_total", kind="endpoint", name="page")] == 1
    [(function, calls)] = [(dict(labels)["function"], value) for (name, labels), value in told.items()
                           if name == "stalecache_calls_total" and ("status", "HIT") in labels]  # fmt: skip
    assert (function.rpartition(".")[2], calls) == ("rates", 1)
    assert told[sample("entries")] == 2
    assert told[sample("workers")] == 1


def test_the_page_of_a_gateway(directory: Path) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"page"]

    gateway = GatewayCache(page, dir=directory)
    shell = Flask("shell")
    shell.wsgi_app = gateway  # type: ignore[method-assign]
    for _ in range(3):
        visit(shell)
    told = samples_of(StaleCacheCollector(gateway).collect())
    assert told[sample("requests_total", endpoint="", status="HIT")] == 2


def test_a_registry_reads_nothing_until_it_is_scraped_and_takes_it_once(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = make_app()
    collector = StaleCacheCollector(app)
    collected = {metric.name for metric in collector.collect()}
    monkeypatch.setattr(app.extensions["stalecache"].engine.registry, "read", lambda *args: pytest.fail("it was read"))
    registry = registry_of(collector)
    assert {metric.name for metric in collector.describe()} == collected
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(StaleCacheCollector(app))


@pytest.mark.parametrize("error", [StoreError("gone"), OSError("unreadable"), KeyError("requests")])
def test_a_scrape_that_fails_tells_the_rest_of_the_page(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    app, _ = make_app()
    collector = StaleCacheCollector(app)
    monkeypatch.setattr(app.extensions["stalecache"].engine.registry, "read", fail)
    registry = registry_of(collector)
    Counter("of_the_app", "What the app counts.", registry=registry).inc()
    for _ in range(2):
        assert set(PARSERS["text"](registry)) >= {("of_the_app_total", ())}
        assert not any(name.startswith("stalecache_") for name, _ in PARSERS["text"](registry))
    assert [record.getMessage() for record in caplog.records] == [f"the numbers can't be read, and none are told: {error!r}"]


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def replace_by_a_file(directory: Path) -> None:
    remove(directory)
    directory.write_text("not a directory")


def damage(directory: Path) -> None:
    for path in directory.joinpath("stats").iterdir():
        # Replaced by another file. Files that are emptied in place are covered by test_registry.
        path.unlink()
        path.write_bytes(b"garbage")


@pytest.mark.parametrize("harm", [remove, replace_by_a_file, damage])
def test_what_befalls_the_directory_never_breaks_the_page(make_app: MakeApp, directory: Path, harm: Callable[[Path], None]) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    registry = registry_of(StaleCacheCollector(app))
    visit(app)
    harm(directory)
    assert PARSERS["text"](registry)[sample("workers")] >= 0


@pytest.mark.parametrize("thing", [None, "shop", object()])
def test_what_has_no_numbers_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigError, match="tells of an app or a GatewayCache"):
        StaleCacheCollector(thing)


def test_an_app_without_a_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match="call init_app"):
        StaleCacheCollector(Flask("plain"))


def test_without_prometheus_client_the_error_names_the_extra(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = make_app()
    monkeypatch.delitem(sys.modules, "flask_stalecache.stats.prometheus")
    monkeypatch.delattr("flask_stalecache.stats.prometheus")
    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"pip install 'flask-stalecache\[metrics\]'"):
        StaleCacheCollector(app)


# -- beside prometheus_client's multiprocess mode ---------------------------------------------------------------------

MULTIPROCESS = """
import json, os, sys
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
from flask_stalecache import StaleCache
from flask_stalecache.metrics import StaleCacheCollector

visits = Counter("visits", "Visits.")
app = Flask("shop")
app.config["STALECACHE_DIR"] = sys.argv[1]
cache = StaleCache(app)

@app.get("/")
@cache.cached(60)
def page():
    return "page"

def come():
    for _ in range(5):
        visits.inc()
        app.test_client().get("/")

if (pid := os.fork()) == 0:
    come()
    os._exit(0)
os.waitpid(pid, 0)
come()
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
registry.register(StaleCacheCollector(app))
sys.stdout.write(generate_latest(registry).decode())
"""


def test_beside_the_multiprocess_mode_of_prometheus_client(tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    counted.mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(counted)}
    command = [sys.executable, "-c", MULTIPROCESS, str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = samples_of(parsed_text(done.stdout))
    assert told["visits_total", ()] == 10
    assert told[sample("requests_total", endpoint="page", status="HIT")] == 9
    assert told[sample("requests_total", endpoint="page", status="MISS")] == 1
