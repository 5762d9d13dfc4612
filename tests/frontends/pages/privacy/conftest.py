"""Fixtures of the tests of privacy."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest

from support.privacy import counter


@pytest.fixture
def exempt() -> Iterator[types.ModuleType]:
    """A module of a third party, which an app may name in IGNORED_READERS."""
    module = types.ModuleType("tracker.inside")
    source = """
from flask import request
def field(name): return request.headers.get(name, "-")
def cookie(name): return request.cookies.get(name, "-")
def agent(): return request.user_agent.string
def languages(): return str(request.accept_languages)
def everything(): return str(sorted(request.headers.keys()))
def attribute(name): return str(getattr(request, name))
"""
    exec(compile(source, "tracker/inside.py", "exec"), module.__dict__)
    sys.modules["tracker.inside"] = module
    yield module
    del sys.modules["tracker.inside"]


@pytest.fixture(autouse=True)
def from_one() -> None:
    counter["n"] = 0
