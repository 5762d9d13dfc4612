"""Servers in company, for real: a replica and Sentinel, a cluster, TLS. The client is that of the user's callable, or of a URL."""

from __future__ import annotations

import logging
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey
from redis.sentinel import Sentinel

from flask_stalecache import StoreError
from flask_stalecache.stores.shared.store import RedisStore
from support.endurance import IS_SOAK
from support.shared_hosts import PROGRAMS, Server, free_port
from support.store_contract import NEWS, begun
from support.threads import PATIENCE, wait_until

KINDS = list(PROGRAMS) if IS_SOAK else ["valkey"]

MakeServer = Callable[..., Server]
MakeStore = Callable[..., RedisStore]


#: The clients of a test.
CLIENTS: list[Any] = []


def kept(client: Any) -> Any:
    CLIENTS.append(client)
    return client


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    with ExitStack() as stack:

        def make(name: str, kind: str, *options: str) -> Server:
            folder = tmp_path / name
            folder.mkdir()
            server = Server(folder, kind=kind, options=options, with_port=True)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    def make(source: Any, host: str = "one", **settings: Any) -> RedisStore:
        return RedisStore(source, tmp_path / host, name="test", **{"purge_wait": 0, "timeout": PATIENCE, **settings})

    return make


def body(store: RedisStore) -> bytes | None:
    entry = store.load("page").entry
    return None if entry is None else entry.body


def use(one: RedisStore, two: RedisStore) -> None:
    """Do everything once on two hosts."""
    for store in (one, two):
        store.load("first use")
    assert one.write(begun(one))
    assert body(two) is not None
    lock = one.lock("other")
    assert lock.acquire()
    assert not two.lock("other").acquire()
    lock.release()
    assert two.write(begun(two, "elsewhere"))
    assert [stored.entry.key for stored in one.walk()] == ["page", "elsewhere"]
    two.purge(NEWS, soft=False)
    one.follower.read_once()
    assert body(one) is None
    one.remove("elsewhere")
    two.follower.read_once()
    assert two.load("elsewhere").entry is None
    for store in (one, two):
        store.follower._logs.wait(store._known.applied, store._known.change, 1)


# -- a replica and Sentinel ------------------------------------------------------------------------------------------


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Callable[[Server, int], int]]:
    """``sentinel(primary)`` starts a Sentinel for a primary, and returns its port."""
    with ExitStack() as stack:

        def start(primary: Server) -> int:
            port, file = free_port(), tmp_path / "sentinel.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n"
                "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 2000\n"
            )
            command = [str(PROGRAMS[primary.kind]), str(file), "--sentinel"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return port

        yield start  # type: ignore[misc]


def knows_replica(port: int) -> bool:
    with suppress(redis.RedisError), redis.Redis(port=port, decode_responses=True) as client:
        return len(client.execute_command("SENTINEL", "REPLICAS", "main")) == 1
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_failover_that_loses_a_purge(
    kind: str, make_server: MakeServer, make_store: MakeStore, sentinel: Callable[[Server], int], caplog: pytest.LogCaptureFixture
) -> None:
    primary = make_server("primary", kind, "--repl-diskless-sync-delay", "0")
    replica = make_server("replica", kind, "--replicaof", "127.0.0.1", str(primary.port))
    wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up", "a replica")
    port = sentinel(primary)
    wait_until(lambda: knows_replica(port), "a sentinel that knows the replica")

    def client() -> Any:
        return kept(Sentinel([("127.0.0.1", port)], socket_timeout=PATIENCE).master_for("main"))

    one, two = make_store(client, "one"), make_store(client, "two")
    use(one, two)
    for store in (one, two):
        assert store.write(begun(store))
    two.follower.read_once()
    assert primary.client().execute_command("WAIT", 1, 1000 * int(PATIENCE)) == 1
    # The replica hears nothing more.
    primary.client().execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
    primary.client().execute_command("CLIENT", "KILL", "TYPE", "replica")
    one.purge(NEWS, soft=False)
    assert one.write(begun(one, body=b"new"))
    primary.kill()
    assert body(one) == b"new"
    assert body(two) is not None
    with pytest.raises(StoreError):
        one.purge("tag:other", soft=False)

    def is_back() -> bool:
        with suppress(StoreError):
            one.follower.read_once()
            return True
        return False

    wait_until(is_back, "a failover")
    assert replica.client().info("replication")["role"] == "master"
    # The new primary has never heard of the purge: who has made it says it again, and nobody serves what is older.
    two.follower.read_once()
    assert body(two) in (None, b"new")
    assert body(one) in (None, b"new")
    assert one.write(begun(one, body=b"newer"))
    two.follower.read_once()
    assert body(two) == b"newer"
    two.purge(NEWS, soft=False)
    one.follower.read_once()
    assert body(one) is None


# -- a cluster -------------------------------------------------------------------------------------------------------

CLUSTER = ("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "1000")


def give_slots(server: Server, slots: Iterable[int]) -> None:
    server.client().execute_command("CLUSTER", "ADDSLOTS", *slots)
    wait_until(lambda: is_sound(server), "a cluster")


def is_sound(server: Server) -> bool:
    # A client that asks for the answer as it is: libraries read it in different ways.
    answer = server.client().eval("return redis.call('CLUSTER', 'INFO')", 0)
    return "cluster_state:ok" in str(answer)


def of_redis(server: Server) -> Callable[[], Any]:
    return lambda: kept(redis.RedisCluster("127.0.0.1", server.port))


def of_valkey(server: Server) -> Callable[[], Any]:
    return lambda: kept(valkey.ValkeyCluster("127.0.0.1", server.port))


def of_url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster(kind: str, make_server: MakeServer, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    server = make_server("node", kind, *CLUSTER)
    for number, source in enumerate((of_url, of_redis, of_valkey)):
        store = make_store(source(server), f"early {number}")
        assert store.write(begun(store))
        assert body(store) == b"old"
    assert len([line for line in lines(caplog) if "goes on alone" in line]) == 3, lines(caplog)
    give_slots(server, range(16384))
    caplog.clear()
    for number, source in enumerate((of_url, of_redis, of_valkey)):
        server.client().flushall()
        use(make_store(source(server), f"one {number}"), make_store(source(server), f"two {number}"))
    assert lines(caplog) == []
    # A node that hangs takes nobody's time for longer than a server does.
    store = make_store(of_redis(server), "one 1", timeout=0.2)
    store.follower.read_once()
    server.hang()
    assert store.load("new").entry is None
    assert store.write(begun(store, "new"))
    assert store._known.is_down
    server.go_on()


@pytest.mark.parametrize("kind", KINDS)
def test_one_node_of_a_cluster(kind: str, make_server: MakeServer, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    one, two = make_server("one", kind, *CLUSTER), make_server("two", kind, *CLUSTER)
    one.client().execute_command("CLUSTER", "MEET", "127.0.0.1", two.port)
    slot = one.client().cluster("KEYSLOT", "{test}")
    one.client().execute_command("CLUSTER", "ADDSLOTS", *(each for each in range(16384) if each != slot))
    give_slots(two, [slot])
    wait_until(lambda: is_sound(one), "a cluster")
    store = make_store(of_url(one))
    assert store.write(begun(store))
    assert body(store) == b"old"
    (line,) = lines(caplog)
    assert "one node of a cluster" in line
    use(make_store(of_redis(one), "three"), make_store(of_url(two), "four"))


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    own, key = folder / "own.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, "-out", str(own), "-keyout", str(key)], check=True, capture_output=True)
    return own, key


class Tunnel:
    """Ends TLS before a server, as stunnel does: the servers of the tests are built without it."""

    def __init__(self, target: Path, certificate: tuple[Path, Path]) -> None:
        self.target = target
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, raw: socket.socket) -> None:
        with suppress(OSError), raw, self.context.wrap_socket(raw, server_side=True) as near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(self.target))
            while True:
                ready = [near] if near.pending() else select.select([near, far], [], [])[0]
                for source, sink in ((near, far), (far, near)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        sink.sendall(data)


@pytest.fixture
def tunnel(server: Server, certificate: tuple[Path, Path]) -> Iterator[Tunnel]:
    made = Tunnel(server.socket, certificate)
    yield made
    made.listener.close()


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls(
    scheme: str, tunnel: Tunnel, certificate: tuple[Path, Path], make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{scheme}://localhost:{tunnel.port}/0?ssl_ca_certs={certificate[0]}"
    use(make_store(url, "one"), make_store(url, "two"))
    assert lines(caplog) == []


@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "redis"])
def test_tls_that_fails(scheme: str, tunnel: Tunnel, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    # The client does not know the authority or, with ``redis``, does not use TLS.
    store = make_store(f"{scheme}://localhost:{tunnel.port}/0", timeout=1)
    for _ in range(3):
        assert store.load("page").entry is None
        assert store.write(begun(store))
        assert body(store) == b"old"
        store.remove("page")
    (line,) = lines(caplog)
    assert "can't be used" in line
    assert scheme == "redis" or "certificate" in line


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
