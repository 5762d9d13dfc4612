"""A cache directory that goes away while the app runs: live pages, and no restart."""

from __future__ import annotations

import shutil
import stat
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from flask_stalecache import FileStore, StoreError
from support.disks import WORKERS, Shop
from support.engine import make_entry
from support.servers import wait_for
from support.threads import PATIENCE


def emptied(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def deleted(directory: Path) -> None:
    directory.rename(directory.with_name("gone"))
    remove(directory.with_name("gone"))


def replaced_by_an_empty_one(directory: Path) -> None:
    directory.with_name("new").mkdir(mode=0o700)
    exchanged(directory)


def replaced_by_a_copy(directory: Path) -> None:
    # A lock or an unfinished file may be gone by the time it is its turn.
    with suppress(shutil.Error):
        shutil.copytree(directory, directory.with_name("new"))
    directory.with_name("new").chmod(0o700)
    exchanged(directory)


def replaced_by_a_file(directory: Path) -> None:
    directory.with_name("new").write_text("not a directory")
    exchanged(directory)


def replaced_by_a_link_to_what_is_not_there_yet(directory: Path) -> None:
    directory.with_name("new").symlink_to("not/there/yet")
    exchanged(directory)


def replaced_by_a_link(directory: Path) -> None:
    target = directory.with_name("elsewhere")
    target.mkdir(mode=0o700)
    directory.with_name("new").symlink_to(target)
    exchanged(directory)


def closed_to_us(directory: Path) -> None:
    """Others can write to it, so it is refused."""
    directory.with_name("new").mkdir()
    directory.with_name("new").chmod(0o777)
    exchanged(directory)


def exchanged(directory: Path) -> None:
    for attempt in range(100):
        directory.rename(directory.with_name(f"old{attempt}"))
        try:
            directory.with_name("new").rename(directory)
        except OSError:
            # A worker has made the directory again between the two renames: move that one away, too.
            continue
        break
    for old in directory.parent.glob("old*"):
        remove(old)


def remove(directory: Path) -> None:
    """Remove a directory in which workers may be in the middle of a write."""
    wait_for(lambda: shutil.rmtree(directory, ignore_errors=True) or not directory.exists(), SOON)


def mended(directory: Path) -> None:
    """Remove a link or file in place of a directory, or close an existing directory to others."""
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    elif directory.exists():
        directory.chmod(0o700)


#: What becomes of the directory, and whether it can be used then.
DAMAGES: dict[Callable[[Path], None], bool] = {
    deleted: True,
    emptied: True,
    replaced_by_an_empty_one: True,
    replaced_by_a_copy: True,
    replaced_by_a_link: True,
    replaced_by_a_link_to_what_is_not_there_yet: True,
    replaced_by_a_file: False,
    closed_to_us: False,
}

every_damage = pytest.mark.parametrize(("damage", "usable"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])


@every_damage
def test_a_process_that_only_hits_sees_a_directory_that_came_back(
    directory: Path, damage: Callable[[Path], None], usable: bool
) -> None:
    """It holds copies, so it would never look; a purge by another process has to reach it all the same."""
    store, other = FileStore(directory), FileStore(directory)
    store.write(make_entry(seq=store.seq()))
    copy = store.load("page")
    other.load("page")
    assert store.lookup("page") is copy
    damage(directory)
    for each in (store, other):
        for _ in range(2):
            with suppress(StoreError):
                each.tick()
        if not usable:
            with pytest.raises(StoreError):
                each.purge("all", soft=False)
    if usable:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    mended(directory)
    for each in (store, other):
        each.tick()
    other.purge("all", soft=False)
    found = store.lookup("page")
    assert found is None
    assert store.load("page").entry is None


#: Seconds in which all workers have had many ticks.
SOON = 10


@pytest.mark.server
@every_damage
def test_workers_live_through_the_loss_of_their_directory(shop: Shop, damage: Callable[[Path], None], usable: bool) -> None:
    text = shop.publish()
    mended(shop.directory)
    wait_for(shop.purge_reaches_all, SOON)
    statuses, over = Counter[int](), threading.Event()

    def come() -> None:
        for number in count():
            for path in ("/page/seen", f"/page/{text}-{number}"):
                statuses[shop.server.get(path.replace(" ", "-")).status] += 1
            if over.is_set():
                return

    with_visitors = threading.Thread(target=come, daemon=True)
    with_visitors.start()
    try:
        before = shop.failures()
        damage(shop.directory)
        if not usable:
            # Each worker's housekeeping has met it.
            wait_for(lambda: all(now > before[pid] for pid, now in shop.failures().items()), SOON)
            assert shop.server.get("/purge").status == 503
            shop.by_all("/page/while-it-is-away")
        mended(shop.directory)
        wait_for(shop.purge_reaches_all, SOON)
        wait_for(shop.is_stored, SOON)
        assert shop.purge_reaches_all()
    finally:
        over.set()
        with_visitors.join(PATIENCE)
        mended(shop.directory)
    assert set(statuses) == {200}
    assert len(shop.server.worker_pids) == WORKERS
    assert "Worker exiting" not in shop.server.log_text
