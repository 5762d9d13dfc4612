"""The demo that plays the experiment against the news site."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import requests

from example_app.chapters import (
    BACK,
    COLD,
    DEAD,
    FILLED,
    FLAKY,
    FRESH,
    HANGING,
    PLAIN,
    PUBLISHED,
    REMADE,
    SLOW,
    STALE,
    Chapter,
    Row,
    complaints,
    is_whole,
    latencies,
    summary,
)
from example_app.demo import NEW, NO_NUMBER, OLD, Story, main
from support.endurance import IS_SOAK

PATIENCE = 120
ROOT = Path(__file__).resolve().parents[2]

ROW = re.compile(r" *(\d+) +([\d.]+)  ([A-Z-]+) +([\d.]+) +(\d+)  (.*)")


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "example_app.demo", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            # SIGTERM, so that the demo can stop its servers; communicate() reads the pipes to their end.
            process.terminate()
            process.communicate(timeout=PATIENCE)


def urls(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return re.findall(r"http://[\d.:]+/", process.stdout.readline())


def refuses(url: str) -> bool:
    """Whether no process listens at a URL any more."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.get(url, timeout=PATIENCE)
    except requests.ConnectionError:
        return True
    return False


class Serving(NamedTuple):
    """A demo that plays its story, and then serves.

    :ivar urls: those of its servers.
    """

    process: subprocess.Popen[str]
    urls: list[str]


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with demo("--fast", "--serve") as process:
        yield Serving(process, urls(process))


@pytest.mark.server
def test_the_story_holds(serving: Serving) -> None:
    assert serving.process.stdout is not None
    last = f"The news site is at {serving.urls[1]} and stays up until Ctrl-C.\n"
    output = ""
    while (line := serving.process.stdout.readline()) and line != last:
        output += line
    assert line == last, output + serving.process.communicate(timeout=PATIENCE)[1]
    rows = [match.groups() for match in map(ROW.fullmatch, output.splitlines()) if match]
    numbers = [int(row[0]) for row in rows]
    told_in_short = {name: int(count) for name, count in re.findall(r"^    (\w+): (\d+) requests,", output, re.MULTILINE)}
    assert list(told_in_short) == ["slow", "flaky", "hanging", "dead", "back", "alone", "computing", "apart"]
    assert len(set(re.findall(r"the dashboard was computed by process (\d+)", output))) == 2
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(rows) + sum(told_in_short.values())
    statuses = " ".join(row[2] for row in rows)
    stale = "STALE( (STALE|UPDATING))*"
    front = rf"(MISS ){{10}}{stale} (HIT )+{stale} (HIT )+MISS"
    dashboard, published = "(STALE ){4}EXPIRED", "MISS( HIT){3} MISS( HIT){3} MISS (MISS|HIT|STALE|UPDATING)"
    assert re.fullmatch(f"{front} {dashboard} {published}", statuses), statuses
    values = [row[5] for row in rows]
    assert values[:11] == [NO_NUMBER] * 11
    assert len(set(values[-15:-11])) == 1, "who prefers stale gets the copy"
    assert values[-10:] == [OLD.title] * 4 + [NEW.title] * 6
    workers = [row[4] for row in rows[-10:]]
    assert [len(set(part)) for part in (workers[:4], workers[4:8], workers[8:])] == [2, 2, 2]
    last = output.splitlines()[-2]
    assert re.fullmatch(
        rf"{numbers[-1]} requests were served: 12 waited for a page to be made, the slowest of the others took [\d.]+ s\. "
        r"The slow partner was called \d+ times\.",
        last,
    )


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, *([pytest.param(signal.SIGTERM, marks=pytest.mark.soak)] if IS_SOAK else [])])
def test_a_signal_in_the_middle_stops_what_was_started(number: signal.Signals) -> None:
    with demo() as process:
        started = urls(process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    assert len(started) == 2
    assert all(map(refuses, started))


@pytest.mark.server
def test_serving_goes_on_until_a_signal(serving: Serving) -> None:
    process, started = serving
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    text = "".join(iter(lambda: next(lines), f"    {started[1]}articles/the-ten-second-box\n"))
    assert f"curl --data hang  {started[0]}number/mode" in text
    assert f"curl --data gone  {started[0]}comments/mode" in text
    assert f"curl --silent --head {started[1]}\n" in text
    assert f"curl --silent --head --header 'X-Prefer-Stale: 1' {started[1]}dashboard\n" in text
    assert "Log in as ada with analytical-engine" in text
    assert not refuses(started[1])
    process.send_signal(signal.SIGTERM)
    assert (process.wait(PATIENCE), process.stderr and process.stderr.read()) == (0, "")
    assert all(map(refuses, started))


@pytest.mark.parametrize("arguments", [[], ["--serve"]], ids=" ".join)
def test_it_ends_after_its_story_unless_it_is_to_serve(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    server, served = SimpleNamespace(url="http://127.0.0.1:9/"), []
    for name in ("third_party", "news_site"):
        monkeypatch.setattr(f"example_app.demo.{name}", lambda settings, folder: nullcontext(server))
    monkeypatch.setattr(Story, "play", lambda story: story.stage.told.append((FRESH, rows("HIT")[0])))
    monkeypatch.setattr("example_app.demo._stay_up", lambda site, partner: served.append(site))
    monkeypatch.setattr("example_app.demo.until_stopped", lambda run: run())
    assert main(arguments) == 0
    assert served == [server] * len(arguments)


def rows(statuses: str, *, seconds: float = 0.01, value: str = "7", code: int | None = 200, workers: str = "1") -> list[Row]:
    """Return a row for each status; the workers, a letter each, take turns."""
    return [
        Row(number, 0.0, status, seconds, value, code, workers[number % len(workers)])
        for number, status in enumerate(statuses.split(), 1)
    ]


def calls(number: int = 0, weather: int = 0, comments: int = 0) -> dict[str, int]:
    return {"number": number, "weather": weather, "comments": comments}


@pytest.mark.parametrize(
    ("chapter", "happened", "called"),
    [
        (COLD, rows("MISS MISS", seconds=0.5), calls(1, 1, 3)),
        (FILLED, rows("UPDATING STALE"), calls()),
        (FRESH, rows("HIT HIT"), calls(0, 1, 3)),
        (STALE, rows("STALE UPDATING"), calls(1)),
        (STALE, rows("STALE STALE UPDATING STALE"), calls(1, 1, 3)),
        (SLOW.chapter, rows("STALE UPDATING STALE"), calls(1, 1, 3)),
        (FLAKY.chapter, rows("UPDATING STALE UPDATING HIT STALE"), calls(2, 2, 6)),
        (HANGING.chapter, rows("UPDATING UPDATING"), calls()),
        (DEAD.chapter, rows("UPDATING STALE"), calls(5, 5, 9)),
        (BACK.chapter, rows("UPDATING STALE HIT STALE HIT"), calls(1, 1, 3)),
        (PLAIN, rows("EXPIRED", seconds=5), calls()),
        (PUBLISHED, rows("MISS HIT HIT HIT", workers="12"), calls()),
        (REMADE, rows("MISS MISS", workers="12"), calls(1)),
    ],
)
def test_a_chapter_that_held_has_no_complaints(chapter: Chapter, happened: list[Row], called: dict[str, int]) -> None:
    assert complaints(chapter, happened, called, "7") == []


@pytest.mark.parametrize(
    ("chapter", "happened", "called", "message"),
    [
        (COLD, rows("MISS MISS"), calls(2, 1, 3), "number was called 2 times, not 1"),
        (COLD, rows("MISS MISS"), calls(1, 1, 4), "comments was called 4 times, not 3"),
        (COLD, rows("MISS", seconds=1.6), calls(1, 1, 3), "request 1 took 1.600 s"),
        (COLD, rows("MISS -", value="HTTP 500", code=500), calls(1, 1, 3), "request 1 was answered with HTTP 500"),
        (COLD, rows("MISS", value="no answer", code=None), calls(1, 1, 3), "request 1 was answered with no answer"),
        (COLD, rows("- -"), calls(1, 1, 3), "statuses were - -"),
        (FRESH, rows("HIT EXPIRED"), calls(), "statuses were HIT EXPIRED"),
        (FRESH, [], calls(), "statuses were none"),
        (FRESH, rows("HIT", value="8"), calls(), "request 1 shows 8, not 7"),
        (STALE, rows("STALE UPDATING", seconds=1.1), calls(1), "request 1 took 1.100 s"),
        (STALE, rows("UPDATING STALE"), calls(1), "statuses were UPDATING STALE"),
        (SLOW.chapter, rows("STALE MISS"), calls(1, 1, 3), "statuses were STALE MISS"),
        (HANGING.chapter, rows("STALE HIT"), calls(1, 1, 3), "statuses were STALE HIT"),
        (HANGING.chapter, rows("STALE", seconds=1.1), calls(1, 1, 3), "request 1 took 1.100 s"),
        (DEAD.chapter, rows("STALE UPDATING"), calls(6, 0, 0), "number was called 6 times, not 0 to 5"),
        (DEAD.chapter, rows("STALE UPDATING"), calls(0, 0, 10), "comments was called 10 times, not 0 to 9"),
        (BACK.chapter, rows("STALE UPDATING"), calls(1, 1, 1), "statuses were STALE UPDATING"),
        (BACK.chapter, rows("STALE HIT"), calls(1, 0, 1), "weather was called 0 times, not 1 to 20"),
        (PLAIN, rows("STALE"), calls(), "statuses were STALE"),
        (PUBLISHED, rows("MISS HIT", value="old", workers="12"), calls(), "request 2 shows old, not 7"),
        (PUBLISHED, rows("MISS HIT HIT"), calls(), "1 of the workers answered, not 2"),
        (REMADE, rows("MISS MISS", workers="12"), calls(2), "number was called 2 times, not 0 to 1"),
    ],
)
def test_what_was_wrong_is_named(chapter: Chapter, happened: list[Row], called: dict[str, int], message: str) -> None:
    assert any(message in found for found in complaints(chapter, happened, called, "7"))


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ("3 comments | 159 | -4 °C", True),
        (f"3 comments | {NO_NUMBER} | 7 °C", False),
        ("3 comments | 159 | No report", False),
        ("comments are closed for now | 159 | 7 °C", False),
        ("nothing of it", False),
    ],
)
def test_a_row_is_whole_if_each_partner_has_said_something(value: str, whole: bool) -> None:
    row = rows("STALE", value=value)
    assert is_whole(row[0]) is whole
    assert (complaints(SLOW.chapter, row, calls(), None) == []) is whole


def test_a_manner_is_told_in_short() -> None:
    happened = [
        *rows("STALE UPDATING", value="1 comment | 2 | 3 °C"),
        *rows("UPDATING", seconds=0.25, value="1 comment | 4 | 3 °C"),
    ]
    assert latencies(HANGING, happened, calls(1, 0, 3)).splitlines() == [
        "    milliseconds: 10 10 250",
        "    statuses: 1 STALE, 2 UPDATING; calls: number 1, weather 0, comments 3; at the end: 1 comment | 4 | 3 °C",
        "    hanging: 3 requests, half of them within 0.010 s, slowest 0.250 s",
    ]


def test_the_last_line_leaves_out_errors_and_those_who_were_to_wait() -> None:
    waited, served, failed = rows("MISS", seconds=10), rows("HIT", seconds=0.25), rows("-", seconds=0.5, code=500)
    told = [(COLD, *waited), (FRESH, *served), (FRESH, *failed)]
    assert summary(told, 3) == (
        "2 requests were served: 1 waited for a page to be made, the slowest of the others took 0.500 s. "
        "The slow partner was called 3 times."
    )


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--slow"])
    assert "--slow" in capsys.readouterr().err
