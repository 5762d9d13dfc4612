"""Fixtures of the soak tests, and the tables of their figures at the end of ``make soak``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from support.soak.figures import table

_PROPERTY = "figures"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, Sequence[Sequence[object]]], None]:
    """``figures(title, rows)``: a table for the end of the run. Its first row is its head."""
    return lambda title, rows: record_property(_PROPERTY, f"{title}\n{table(rows)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables of all tests."""
    if os.environ.get("STALECACHE_SOAK") != "1":
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    tables = [value for report in reports for name, value in report.user_properties if name == _PROPERTY]
    if tables:
        terminalreporter.section("figures")
    for text in tables:
        terminalreporter.write_line(f"{text}\n")
