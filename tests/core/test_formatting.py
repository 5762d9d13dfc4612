"""Numbers and texts as people read them."""

from __future__ import annotations

import pytest

from flask_stalecache.core.formatting import NONE, clock, latency, number, percent, printable, rate, shortened, size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (104857600, "100 MiB"),
        (1.5 * 1024**3, "1.5 GiB"),
        (1024**5, "1024 TiB"),
    ],
)
def test_size(count: float, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, NONE), (0, 10, "0 %"), (10, 10, "100 %"), (9999999, 10000000, "> 99.9 %"), (1, 3, "33.3 %")],
)
def test_percent_is_never_full_if_it_is_not(part: float, whole: float, said: str) -> None:
    assert percent(part, whole) == said


@pytest.mark.parametrize(
    ("count", "seconds", "said"), [(0, 60, "0"), (5, 0, "0"), (3, 60, "0.05"), (90, 60, "1.5"), (120000, 60, "2,000")]
)
def test_rate(count: float, seconds: float, said: str) -> None:
    assert rate(count, seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, NONE),
        (0, "\u2264 1 ms"),
        (0.001, "\u2264 1 ms"),
        (0.00213, "2.13 ms"),
        (0.34, "340 ms"),
        (2.25, "2.2 s"),
        (30, "30 s"),
    ],
)
def test_latency_says_no_more_than_is_known(seconds: float | None, said: str) -> None:
    assert latency(seconds) == said


def test_shortened() -> None:
    assert (shortened("four", 4), shortened("fours", 4)) == ("four", "fou\u2026")


def test_number_and_clock() -> None:
    assert number(1234567) == "1,234,567"
    assert (clock(0), clock(86399, "%H:%M")) == ("00:00:00", "23:59")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/news?page=2", "/news?page=2"),
        ("caf\u00e9 \N{SNOWMAN} \\n", "caf\u00e9 \N{SNOWMAN} \\n"),
        ("a\nb\r\nc\td", r"a\nb\r\nc\td"),
        ("\x00\x1b[2J\x7f\x85\x9b", r"\x00\x1b[2J\x7f\x85\x9b"),
        ("\u2028\u2029\u202e\u2066\ufeff\xa0", r"\u2028\u2029\u202e\u2066\ufeff\xa0"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
    ],
)
def test_a_printable_text_is_one_line(text: str, said: str) -> None:
    assert printable(text) == said
