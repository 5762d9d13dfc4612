"""The files for service managers that the documentation shows: commands, time-outs and volumes fit the worker."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flask_stalecache.cli.worker import worker
from flask_stalecache.config.settings import KEYS

DEPLOY = Path(__file__).resolve().parents[2] / "example_app" / "deploy"


def service() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(DEPLOY / "stalecache-worker.service")
    return unit


def compose() -> dict[str, dict[str, object]]:
    services: dict[str, dict[str, object]] = yaml.safe_load((DEPLOY / "worker.compose.yaml").read_text(encoding="utf-8"))[
        "services"
    ]
    return services


COMMANDS = {
    "systemd": lambda: service()["Service"]["ExecStart"],
    "Procfile": lambda: re.search(r"^worker: (.*)$", (DEPLOY / "Procfile").read_text(), re.MULTILINE)[1],  # type: ignore[index]
    "compose": lambda: str(compose()["worker"]["command"]),
    "docs": lambda: re.search(  # type: ignore[index]
        r"^    (flask .* worker .*)$", (DEPLOY.parents[1] / "docs" / "outside.rst").read_text(), re.MULTILINE
    )[1],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_command_is_accepted(kind: str) -> None:
    flask, *words = shlex.split(COMMANDS[kind]())
    assert (Path(flask).name, words[:4]) == ("flask", ["--app", "shop", "stalecache", "worker"])
    context = worker.make_context("worker", words[4:])
    assert context.params == {"processes": 2, "max_requests": 0, "memory_limit": 0}


def test_what_runs_may_be_completed() -> None:
    deadline = KEYS["REFRESH_DEADLINE"].default
    assert isinstance(deadline, int)
    assert int(service()["Service"]["TimeoutStopSec"]) > deadline
    assert int(str(compose()["worker"]["stop_grace_period"]).removesuffix("s")) > deadline


def test_web_and_worker_share_a_directory_in_a_volume() -> None:
    web, other = compose()["web"], compose()["worker"]
    assert [web[name] == other[name] for name in ("image", "environment", "volumes")] == [True] * 3
