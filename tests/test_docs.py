"""The documentation names what exists, and the code of the README runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import flask_stalecache
from flask_stalecache.config import KEYS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTED_KEY = re.compile(r"^\.\. confval:: STALECACHE_(\w+)$", re.MULTILINE)
LOCAL_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")


def python_blocks() -> list[Any]:
    text = README.read_text(encoding="utf-8")
    blocks = [(block[1], text.count("\n", 0, block.start(1))) for block in PYTHON_BLOCK.finditer(text)]
    return [pytest.param(source, before, id=f"line{before + 1}") for source, before in blocks]


@pytest.mark.parametrize(("source", "lines_before"), python_blocks())
def test_readme_code_runs(source: str, lines_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Flask puts the instance folder of an unknown module here
    code = compile("\n" * lines_before + source, str(README), "exec")
    exec(code, {"__name__": "readme"})


def test_readme_has_code() -> None:
    assert python_blocks()


@pytest.mark.parametrize("name", sorted(flask_stalecache.__all__))
def test_public_name_is_in_the_api_page(name: str) -> None:
    page = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    assert re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE)


def test_configuration_page_lists_every_key_once() -> None:
    page = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
    assert sorted(DOCUMENTED_KEY.findall(page)) == sorted(KEYS)


def test_local_links_of_the_readme_exist() -> None:
    links = LOCAL_LINK.findall(README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pages_name_only_known_keys() -> None:
    named = {
        (page.name, key)
        for page in [README, *(ROOT / "docs").glob("*.rst")]
        for key in re.findall(r"STALECACHE_([A-Z][A-Z_]*[A-Z])", page.read_text(encoding="utf-8"))
    }
    assert {(page, key) for page, key in named if key not in KEYS} == set()
