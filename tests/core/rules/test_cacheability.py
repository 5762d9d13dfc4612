"""Cacheability hints: what a stored result passes on. The rest is in frontends/test_cacheability."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flask_stalecache.core.rules.cacheability import Cacheability, inherit
from flask_stalecache.core.rules.serving import ServeOptions
from support.engine import make_entry

NOON = 1_800_000_000.0


@pytest.mark.parametrize(
    ("ended", "version", "deployed", "limit"),
    [
        pytest.param(False, "1", 0.0, 60.0, id="fresh"),
        pytest.param(True, "1", 0.0, 0.0, id="softly purged"),
        pytest.param(False, "0", 0.0, 0.0, id="of an older version"),
        pytest.param(False, "2", 9.0, 60.0, id="of a newer version"),
        pytest.param(False, "2", NOON + 3600, 0.0, id="of a version that was deployed while the clock was ahead"),
    ],
)
def test_no_longer_fresh_than_what_it_is_made_from(ended: bool, version: str, deployed: float, limit: float) -> None:
    entry = replace(make_entry("key"), names=("all", "tag:news"), answered=NOON, ended=ended, version=version, deployed=deployed)
    around = Cacheability(None)
    word = Cacheability(around)
    inherit(word, entry, NOON, ServeOptions("1", 5.0))
    assert (word.limit(NOON), tuple(word.tags)) == (limit, ("news",))
    assert (around.limit(NOON), tuple(around.tags)) == (limit, ("news",))
