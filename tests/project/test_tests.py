"""The tests themselves: where the tests of a module are, how long a file may be, and that every process collects the same tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "flask_stalecache"
LONGEST = 600
PATIENCE = 300

FILES = sorted(TESTS.rglob("*.py"))
#: The docstring at the beginning of a file. Parsing all files would take seconds.
DOCSTRING = re.compile(r'r?"""(.*?)"""', re.DOTALL)
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

#: Modules without tests of their own, and why.
EXCEPTIONS: dict[str, str] = {}


@cache
def named_in_docstrings() -> frozenset[str]:
    """Return what test files say they cover: ``engine.runtime`` is ``flask_stalecache/engine/runtime.py``."""
    docstrings = (DOCSTRING.match(path.read_text()) for path in FILES if path.name.startswith("test_"))
    return frozenset(name for docstring in docstrings if docstring for name in re.findall(r"``([\w.]+)``", docstring[1]))


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    lengths = {str(path.relative_to(TESTS)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_the_tests_of_every_module_are_found() -> None:
    """A module has a test file or folder of its name in the folder of its package, or a test file names it in its docstring."""
    named = named_in_docstrings()
    missing = {
        ".".join(module.parts)
        for module in MODULES
        if not (TESTS / module.parent / f"test_{module.name}.py").exists()
        and not (TESTS / module).is_dir()
        and ".".join(module.parts) not in named
    }
    assert missing == set(EXCEPTIONS)


def test_what_a_docstring_names_exists() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    named = {name for name in named_in_docstrings() if name.split(".")[0] in packages and "." in name}
    assert named - {".".join(module.parts) for module in MODULES} == set()


def test_the_slowest_files_exist(pytestconfig: pytest.Config) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    assert [name for name in (*conftest.SLOWEST, *conftest.SLOWEST_OF_SOAK) if not (TESTS / name).is_file()] == []


def collected_by_workers(place: Path) -> list[list[str]]:
    """Return what each worker of xdist has collected.

    :param place: the folder with a file of ids for each worker.
    """
    return [path.read_text().splitlines() for path in sorted(place.glob("*.ids"))]


def collected_anew(config: pytest.Config) -> list[str]:
    """Return the tests that a new process collects."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-m", config.getoption("markexpr"), "-k", config.getoption("keyword"), *config.args]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=config.invocation_params.dir, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_another_process_collects_the_same_tests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Otherwise xdist's workers may disagree: an id must not hold a time, an address or the order of a set."""
    mine = [item.nodeid for item in request.session.items]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        # Each has its own hash seed, and collected before any test ran.
        assert collected_by_workers(tmp_path_factory.getbasetemp().parent) == [mine] * workers
    else:
        assert collected_anew(request.config) == mine
