"""The progress of the sweep, for the process that continues it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...filesystem.sealed import seal_json, unseal_json
from ..formats import head_values as values
from ..table.stamps import FOLDERS

_KIND = b"SWEP"


@dataclass(slots=True)
class Progress:
    """The progress of the sweep. The next process continues from there.

    :ivar next_at: time at which the next folder is due, in seconds since the epoch.
    :ivar folder: number of that folder.
    :ivar after: the last key of the folder that was looked at; "" at its beginning.
    :ivar size: bytes of the keys that were looked at and kept.
    :ivar entries: number of their entries.
    :ivar notes: bytes of their notes without an entry.
    :ivar is_begun: whether the sweep has begun; if not, it begins with the first folder.
    :ivar began: SEQ at the beginning of this sweep.
    :ivar began_at: time of its beginning, in seconds since the epoch.
    :ivar boot: the identifier of the machine's start, when this sweep began.
    :ivar began_up: the seconds since the machine's start, when this sweep began.
    :ivar checked: SEQ at the beginning of the last sweep that looked for purged entries and removed all of them.
    :ivar looks: whether this sweep looks for purged entries.
    :ivar escaped: whether a purged entry could not be removed; then the next sweep looks for it again.
    :ivar in_use: purged names of entries that were begun before the purge.
    """

    next_at: float = 0.0
    folder: int = 0
    after: str = ""
    size: int = 0
    entries: int = 0
    notes: int = 0
    is_begun: bool = False
    began: int = 0
    began_at: float = 0.0
    boot: str = ""
    began_up: float = 0.0
    checked: int = -1
    looks: bool = True
    escaped: bool = False
    in_use: list[str] = field(default_factory=list)

    def restart(self) -> None:
        """Start with the first folder."""
        self.folder, self.is_begun = 0, False
        self.restart_folder()

    def restart_folder(self) -> None:
        """Start at the beginning of the folder."""
        self.after, self.size, self.entries, self.notes = "", 0, 0, 0


def encode(progress: Progress) -> bytes:
    """Return the bytes of the file."""
    return seal_json(_KIND, asdict(progress))


def decode(data: bytes | None) -> Progress:
    """Return the noted progress; that of a new sweep if nothing was noted, or the file is damaged."""
    return unseal_json(_KIND, data, _progress) or Progress()


def _progress(noted: Any) -> Progress:
    progress = Progress(**{name: _CHECKS[type(value)](noted[name]) for name, value in asdict(Progress()).items()})
    if progress.folder not in range(FOLDERS):
        raise ValueError("a folder that there is not")
    return progress


def _number(value: Any) -> int:
    return -1 if value == -1 else values.count(value)


_CHECKS: Mapping[type, Callable[[Any], Any]] = {
    bool: values.flag,
    int: _number,
    float: values.moment,
    str: values.text,
    list: lambda value: list(values.texts(value)),
}
