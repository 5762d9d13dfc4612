"""``flask stalecache advise``: an access log replayed, and compared with the real cache.

Covers ``cli.advise`` and ``cli.log_files``.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import Result
from flask import Flask
from werkzeug.routing import BaseConverter

from flask_stalecache import StaleCache

AT = 1_700_000_000


class Broken(BaseConverter):
    """A converter that works only during a request."""

    def to_python(self, value: str) -> str:
        raise RuntimeError("no session here")


@pytest.fixture
def app(make_app: Callable[..., tuple[Flask, StaleCache]]) -> Flask:
    app, cache = make_app(IGNORED_PARAMETERS=["utm_*"])
    app.url_map.converters["broken"] = Broken

    app.add_url_rule("/articles/<int:number>", "article", lambda number: f"article {number}")
    app.add_url_rule("/search", "search", lambda: "found")
    app.add_url_rule("/news", "news", cache.cached(60)(lambda: "news"))
    app.add_url_rule("/odd/<broken:what>", "odd", lambda what: "odd")
    return app


@pytest.fixture
def run(app: Flask) -> Callable[..., Result]:
    return lambda *args, **options: app.test_cli_runner().invoke(args=["stalecache", "advise", *map(str, args)], **options)


def line(at: float, target: str, status: int = 200, method: str = "GET", size: int = 1000, user: str = "-") -> str:
    minutes, seconds = divmod(int(at) - AT + 800, 60)
    hours, minutes = divmod(minutes, 60)
    assert hours < 2
    return f'h - {user} [14/Nov/2023:{22 + hours:02}:{minutes:02}:{seconds:02} +0000] "{method} {target} HTTP/1.1" {status} {size}'


@pytest.fixture
def log(tmp_path: Path) -> Callable[[list[str]], Path]:
    def write(lines: list[str]) -> Path:
        path = tmp_path / "access.log"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


BUSY = [line(AT + second, f"/articles/{second % 2}?utm_source={second}") for second in range(100)]


def plan(result: Result, endpoint: str | None, max_age: float) -> dict[str, Any]:
    """Return what a lifetime does for an endpoint, from the output as JSON."""
    assert result.exit_code == 0, result.output
    (found,) = [each for each in json.loads(result.stdout)["endpoints"] if each["endpoint"] == endpoint]
    return next(each for each in found["plans"] if each["max_age"] == max_age)


def test_it_says_what_to_decorate_first(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    lines = [
        *BUSY,
        *(line(AT + number, f"/search?q={number}") for number in range(50)),
        *(line(AT + 1, "/news") for _ in range(200)),
    ]
    result = run(log(lines))
    assert result.exit_code == 0, result.output
    text = result.output.splitlines()
    assert text[0] == "350 requests from 2023-11-14 22:13 to 2023-11-14 22:14 UTC"
    assert text[1] == "with stale_while_revalidate=600 and stale_if_error=86400"
    assert text[-2:] == [
        "1.  article  @cache.cached(max_age=60)  saves 96 of 100 calls (96.0 %)",
        "The log does not say which pages depend on a visitor's session or cookies: such pages are answered live.",
    ]
    # 'news' is cached already, and no search comes twice.
    assert [row.split()[0] for row in text if row.startswith(("article", "news", "search"))] == ["news", "article", "search"]


def test_the_windows_are_options(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    path = log([line(AT, "/search"), line(AT + 30, "/search"), line(AT + 70, "/search")])
    options = ("--max-age", 20, "--max-age", 3600, "--stale-while-revalidate", 15, "--json", path)
    assert plan(run(*options), "search", 20)["requests"] == {"HIT": 0, "STALE": 1, "MISS": 1, "EXPIRED": 1, "BYPASS": 0}
    assert plan(run(*options), "search", 3600)["requests"]["HIT"] == 2
    assert [each["max_age"] for each in json.loads(run(*options).stdout)["endpoints"][0]["plans"]] == [20, 3600]


def test_what_the_cache_would_not_answer_is_live(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    path = log(
        [line(AT, "/search"), line(AT, "/search", method="POST"), line(AT, "/search", user="ann"), line(AT, "/search", status=404)]
    )
    assert plan(run("--json", path), "search", 10)["requests"] == {"HIT": 1, "STALE": 0, "MISS": 1, "EXPIRED": 0, "BYPASS": 2}


def test_parts_and_confirmations_are_about_the_page_and_not_about_its_size(
    run: Callable[..., Result], log: Callable[[list[str]], Path]
) -> None:
    found = plan(run("--json", log([line(AT, "/search", 206, size=7), line(AT, "/search", 304, size=0)])), "search", 10)
    assert (found["requests"]["HIT"], found["entries"], found["bytes"]) == (1, 1, 0)


@pytest.mark.parametrize("name", ["access.log.gz", "access.jsonl", "-"])
def test_logs_are_compressed_in_json_or_piped(
    run: Callable[..., Result], log: Callable[[list[str]], Path], tmp_path: Path, name: str
) -> None:
    path, text = tmp_path / name, "\n".join(BUSY)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    elif name.endswith(".jsonl"):
        rows = ({"ts": AT + n, "method": "GET", "uri": f"/articles/{n % 2}", "status": 200, "duration": 0.5} for n in range(100))
        path.write_text("\n".join(map(json.dumps, rows)))
    result = run("--json", "-" if name == "-" else path, input=text)
    assert plan(result, "article", 3600)["saved"] == 98
    assert json.loads(result.stdout)["endpoints"][0]["seconds"] == (0.5 if name == "access.jsonl" else None)


def test_several_logs_are_one(run: Callable[..., Result], tmp_path: Path) -> None:
    for name, lines in (("a", BUSY[:50]), ("b", BUSY[50:])):
        (tmp_path / name).write_text("\n".join(lines))
    assert plan(run("--json", tmp_path / "b", tmp_path / "a"), "article", 3600)["saved"] == 98


def test_a_url_that_matches_nothing_has_no_endpoint(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    path = log([line(AT, "/nowhere", 404), line(AT, "/articles/x", 404)])
    assert plan(run("--json", path), None, 10)["requests"]["MISS"] == 2
    assert "no endpoint that is not cached yet would save calls" in run(path).output


def test_a_converter_that_needs_a_request_is_named(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    output = run(log([line(AT, "/odd/1"), line(AT, "/search")])).output
    assert "some URLs could not be matched: RuntimeError('no session here')" in output


def test_an_app_below_a_path_is_matched(app: Flask, run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    app.config["APPLICATION_ROOT"] = "/shop"
    assert plan(run("--json", log([line(AT, "/shop/search")])), "search", 10)["requests"]["MISS"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["worker started", "no log\x1b[31m"], "2 of 2 lines are in no known format: give Common Log Format"),
        ([], "there are no requests in"),
    ],
)
def test_what_is_no_log_is_one_line(
    run: Callable[..., Result], log: Callable[[list[str]], Path], lines: list[str], message: str
) -> None:
    result = run(log(lines))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "\x1b" not in result.stderr


def test_lines_that_are_no_requests_are_counted(run: Callable[..., Result], log: Callable[[list[str]], Path]) -> None:
    assert "2 lines could not be read" in run(log(["started", *BUSY, "stopped"])).output.splitlines()[0]


def test_a_file_that_is_not_there_is_named(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run(tmp_path / "none.log")
    assert result.exit_code == 2
    assert "none.log can't be read" in result.stderr


def test_a_broken_archive_is_named(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress("\n".join(BUSY).encode(), mtime=0)[:-20])
    result = run(tmp_path / "cut.gz")
    assert result.exit_code == 2
    assert "cut.gz can't be read" in result.stderr


# -- beside the real cache -----------------------------------------------------------------------------------------------


def traffic(seed: int, seconds: int) -> Iterator[tuple[int, str, int, str]]:
    """Yield times, targets, statuses and methods of requests to a site with a few popular pages and an outage."""
    chance, at = random.Random(seed), float(AT)
    while at < AT + seconds:
        at += chance.expovariate(0.3)
        number = int(chance.paretovariate(0.9)) % 100
        target = f"/articles/{number}" if chance.random() < 0.7 else f"/search?q={number % 40}"
        in_outage = AT + seconds / 3 < at < AT + seconds / 3 + 300
        status = 500 if in_outage or chance.random() < 0.02 else chance.choice((200, 200, 200, 304))
        yield int(at), target, status, chance.choices(("GET", "HEAD"), (20, 1))[0]


@pytest.mark.grid
@pytest.mark.parametrize("max_age", [10, 120])
@pytest.mark.parametrize("swr", [0, 60])
def test_the_hit_ratios_are_those_of_the_real_cache(
    run: Callable[..., Result],
    log: Callable[[list[str]], Path],
    make_app: Callable[..., tuple[Flask, StaleCache]],
    soak: Callable[[int, int], int],
    max_age: int,
    swr: int,
) -> None:
    # The jitter of the real cache is random, too.
    random.seed(max_age + swr)
    requests = list(traffic(max_age + swr, 3600 if max_age > 60 else soak(3600, 1500)))
    path = log([line(at, target, status, method) for at, target, status, method in requests])
    result = run("--json", "--max-age", max_age, "--stale-while-revalidate", swr, "--stale-if-error", 600, path)
    real, cache = make_app(REFRESH_WORKERS=0)
    now: dict[str, int] = {}
    seen: dict[str, Counter[str]] = {"article": Counter(), "search": Counter()}
    calls: Counter[str] = Counter()

    def answer(endpoint: str) -> tuple[str, int]:
        calls[endpoint] += 1
        return endpoint, 500 if now["status"] == 500 else 200

    cached = cache.cached(max_age, swr, 600)
    real.add_url_rule("/articles/<int:number>", "article", cached(lambda number: answer("article")))
    real.add_url_rule("/search", "search", cached(lambda: answer("search")))
    client = real.test_client()
    with time_machine.travel(AT, tick=False) as clock:
        for at, target, status, method in requests:
            clock.move_to(at)
            now["status"] = status
            with client.open(target, method=method) as response:
                seen["article" if target.startswith("/a") else "search"][response.headers.get("X-Cache-Status", "none")] += 1
    for endpoint, statuses in seen.items():
        told = plan(result, endpoint, max_age)
        ratio = (statuses["HIT"] + statuses["STALE"] + statuses["UPDATING"]) / statuses.total()
        assert told["hit_ratio"] == pytest.approx(ratio, abs=0.02)
        assert told["requests"]["HIT"] / statuses.total() == pytest.approx(statuses["HIT"] / statuses.total(), abs=0.02)
        assert told["calls"] == pytest.approx(calls[endpoint], rel=0.03)
