"""The order of the packages, and of those within packages: see tests/project/test_layers.py."""

from __future__ import annotations

#: The packages, from the lowest to the highest. A package imports from those before it.
PACKAGES = (
    "errors", "core", "filesystem", "config", "stats", "stores", "engine", "batches", "frontends", "app_state",
    "inquiry", "dashboard", "metrics", "worker", "cli", "jinja", "extension", "",
)  # fmt: skip
#: Packages within packages, likewise; "" are the modules that are in none of them.
SUBPACKAGES = {
    "core": ("", "model", "addressing", "http", "responses", "packets", "rules"),
    #: The front ends do not import each other. What knows several of them comes last.
    "frontends": (
        "flask_internals", "app_code", "response", "request", "", "observation", "setup", "pages", "memoize", "gateway",
        "requests_adapter", "flask_app",
    ),
}  # fmt: skip
FRONT_ENDS = {"pages", "memoize", "gateway", "requests_adapter"}
