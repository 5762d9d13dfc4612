"""File systems that are not suitable for a cache directory: on the network, of a host, or without locks.

Covers ``filesystem.mounts``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache import ConfigError, FileStore, GatewayCache, StoreError
from flask_stalecache.filesystem import mounts, shared_memory
from flask_stalecache.filesystem.mounts import NETWORK, OF_THE_HOST, kind_at, why_no_locks
from support.client import MakeApp, visit
from support.engine import make_entry

Put = Callable[..., None]
#: A device that no directory of the test is on.
ELSEWHERE = "0:4711"
#: A space, as it is written there.
SPACE = "\\040"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Replace the list of mounts: each is a place, a kind, and whether it is the file system of the test's files."""

    def put(*mounted: tuple[str | Path, str, bool]) -> None:
        here = os.stat(tmp_path).st_dev
        device = f"{os.major(here)}:{os.minor(here)}"
        # The shared memory is always there, and the test's files may be in it.
        every = [
            (shared_memory.FOLDER, "tmpfs", False),
            *((tmp_path if place == "/" else place, *more) for place, *more in mounted),
        ]
        lines = [
            f"{number} 1 {device if is_here else ELSEWHERE} / {str(place).replace(' ', SPACE)} rw shared:1 - {kind} source rw"
            for number, (place, kind, is_here) in enumerate(every)
        ]
        path = tmp_path / f"mountinfo-{os.urandom(4).hex()}"
        path.write_text("\n".join(lines))
        monkeypatch.setattr(mounts, "MOUNTS", str(path))

    return put


# -- which kind ------------------------------------------------------------------------------------------------------


def test_the_nearest_mount_counts(put: Put, tmp_path: Path) -> None:
    near = tmp_path / "a b"
    put(("/", "ext4", True), (tmp_path, "xfs", True), (near, "nfs4", True), (f"{tmp_path}/a", "cifs", True))
    assert kind_at(tmp_path / "file") == "xfs"
    # It does not exist, and would be on the disk that is there now.
    assert kind_at(near / "cache") == "xfs"
    near.mkdir()
    assert kind_at(near / "cache") == kind_at(near) == "nfs4"
    assert kind_at(tmp_path / "a bit") == "xfs"


def test_a_later_mount_hides_earlier_ones(put: Put, tmp_path: Path) -> None:
    put(("/", "ext4", True), (tmp_path, "nfs4", True), (tmp_path, "xfs", True))
    assert kind_at(tmp_path) == "xfs"
    (tmp_path / "below").mkdir()
    put((tmp_path / "below", "nfs4", False), (tmp_path, "xfs", True))
    assert kind_at(tmp_path / "below") == "xfs"


def test_a_part_of_btrfs_has_a_number_of_its_own(put: Put, tmp_path: Path) -> None:
    put(("/", "ext4", False), (tmp_path, "btrfs", False))
    assert kind_at(tmp_path) == "btrfs"


def test_a_link_is_followed(put: Put, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to("share")
    put(("/", "ext4", True), (tmp_path / "share", "nfs", True))
    assert kind_at(tmp_path / "link" / "cache") == "nfs"


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 a:b / / rw - ext4 x rw\n", "1 - ext4\n"])
def test_a_list_of_another_form_tells_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(text)
    monkeypatch.setattr(mounts, "MOUNTS", str(tmp_path / "mountinfo"))
    assert kind_at(tmp_path) == ""


def test_a_system_without_a_list_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", str(tmp_path / "nowhere"))
    assert kind_at(tmp_path) == ""
    FileStore(tmp_path / "cache").check()


@pytest.mark.skipif(not Path(mounts.MOUNTS).exists(), reason="only Linux lists its mounts")
def test_the_real_list() -> None:
    assert (kind_at("/proc"), kind_at("/proc/self/fd")) == ("proc", "proc")
    assert kind_at("/") not in ("", *NETWORK)


# -- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(NETWORK))
def test_a_network_file_system_is_refused_at_the_start(put: Put, directory: Path, kind: str) -> None:
    put(("/", kind, True))
    with pytest.raises(ConfigError) as caught:
        FileStore(directory).check()
    assert f"the cache directory {directory} is on a network file system ({kind})" in str(caught.value)
    assert "STALECACHE_ALLOW_NETWORK_DIR=True" in str(caught.value)
    FileStore(directory, allow_network_directory=True).check()
    assert not directory.exists()


def test_an_app_says_so_when_it_is_set_up(put: Put, make_app: MakeApp, directory: Path) -> None:
    put(("/", "nfs4", True))
    with pytest.raises(ConfigError, match="nfs4"):
        make_app()
    with pytest.raises(ConfigError, match="nfs4"):
        GatewayCache(lambda environ, start_response: [], dir=str(directory))
    GatewayCache(lambda environ, start_response: [], dir=str(directory), allow_network_dir=True)
    app, cache = make_app(ALLOW_NETWORK_DIR=True)

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        return "page"

    assert [visit(app, "/").word for _ in range(2)] == ["MISS", "HIT"]


def test_one_that_is_mounted_later_is_not_used(
    put: Put, make_app: MakeApp, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(("/", "ext4", True))
    app, cache = make_app()

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        return "page"

    put(("/", "nfs4", True))
    assert [visit(app, "/").page for _ in range(2)] == [("MISS", "page")] * 2
    assert "is on a network file system (nfs4)" in caplog.text
    assert not directory.exists()
    with app.app_context(), pytest.raises(StoreError, match="nfs4"):
        cache.purge("/")


@pytest.mark.parametrize("kind", sorted(OF_THE_HOST))
def test_a_directory_of_the_host_is_used_with_a_warning(
    put: Put, directory: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(("/", kind, True))
    store = FileStore(directory)
    with caplog.at_level(logging.WARNING):
        store.check()
        store.write(make_entry())
        store.check()
    assert [record.args[1] for record in caplog.records if record.args] == [kind]
    assert store.load("page").entry is not None


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuse", "fuseblk", "fuse.fuse-overlayfs", "apfs"]
)
def test_others_are_used_without_notice(put: Put, directory: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    put(("/", kind, True))
    FileStore(directory).check()
    assert caplog.text == ""


# -- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def no_locks(number: int) -> None:
        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return no_locks


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
@pytest.mark.parametrize("exists", [True, False])
def test_a_file_system_without_locks_is_refused_at_the_start(
    make_app: MakeApp, directory: Path, no_locks: Callable[[int], None], number: int, exists: bool
) -> None:
    if exists:
        directory.mkdir(mode=0o700)
    no_locks(number)
    with pytest.raises(ConfigError) as caught:
        make_app()
    assert f"has no file locks ({os.strerror(number)})" in str(caught.value)
    assert "STALECACHE_STORE='memory'" in str(caught.value)
    assert directory.exists() == exists


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_visitors_are_served_if_the_locks_go_later(make_app: MakeApp, no_locks: Callable[[int], None], number: int) -> None:
    app, cache = make_app()

    @app.get("/<name>")
    @cache.cached(60)
    def page(name: str) -> str:
        return name

    assert visit(app, "/a").word == "MISS"
    no_locks(number)
    assert visit(app, "/a").page == ("HIT", "a")
    assert visit(app, "/b").text == "b"


def test_what_is_locked_by_another_can_be_locked(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert why_no_locks(tmp_path) is None
    finally:
        os.close(descriptor)
    assert why_no_locks(tmp_path / "missing") is None
