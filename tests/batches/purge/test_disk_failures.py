"""Purging in an app: a disk that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache import StoreError
from flask_stalecache.filesystem import locks
from support.purge_site import Site


def failing_from(monkeypatch: pytest.MonkeyPatch, directory: Path, step: int, number: int) -> list[str]:
    """Let everything that changes the directory fail from its ``step``-th call on; return the list of what failed."""
    calls, failures = [0], []

    def is_ours(target: Any, at: int | None) -> bool:
        held = target if isinstance(target, int) else at
        name = os.fspath(target) if held is None else os.readlink(f"/proc/self/fd/{held}")
        return name.startswith(str(directory))

    def failing(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            reads = name == "open" and not args[0] & (os.O_WRONLY | os.O_RDWR)
            if reads or not is_ours(target, kwargs.get("dir_fd", kwargs.get("src_dir_fd"))):
                return real(target, *args, **kwargs)
            calls[0] += 1
            if calls[0] >= step:
                failures.append(name)
                raise OSError(number, os.strerror(number))
            return real(target, *args, **kwargs)

        return call

    for name in ("open", "write", "utime", "fchmod", "rename", "mkdir"):
        monkeypatch.setattr(os, name, failing(name))
    return failures


@pytest.mark.soak
@pytest.mark.parametrize(
    ("number", "soft", "first"),
    [(errno.ENOSPC, False, False), (errno.ENOSPC, True, True), (errno.EROFS, False, True), (errno.EIO, True, False)],
)
def test_a_purge_that_cannot_be_written_is_an_error_and_can_be_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch, soak: Callable[[int, int], int], number: int, soft: bool, first: bool
) -> None:
    """At whichever step the disk fails: the caller gets an error, visitors get their pages, and a later purge succeeds."""
    paths, statuses = ("/news/1", "/said", "/prices/eur"), (200,) * 3

    def see() -> tuple[int, ...]:
        return tuple(site.visit(path).status for path in paths)

    if not first:
        site.publish(tag="news")
        site.publish(tag="another")
    # Under make test every second step only: the even ones after other purges, the odd ones if this purge is the first.
    step, failed_at = soak(0, -int(first)), set()
    while True:
        step += soak(1, 2)
        see()
        site.settle()
        assert site.words(paths) == dict.fromkeys(paths, "HIT")
        with monkeypatch.context() as patch:
            failures = failing_from(patch, site.store.directory, step, number)
            try:
                site.publish(tag="news", soft=soft)
            except StoreError:
                pass
            else:
                if not failures:
                    break
                # A full disk has no room for a record, but entries can be removed.
                assert number == errno.ENOSPC
                assert site.visit("/news/1").page == ("MISS", f"version {site.version}")
            failed_at.add(failures[0])
            assert see() == statuses
        assert see() == statuses
        site.publish(tag="news", soft=soft)
        word = "STALE" if soft else "MISS"
        assert site.words(paths) == {"/news/1": word, "/said": word, "/prices/eur": "HIT"}
        site.settle()
        assert site.visit("/news/1").page == ("HIT", f"version {site.version}")
    assert failed_at >= {"open", "write", "rename"}
    assert not list((site.store.directory / "names").glob("*.tmp"))


def make_file(path: Path) -> None:
    path.write_bytes(b"")


def make_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("obstacle", [make_file, make_link_to_nothing])
def test_where_no_names_can_be_kept_a_purge_is_an_error_and_the_pages_go_on(site: Site, obstacle: Callable[[Path], None]) -> None:
    for word in ("MISS", "HIT"):
        assert site.visit("/news/1").word == word
    names = site.store.directory / "names"
    if names.exists():
        names.rename(site.store.directory / "set-aside")
    obstacle(names)
    for _ in range(2):
        with pytest.raises(StoreError):
            site.publish(tag="news")
        assert site.visit("/news/1").status == 200
        assert site.visit("/prices/eur").status == 200
    names.unlink()
    site.publish(tag="news")
    assert [site.visit("/news/1").page for _ in range(2)] == [
        ("MISS", f"version {site.version}"),
        ("HIT", f"version {site.version}"),
    ]


def test_a_purge_does_not_wait_for_ever_for_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped in the middle of a purge holds its lock."""
    for word in ("MISS", "HIT"):
        assert site.visit("/news/1").word == word
    monkeypatch.setattr(locks, "PATIENCE", 0.02)
    lock = site.store._cache_directory.lock("purge")
    assert lock.acquire()
    site.publish(tag="news")
    assert site.visit("/news/1").page == ("MISS", "version 2")
    lock.release()
    site.publish(tag="news")
    assert site.visit("/news/1").page == ("MISS", "version 3")
