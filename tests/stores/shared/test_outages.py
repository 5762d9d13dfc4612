"""Sites on two hosts while their real server fails in every way: visitors notice nothing, and no acknowledged purge is lost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from flask_stalecache import StaleCache, StoreError
from flask_stalecache.stores.shared import known as known_module
from flask_stalecache.stores.shared.errors_of import Unavailable
from flask_stalecache.stores.shared.store import RedisStore
from support.client import settle, visit
from support.endurance import IS_SOAK
from support.shared_hosts import PROGRAMS, Server
from support.threads import PATIENCE, wait_until

pytestmark = pytest.mark.soak


@dataclass
class Site:
    """A site on one host, whose logs are read when a test says so."""

    app: Flask
    cache: StaleCache
    store: RedisStore
    calls: Counter[str]
    failed: list[str] = field(default_factory=list)

    def visit(self, path: str) -> tuple[str, str]:
        """Return how a visitor is answered: never with an error."""
        seen = visit(self.app, path)
        assert seen.status == 200
        return seen.page

    def purge(self, path: str, *, soft: bool = False) -> None:
        with self.app.app_context():
            self.cache.purge(path, soft=soft)

    def read(self) -> None:
        """Hear what is new, as soon as the server answers."""
        wait_until(self._reads, "an answer of the server")

    def _reads(self) -> bool:
        try:
            self.store.follower.read_once()
        except StoreError:
            return False
        return True

    def settle(self) -> None:
        settle(self.app, self.cache, PATIENCE)


MakeSite = Callable[..., Site]


@pytest.fixture
def calls() -> Counter[str]:
    """How often each page was made, on both hosts."""
    return Counter()


@pytest.fixture
def make_site(tmp_path: Path, calls: Counter[str], no_housekeeping: None) -> MakeSite:
    def make(url: str, name: str, timeout: float) -> Site:
        app = Flask("outages", root_path=str(tmp_path))
        store = RedisStore(url, tmp_path / name / "cache", name="outages", timeout=timeout, purge_wait=0)
        site = Site(app, StaleCache(app, store=store), store, calls)
        run = store._client.run

        def counted(*args: Any, **options: Any) -> Any:
            try:
                return run(*args, **options)
            except Unavailable as error:
                site.failed.append(str(error))
                raise

        store._client.run = counted  # type: ignore[method-assign]

        @app.get("/<name>")
        @site.cache.cached(max_age=600, stale_while_revalidate=6000)
        def page(name: str) -> str:
            calls[name] += 1
            return f"{name} {calls[name]}"

        return site

    return make


@dataclass(frozen=True)
class Outage:
    """A way in which a server fails.

    :ivar begin: makes it fail.
    :ivar end: mends it.
    :ivar said: what the log says.
    :ivar timeout: seconds for one try at it.
    """

    begin: Callable[[Server], object]
    end: Callable[[Server], object]
    said: str
    timeout: float = PATIENCE


def load_slowly(server: Server) -> None:
    """Start it with so much data that it loads for a while."""
    # While it loads, it looks for requests after each so many bytes: Redis after 2 MB, Valkey as it is told.
    count, size, options = 30_000, 1, ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]
    if server.kind == "redis":
        count, size, options = 80, 1_000_000, ["--key-load-delay", "60000"]
    config(rdbcompression="no")(server)
    server.client().mset({f"ballast:{number}": "x" * size for number in range(count)})
    server.save()
    server.kill()
    server.launch(*options)
    wait_until(lambda: is_loading(server), "loading")


def is_loading(server: Server) -> bool:
    with suppress(redis.ConnectionError):
        return bool(server.client().info("persistence")["loading"])
    return False


def load_at_once(server: Server) -> None:
    # Redis does not let this be changed meanwhile.
    with suppress(redis.ResponseError):
        server.client().config_set("key-load-delay", 0)
    wait_until(server.answers, "the end of loading")


def config(**settings: object) -> Callable[[Server], None]:
    def change(server: Server) -> None:
        for name, value in settings.items():
            server.client().config_set(name.replace("_", "-"), value)  # type: ignore[arg-type]

    return change


def follow_nobody(server: Server, *, serves: bool) -> None:
    config(replica_serve_stale_data="yes" if serves else "no")(server)
    server.client().replicaof("127.0.0.1", 1)


def lead(server: Server) -> None:
    server.client().execute_command("REPLICAOF", "NO", "ONE")


def deny(server: Server) -> None:
    server.client().execute_command("ACL", "SETUSER", "default", "-@all", "+acl|setuser", "+client", "+hello", "+select", "+acl")


def allow(server: Server) -> None:
    server.client().execute_command("ACL", "SETUSER", "default", "+@all")


def fail_to_save(server: Server) -> None:
    """Let it refuse writes, since it can't save."""
    (server.folder / "dump.rdb").unlink()
    (server.folder / "dump.rdb" / "full").mkdir(parents=True)
    config(save="3600 1", stop_writes_on_bgsave_error="yes")(server)
    server.client().set("changed", "1")

    def has_failed() -> bool:
        return str(server.client().info("persistence")["rdb_last_bgsave_status"]) == "err"

    server.client().bgsave()
    wait_until(has_failed, "a failure to save")


OUTAGES = {
    "killed": Outage(Server.kill, Server.start, "can't be connected to"),
    "hangs": Outage(Server.hang, Server.go_on, "does not answer in time", 0.3),
    "loading": Outage(load_slowly, load_at_once, "is loading its data"),
    "read-only": Outage(lambda server: follow_nobody(server, serves=True), lead, "is a replica"),
    "master down": Outage(lambda server: follow_nobody(server, serves=False), lead, "without its primary"),
    "no replicas": Outage(config(min_replicas_to_write=1), config(min_replicas_to_write=0), "without its primary"),
    "no rights": Outage(deny, allow, "its user lacks rights"),
    "can't save": Outage(fail_to_save, config(stop_writes_on_bgsave_error="no"), "can't be written"),
}


@pytest.fixture(params=PROGRAMS if IS_SOAK else ["valkey"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that may fail."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, kind=request.param)
    yield server
    server.close()


#: The others are answers that are sorted like these.
FEW = ["killed", "hangs", "loading", "read-only", "no rights"]


@pytest.mark.parametrize("name", OUTAGES if IS_SOAK else FEW)
def test_an_outage(
    name: str,
    mortal: Server,
    make_site: MakeSite,
    calls: Counter[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outage = OUTAGES[name]
    # Seconds for which a failed server is not asked. No follower renews them here, and the default is short for a busy machine.
    monkeypatch.setattr(known_module, "DOWN_FOR", 50.0)
    # A server that was heard within this time counts as slow: less than the patience with a server that hangs.
    monkeypatch.setattr(known_module, "HEARD_WITHIN", 0.5)
    caplog.set_level(logging.WARNING, "flask_stalecache")
    one, two = (make_site(mortal.url, name, outage.timeout) for name in ("one", "two"))
    for site in (one, two):
        for page in ("kept", "old", "gone"):
            assert site.visit(f"/{page}")[1] == f"{page} 1"
    one.purge("/gone")
    one.purge("/old", soft=True)
    two.read()
    mortal.save()
    assert not one.failed + two.failed
    outage.begin(mortal)
    for number, site in enumerate((one, two), 1):
        assert site.visit("/kept") == ("HIT", "kept 1")
        for turn in range(4):
            assert site.visit(f"/new{turn}") == ("MISS", f"new{turn} {number}")
            assert site.visit(f"/new{turn}") == ("HIT", f"new{turn} {number}")
        assert site.visit("/gone") == ("MISS", f"gone {1 + number}")
        # Each host makes it anew, and only once.
        assert site.visit("/old")[0] == "STALE"
        site.settle()
        assert site.visit("/old") == ("HIT", f"old {1 + number}")
        # Each host waits for the server once in an outage.
        assert len(site.failed) == 1, site.failed
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "can't be used" in line and outage.said in line]) == 2, said
    with pytest.raises(StoreError, match="on this host only"):
        one.purge("/kept")
    assert one.visit("/kept") == ("MISS", "kept 2")
    outage.end(mortal)
    for site in (one, two, one, two):
        site.read()
    assert two.visit("/kept")[1] != "kept 1"
    assert two.visit("/kept") == ("HIT", f"kept {calls['kept']}")
    assert one.visit("/kept")[1] != "kept 1"
    one.purge("/new0")
    two.read()
    assert two.visit("/new0") == ("MISS", "new0 3")
