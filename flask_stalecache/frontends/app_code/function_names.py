"""Builds the names of the developer's functions for keys and logs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def name_of(function: Any) -> str:
    """Return module and name of a function; of a callable object, those of its class.

    A module that is run as a script gets the name by which other modules import it: ``python shop.py`` and ``gunicorn shop:app``
    must build the same keys.
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    module = _name_of_main() if named.__module__ == "__main__" else named.__module__
    return f"{module}.{named.__qualname__}"


def _name_of_main() -> str:
    main = sys.modules.get("__main__")
    # With `python -m`, the module has a spec; a script has only a file, and an interactive session has neither.
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return Path(file).stem if file else "__main__"
