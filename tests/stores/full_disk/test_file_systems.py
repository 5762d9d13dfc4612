"""Real file systems that are full, rewritten or failing: SIGBUS ends no worker, neither a running one nor one that starts then.

``make soak`` only, as root: the file systems are in files that are mounted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flask_stalecache.filesystem import shared_memory
from flask_stalecache.stores.table.stamps import FILE_NAME
from support.file_store import make_site, visit
from support.files import replace_text
from support.processes import workers
from support.threads import wait_until

pytestmark = pytest.mark.soak

MAKERS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
SIZE = 400 * 1024 * 1024
#: A call after which the file system fails, and its option to lose what is in the log.
SHUTDOWN, NO_FLUSH = 0x8004587D, 2


def done(*command: object) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


@pytest.fixture(params=MAKERS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    if shutil.which(MAKERS[request.param][0]) is None or not done(*MAKERS[request.param], image):
        pytest.skip(f"there is no {MAKERS[request.param][0]}")
    if not done("mount", "-o", "loop", image, place):
        pytest.skip(f"{request.param} can't be mounted here")
    yield place
    done("umount", "-l", place)


def visit_until(directory: Path, stop: Path, told: Path, refused: bool) -> int:
    """Visit pages and do the housekeeping until ``stop`` exists; write the number of good pages to ``told``, and return it."""
    if refused:
        shared_memory.FOLDER = "/nowhere"
    app, _ = make_site(directory)
    runtime, good = app.extensions["stalecache"].engine.runtime, 0
    while not stop.exists():
        for path in ("/page", "/news", "/page"):
            word, text = visit(app, path)
            assert text.startswith("run "), (word, text)
            good += 1
        runtime.tick()
        replace_text(told, str(good))
    return good


def fill(disk: Path) -> None:
    """Leave no room on a disk. A copy-on-write file system can then not even change a block of an existing file."""
    for size in (1024 * 1024, 4096, 1):
        with suppress(OSError), (disk / f"ballast-{size}").open("wb", buffering=0) as file:
            while True:
                file.write(os.urandom(size))
    os.sync()


def restore_over_it(disk: Path) -> None:
    backup = disk.with_name("backup")
    assert done("cp", "-a", disk / "cache", backup)
    for _ in range(20):
        assert done("cp", "-a", f"{backup}/.", disk / "cache")


def empty_all(disk: Path) -> None:
    for path in [disk / "cache" / FILE_NAME, *(disk / "cache" / "stats").iterdir()]:
        os.truncate(path, 0)


def fail(disk: Path) -> None:
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_FLUSH))
    except OSError:
        # btrfs has no such call.
        done("mount", "-o", "remount,ro", disk)
    finally:
        os.close(descriptor)
    Path("/proc/sys/vm/drop_caches").write_text("3")


@pytest.mark.parametrize("refused", [False, True], ids=["in memory", "in the directory"])
@pytest.mark.parametrize("harm", [fill, restore_over_it, empty_all, fail])
def test_workers_go_on_and_others_start(disk: Path, tmp_path: Path, harm: Callable[[Path], None], refused: bool) -> None:
    stop, told = tmp_path / "stop", [tmp_path / "told-1", tmp_path / "told-2"]

    def goes_on(path: Path, more: int = 60) -> None:
        before = told_by(path)
        wait_until(lambda: told_by(path) >= before + more)

    with workers(2) as (old, new):
        old.start(visit_until, disk / "cache", stop, told[0], refused)
        goes_on(told[0])
        harm(disk)
        goes_on(told[0])
        new.start(visit_until, disk / "cache", stop, told[1], refused)
        for path in told:
            goes_on(path)
        stop.touch()
        assert [old.result() > 0, new.result() > 0] == [True, True]


def told_by(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0
