"""The bytes of a note: sealed JSON. Pure."""

from __future__ import annotations

from typing import Any

from ...core.model.note import NOTHING, Lasting, Note
from ...filesystem.sealed import seal_json, unseal_json
from . import head_values as values

_KIND = b"NOT2"


def encode(note: Note) -> bytes:
    """Return the bytes of a note."""
    data = {
        "written": note.written,
        "failures": note.failures,
        "retry_at": note.retry_at,
        "silent_until": note.silent_until,
        "unstorable_until": note.unstorable_until,
        "lasts": note.lasts,
        "kept_out": note.kept_out.to_json(),
        "names": note.names,
        "seq": note.seq,
    }
    return seal_json(_KIND, data)


def decode(data: bytes) -> Note:
    """Return the note in stored bytes; an empty one if they are damaged or absurd, since a note is only advice."""
    return unseal_json(_KIND, data, _note) or NOTHING


def _note(head: Any) -> Note:
    return Note(
        written=values.moment(head["written"]),
        failures=values.count(head["failures"]),
        retry_at=values.span(head["retry_at"]),
        silent_until=values.span(head["silent_until"]),
        unstorable_until=values.span(head["unstorable_until"]),
        lasts=Lasting(values.count(head["lasts"])),
        kept_out=values.inputs(head["kept_out"]),
        names=values.texts(head["names"]),
        seq=values.count(head["seq"]),
    )
