"""What a visitor is told of the cache: nginx's words, and the field of RFC 9211."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache import CacheStatus
from flask_stalecache.core.rules.status import forwarded_field, hit_field

REASONS = ("uri-miss", "miss", "stale", "method", "bypass")


def parsed(field: str) -> tuple[str, dict[str, Any]]:
    """Return the cache's name and the parameters of a Cache-Status field with one member."""
    members: Any = http_sf.parse(field.encode("ascii"), tltype="list")
    [(name, parameters)] = members
    return str(name), {key: value if isinstance(value, (bool, int)) else str(value) for key, value in parameters.items()}


def test_the_words_are_those_of_nginx() -> None:
    assert {status.name: str(status) for status in CacheStatus} == {
        word: word for word in ("MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT")
    }


def test_a_word_is_a_string() -> None:
    assert CacheStatus("HIT") is CacheStatus.HIT
    assert CacheStatus.HIT == "HIT"
    assert f"{CacheStatus.HIT}" == "HIT"


@pytest.mark.parametrize(
    ("ttl", "field"),
    [
        (42.0, "stalecache; hit; ttl=42"),
        (42.9, "stalecache; hit; ttl=42"),
        (0.0, "stalecache; hit; ttl=0"),
        (0.5, "stalecache; hit; ttl=0"),
        (-0.1, "stalecache; hit; ttl=-1"),
        (-12.0, "stalecache; hit; ttl=-12"),
        (-12.5, "stalecache; hit; ttl=-13"),
    ],
)
def test_a_hit_says_how_long_it_is_fresh_and_never_longer(ttl: float, field: str) -> None:
    assert hit_field(ttl) == field


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"reason": "uri-miss"}, "stalecache; fwd=uri-miss"),
        ({"reason": "method", "status": 201}, "stalecache; fwd=method; fwd-status=201"),
        ({"reason": "bypass", "status": 200}, "stalecache; fwd=bypass; fwd-status=200"),
        (
            {"reason": "uri-miss", "status": 200, "ttl": 60.0, "stored": True},
            "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored",
        ),
        ({"reason": "stale", "status": 200, "ttl": 59.9, "stored": True}, "stalecache; fwd=stale; fwd-status=200; ttl=59; stored"),
        ({"reason": "stale", "ttl": 0.0}, "stalecache; fwd=stale; ttl=0"),
        ({"reason": "stale", "ttl": -0.5, "collapsed": True}, "stalecache; fwd=stale; ttl=-1; collapsed"),
        ({"reason": "uri-miss", "status": 503, "collapsed": True}, "stalecache; fwd=uri-miss; fwd-status=503; collapsed"),
        (
            {"reason": "uri-miss", "status": 200, "ttl": 60.0, "stored": True, "collapsed": True},
            "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored; collapsed",
        ),
    ],
)
def test_a_forwarded_request_says_why_and_what_became_of_it(parameters: dict[str, Any], field: str) -> None:
    assert forwarded_field(**parameters) == field


@given(st.floats(-1e12, 1e12))
def test_a_hit_is_a_structured_field_without_fwd(ttl: float) -> None:
    name, parameters = parsed(hit_field(ttl))
    assert (name, parameters["hit"]) == ("stalecache", True)
    assert parameters["ttl"] <= ttl < parameters["ttl"] + 1
    assert set(parameters) == {"hit", "ttl"}


@given(st.sampled_from(REASONS), st.none() | st.integers(100, 599), st.none() | st.floats(-1e9, 1e9), st.booleans(), st.booleans())
def test_a_forwarded_request_is_a_structured_field_without_hit(
    reason: str, status: int | None, ttl: float | None, stored: bool, collapsed: bool
) -> None:
    name, parameters = parsed(forwarded_field(reason, status=status, ttl=ttl, stored=stored, collapsed=collapsed))
    assert (name, parameters["fwd"]) == ("stalecache", reason)
    assert "hit" not in parameters
    assert parameters.get("fwd-status") == status
    assert ("ttl" in parameters) is (ttl is not None)
    assert (parameters.get("stored", False), parameters.get("collapsed", False)) == (stored, collapsed)
