"""``flask stalecache`` as a process of its own: beside workers that serve, interrupted, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

import pytest

from support import prepared
from support.prepared import PreparedProcess
from support.servers import PATIENCE, Server, Visitor, environment, serving, wait_for

pytestmark = pytest.mark.server

SITE = """
import os, time
from flask import Flask
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config.update(STALECACHE_DIR=os.environ["CACHE"], STALECACHE_BASE_URL=os.environ.get("BASE"))
cache = StaleCache(app)

@app.get("/pages/<int:number>")
@cache.cached(3600, 600, 86400, tags=lambda number: [f"page:{number}"])
def page(number):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(f"{number}\\n")
    # A third party that takes its time.
    time.sleep(0.005)
    return f"page {number}, made by {os.getpid()} at {time.time()}"
"""


class Shell(NamedTuple):
    """Runs ``flask stalecache`` for one app.

    :ivar folder: the folder with the app.
    :ivar env: environment variables of the commands, and of the server that runs beside them.
    """

    folder: Path
    env: Mapping[str, object]

    def start(self, *args: str, **options: object) -> subprocess.Popen[str]:
        """Start ``flask stalecache``."""
        command = [sys.executable, "-m", "flask", "--app", "live_app", "stalecache", *args]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(self.folder, self.env), text=True, **{**_PIPES, **options}
        )  # type: ignore[call-overload,no-any-return]

    def printing(self, *args: str) -> AbstractContextManager[tuple[PreparedProcess, TextIO]]:
        """Run ``flask stalecache``. Yield its process and its output, errors too, which can be read while it runs."""
        command = ["-m", "flask", "--app", "live_app", "stalecache", *args]
        env = environment(self.folder, self.env)
        return prepared.printing(command, prepared.SERVER_MODULES, folder=self.folder, env=env)

    def run(self, *args: str) -> tuple[int, str, str]:
        """Run ``flask stalecache`` to its end, and return its exit code, its output and its errors."""
        command = ["-m", "flask", "--app", "live_app", "stalecache", *args]
        done = prepared.run(command, folder=self.folder, env=environment(self.folder, self.env), timeout=PATIENCE)
        return done.returncode, done.stdout, done.stderr

    @property
    def runs(self) -> list[str]:
        """The pages that were made, in order."""
        return Path(str(self.env["RUNS"])).read_text().split()


_PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "live_app.py").write_text(SITE)
    (tmp_path / "runs").touch()
    return Shell(tmp_path, {"CACHE": tmp_path / "cache", "RUNS": tmp_path / "runs", "BASE": "http://shop.example"})


@pytest.mark.soak
def test_a_warming_that_was_interrupted_goes_on_where_it_was(shell: Shell, soak: Callable[[int, int], int]) -> None:
    count = soak(1000, 90)
    urls = shell.folder / "urls.txt"
    urls.write_text("".join(f"/pages/{number}\n" for number in range(count)))
    with shell.printing("warm", str(urls), "--concurrency", "4") as (first, printed):
        told = [printed.readline() for _ in range(count // 3)]
        os.kill(first.pid, signal.SIGINT)
        told += printed.read().splitlines()
        assert first.wait(PATIENCE) == 1
    said = [line for line in told if not line.startswith("stored")]
    assert [line.startswith(f"interrupted: {count} found: ") for line in said] == [True], said
    done = {line.split("/pages/")[1].split()[0] for line in told if line.startswith("stored")}
    assert count // 3 <= len(done) < count

    code, verified, _ = shell.run("verify")
    assert (code, verified.split(",")[1]) == (0, " 0 broken\n")
    assert len(done) <= int(verified.split()[0]) <= len(set(shell.runs))
    code, out, err = shell.run("warm", str(urls), "--concurrency", "4")
    *told, summary = out.splitlines()
    assert (code, err) == (0, "")
    skipped = {line.split("/pages/")[1].split()[0] for line in told if line.startswith("skipped")}
    assert done <= skipped
    assert summary == f"{count} found: {count - len(skipped)} done, 0 failed, {len(skipped)} skipped"
    # Each was made once, but for those that were cut off in the middle.
    assert len(set(shell.runs)) == count
    assert len(shell.runs) - count <= 4
    assert shell.run("verify")[:2] == (0, f"{count} sound, 0 broken\n")


def test_on_a_terminal_there_is_a_bar(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    process = shell.start("warm", "/pages/1", "/pages/2", stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b"".join(_blocks(ours)).decode()
    assert process.wait(PATIENCE) == 0
    assert "warm" in shown
    assert "2/2" in shown
    assert "[####" in shown
    assert shown.rstrip().endswith("2 found: 2 done, 0 failed, 0 skipped")


def _blocks(descriptor: int) -> Iterator[bytes]:
    # At the end of a terminal, reading raises an error.
    with suppress(OSError):
        while block := os.read(descriptor, 1024):
            yield block
    os.close(descriptor)


@pytest.fixture
def served(shell: Shell) -> Iterator[tuple[Shell, Server]]:
    with serving("gthread", SITE, shell.folder, env=shell.env, workers=2, threads=2) as server:
        yield Shell(shell.folder, {**shell.env, "BASE": f"http://127.0.0.1:{server.port}"}), server


def test_beside_workers_that_serve(served: tuple[Shell, Server]) -> None:
    shell, server = served

    def visit(number: int) -> tuple[str, str]:
        with Visitor(server) as visitor:
            answer = visitor.get(f"/pages/{number}")
            return answer.headers["X-Cache-Status"], answer.text

    # Filled by the command, a hit for a visitor: the keys are the same without a server.
    assert shell.run("warm", "/pages/1", "/pages/2")[0] == 0
    assert [visit(number)[0] for number in (1, 2, 1)] == ["HIT"] * 3
    # The next request sees the purge, whichever worker answers it.
    assert shell.run("purge", "--tag", "page:1")[0] == 0
    status, text = visit(1)
    assert (status, sorted(shell.runs)) == ("MISS", ["1", "1", "2"])
    # What the command makes anew is what visitors get.
    assert shell.run("refresh", "/pages/1")[0] == 0
    status, renewed = visit(1)
    assert (status, renewed != text) == ("HIT", True)
    assert shell.run("publish", "--prefix", "/pages/")[0] == 0
    assert [visit(number)[0] for number in (1, 2)] == ["HIT", "HIT"]
    # The numbers include those of the workers and of the commands that have ended.
    numbers = json.loads(shell.run("stats", "--json")[1])
    assert (numbers["requests"]["HIT"], numbers["requests"]["MISS"], sum(numbers["requests"].values())) == (6, 1, 7)
    assert numbers["origin_calls"] == len(shell.runs) == 6
    assert wait_for(lambda: len(json.loads(shell.run("list", "--json")[1])) == 2, what="two pages are stored")
