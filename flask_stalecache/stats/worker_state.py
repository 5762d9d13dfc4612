"""The activity of a host's worker, in a file that it writes each second and any process reads."""

from __future__ import annotations

import time
from typing import Any

from ..core.packets.packets import PREFIX
from ..filesystem.atomic import files_in, read_file, status_of, write_file
from ..filesystem.directory import Inside, Place
from ..filesystem.process import ProcessId, this_process
from ..filesystem.sealed import seal_json, unseal_json
from .schema import RunningRefresh, WorkerState

_KIND = b"WRK1"
#: Seconds after which a file counts as left behind: its worker was killed or stopped.
LASTS = 5.0


def write_state(place: Place, state: WorkerState) -> None:
    """Write the state; raise :class:`OSError` if that is not possible."""
    write_file(place, seal_json(_KIND, state), time.time_ns())


def read_state(place: Place) -> WorkerState | None:
    """Return the state of a worker; ``None`` without a worker."""
    try:
        is_alive = is_recent(place)
        return unseal_json(_KIND, read_file(place), _decoded) if is_alive else None
    except OSError:
        return None


def is_recent(place: Place) -> bool:
    """Whether a worker has written its state within the last :data:`LASTS` seconds."""
    try:
        status = status_of(place)
    except OSError:
        return False
    return status is not None and abs(time.time() - status.st_mtime) < LASTS


#: The processes that belong to a worker: this one and its ancestors.
_workers: set[ProcessId] = set()


def become_worker() -> None:
    """Note that this process belongs to a worker."""
    _workers.add(this_process())


def is_left_to_worker(directory: Inside) -> bool:
    """Whether a worker other than this process does the work for the whole directory."""
    if this_process() in _workers:
        return False
    try:
        names = [entry.name for entry in files_in(directory) if entry.name.startswith(PREFIX) and entry.name.endswith(".state")]
        return any(is_recent(directory._replace(name=name)) for name in names)
    except OSError:
        return False


def _decoded(data: Any) -> WorkerState:
    numbers = {name: _number(data[name]) for name in _NUMBERS}
    running = [
        RunningRefresh(key=str(each["key"]), title="", seconds=_number(each["seconds"]), pid=int(_number(each["pid"])))
        for each in data["running"]
    ]
    state: WorkerState = {"running": running, **numbers}  # type: ignore[typeddict-item]
    return state


_NUMBERS = (
    "pid", "since", "processes", "waiting", "longest_wait", "taken", "refused", "dropped", "bad", "restarts",
)  # fmt: skip


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return value
