"""The bytes of a note: JSON. Pure."""

from __future__ import annotations

import json

from ..core.model.note import NOTHING, Lasting, Note
from . import head_values as values


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
    return json.dumps(data).encode("ascii")


def decode(data: bytes) -> Note:
    """Return the note in stored bytes; an empty one if they are damaged or absurd, since a note is only advice."""
    try:
        head = json.loads(data)
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
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return NOTHING
