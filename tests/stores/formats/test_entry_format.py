"""Entries with holes, as they are stored. See also ``tests/stores/contract``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from flask_stalecache.core.model.holes import Hole, HoleCall
from flask_stalecache.errors import BrokenEntry
from flask_stalecache.stores.formats import entry_format
from support.engine import make_entry
from support.sealed import head_in, sealed

HOLES = (Hole(0, HoleCall("box", (1, {"a": [None]}), {"b": "ü"}), "html|", 0), Hole(3, HoleCall("base.html, line 1#x"), "|", 1))
ENTRY = replace(make_entry(body=b"text"), holes=HOLES)


def test_an_entry_with_holes_is_read_as_it_was_written() -> None:
    data = entry_format.encode(ENTRY)
    assert entry_format.decode(data, "page") == ENTRY
    assert entry_format.decode_head(data) == replace(ENTRY, body=b"")
    assert entry_format.purges_of(data) == (ENTRY.seq, list(ENTRY.names))


def test_a_worker_of_an_earlier_version_takes_it_for_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    with_holes, without = entry_format.encode(ENTRY), entry_format.encode(replace(ENTRY, holes=()))
    monkeypatch.setattr(entry_format, "_FORMATS", {b"FSC6"})
    assert entry_format.decode(without, "page").holes == ()
    for read in (lambda: entry_format.decode(with_holes, "page"), lambda: entry_format.decode_head(with_holes)):
        with pytest.raises(BrokenEntry, match="another format"):
            read()


def test_an_entry_without_holes_has_nothing_of_them() -> None:
    head, _ = head_in(entry_format.encode(replace(ENTRY, holes=())))
    assert "holes" not in head


@pytest.mark.parametrize(
    "holes",
    [
        [],
        None,
        "abc",
        [[0, "box", [], {}, "html|"]],
        [[5, "box", [], {}, "html|", 0]],
        [[-1, "box", [], {}, "html|", 0]],
        [[3, "box", [], {}, "html|", 0], [1, "box", [], {}, "html|", 1]],
        [{"offset": 0}],
    ],
)
def test_holes_that_make_no_sense(holes: Any) -> None:
    head, body = head_in(entry_format.encode(ENTRY))
    with pytest.raises(BrokenEntry):
        entry_format.decode(sealed(json.dumps({**head, "holes": holes}).encode(), body, entry_format.WITH_HOLES), "page")


def test_holes_in_the_format_without_them() -> None:
    data = entry_format.encode(ENTRY)
    head, body = head_in(data)
    with pytest.raises(BrokenEntry):
        entry_format.decode(sealed(json.dumps(head).encode(), body, entry_format.MAGIC), "page")
