"""The bytes of a note: JSON. Pure."""

from __future__ import annotations

import json

from ..core.model.inputs import RequestInputs
from ..core.model.note import NOTHING, Note


def encode(note: Note) -> bytes:
    """Return the bytes of a note."""
    data = {
        "written": note.written,
        "failures": note.failures,
        "retry_at": note.retry_at,
        "silent_until": note.silent_until,
        "unstorable_until": note.unstorable_until,
        "kept_out": note.kept_out.to_json(),
    }
    return json.dumps(data).encode("ascii")


def decode(data: bytes) -> Note:
    """Return the note in stored bytes; an empty one if they are damaged, since a note is only advice."""
    try:
        head = json.loads(data)
        return Note(
            written=float(head["written"]),
            failures=int(head["failures"]),
            retry_at=float(head["retry_at"]),
            silent_until=float(head["silent_until"]),
            unstorable_until=float(head["unstorable_until"]),
            kept_out=RequestInputs.from_json(head["kept_out"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return NOTHING
