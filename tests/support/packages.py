"""The order of the packages, and of those within packages: see tests/project/test_layers.py."""

from __future__ import annotations

#: The packages, from the lowest to the highest. A package imports from those before it.
PACKAGES = (
    "errors", "core", "filesystem", "config_values", "config", "stats", "stores", "engine", "batches", "frontends", "app_state",
    "sandbox", "inquiry", "dashboard", "metrics", "worker", "cli", "jinja", "extension", "",
)  # fmt: skip
#: Packages within packages, likewise.
SUBPACKAGES = {
    "core": ("", "model", "http", "rules"),
    #: The front ends do not import each other; FLASK_SIDE stands above them.
    "frontends": ("flask_internals", "", "pages", "memoize", "gateway", "requests_adapter"),
}
FRONT_ENDS = {"pages", "memoize", "gateway", "requests_adapter"}
#: Modules of the front ends that know several of them.
FLASK_SIDE = {
    "frontends.flask_endpoints", "frontends.flask_gateway", "frontends.flask_observer", "frontends.flask_sessions",
    "frontends.first_request", "frontends.flask_urls",
}  # fmt: skip
