"""Names of functions: a script and the module that a server imports have the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flask_stalecache.frontends.app_code.function_names import name_of

SHOP = """
from flask import Flask
from flask_stalecache import StaleCache
from flask_stalecache.frontends.app_code.function_names import name_of
app = Flask(__name__)
def page(): pass
class Callable:
    def __call__(self): pass
if __name__ == "__main__":
    print(name_of(page), name_of(Callable()))
"""


def test_a_function_has_the_name_of_its_module() -> None:
    assert name_of(test_a_function_has_the_name_of_its_module).endswith(
        "test_function_names.test_a_function_has_the_name_of_its_module"
    )


@pytest.mark.parametrize("how", [["shop.py"], ["-m", "shop"]])
def test_a_script_has_the_name_by_which_it_is_imported(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    run = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "shop.page shop.Callable\n"
