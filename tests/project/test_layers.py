"""Imports go one way, few modules import Flask, and pure modules stay pure. Checked by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import flask_stalecache
from support.faces import FACES
from support.flask_users import KNOW_FLASK
from support.packages import FRONT_ENDS, PACKAGES, SUBPACKAGES
from support.purity import IMPURE, PURE_ELSEWHERE

ROOT = Path(flask_stalecache.__file__).parent
PACKAGE = ROOT.name

#: One layer is a package, with the packages within it. A module imports from the layers listed before its own, and in its own layer
#: from the modules listed before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        "core.exhaustive",
        "core.formatting",
        "core.guarded",
        "core.kept_by_class",
        "core.remembered",
        "core.wsgi",
    ),
    (
        "core.model.environ",
        "core.model.inputs",
        "core.model.reasons",
        "core.model.query",
        "core.model.flask_caching",
        "core.model.checks",
        "core.model.policy",
        "core.model.work",
        "core.model.moments",
        "core.model.holes",
        "core.model.entry",
        "core.model.note",
        "core.model.titles",
    ),
    (
        "core.addressing.keys",
        "core.addressing.arrival",
        "core.addressing.purge_names",
        "core.addressing.recipe",
        "core.addressing.base_url",
        "core.addressing.server_url",
    ),
    (
        "core.http.cookies",
        "core.http.credentials",
        "core.http.fields",
        "core.http.dates",
        "core.http.cache_control",
        "core.http.freshness",
        "core.http.vary",
        "core.http.accept",
        "core.http.access_log",
        "core.http.storing",
        "core.http.content_policy",
        "core.http.request",
        "core.http.tracing",
        "core.http.tags",
        "core.http.unset",
        "core.http.invalidation",
    ),
    (
        "core.responses.ranges",
        "core.responses.ended",
        "core.responses.filled",
        "core.responses.validators",
        "core.responses.conditional",
    ),
    (
        "core.packets.refresh_data",
        "core.packets.packets",
        "core.packets.warm_data",
    ),
    (
        "core.rules.status",
        "core.rules.prefer_stale",
        "core.rules.serving",
        "core.rules.cacheability",
        "core.rules.storability",
        "core.rules.advice",
        "core.rules.explain",
        "core.rules.why",
        "core.rules.shared_cache",
        "core.rules.variant_index",
        "core.rules.variants",
        "core.rules.named",
        "core.rules.request_changes",
        "core.rules.log_replay",
        "core.rules.hole_encodings",
        "core.rules.hole_marks",
    ),
    (
        "filesystem.system",
        "filesystem.process",
        "filesystem.per_process",
        "filesystem.sealed",
        "filesystem.descriptors",
        "filesystem.directory",
        "filesystem.atomic",
        "filesystem.locks",
        "filesystem.uptime",
        "filesystem.mounts",
        "filesystem.held_file",
        "filesystem.shared_memory",
        "filesystem.local_socket",
    ),
    ("config.values", "config.settings"),
    (
        "stats.quantiles",
        "stats.schema",
        "stats.counters",
        "stats.tally",
        "stats.counter_file",
        "stats.history",
        "stats.registry",
        "stats.many_hosts",
        "stats.host_rows",
        "stats.worker_state",
        "stats.worker_rows",
        "stats.prometheus",
    ),
    (
        "stores.formats.head_values",
        "stores.formats.entry_format",
        "stores.formats.note_format",
        "stores.file_numbers",
        "stores.base",
        "stores.in_memory.memory_lock",
        "stores.formats.summary",
        "stores.copies",
        "stores.table.table_file",
        "stores.table.stamps",
        "stores.entry_file",
        "stores.purges.purge_record",
        "stores.purges.purge_floors",
        "stores.purges.waiting_purges",
        "stores.purges.highest_number",
        "stores.purges.purge_records",
        "stores.cache_directory",
        "stores.queue_marks",
        "stores.folders",
        "stores.purger",
        "stores.foreign_changes",
        "stores.upkeep.eviction",
        "stores.upkeep.sweep_progress",
        "stores.upkeep.sweep",
        "stores.upkeep.walk",
        "stores.file_store",
        "stores.in_memory.memory_purges",
        "stores.in_memory.memory_store",
        "stores.shared.known",
        "stores.shared.logs",
        "stores.shared.errors_of",
        "stores.shared.client",
        "stores.shared.host_reports",
        "stores.shared.lua",
        "stores.shared.scripts",
        "stores.shared.lock",
        "stores.shared.queued",
        "stores.shared.content",
        "stores.shared.comparison",
        "stores.shared.reminder",
        "stores.shared.backlog",
        "stores.shared.deafness",
        "stores.shared.follower",
        "stores.shared.introduction",
        "stores.shared.store",
    ),
    (
        "engine.log",
        "engine.signals",
        "engine.flights.latch",
        "engine.flights.stream_pace",
        "engine.flights.stream_copies",
        "engine.flights.singleflight",
        "engine.scheduling.switch_interval",
        "engine.scheduling.meter",
        "engine.scheduling.lane",
        "engine.scheduling.threads",
        "engine.scheduling.fair_queue",
        "engine.standing",
        "engine.scheduling.thread_pool",
        "engine.scheduling.housekeeper",
        "engine.origin",
        "engine.instrumentation",
        "engine.unstorable_marks",
        "engine.use_counts",
        "engine.answer_writer",
        "engine.handover.delegation",
        "engine.handover.refresher_queue",
        "engine.handover.worker_link",
        "engine.handover.warm_files",
        "engine.background",
        "engine.fetch_state",
        "engine.runtime",
        "engine.timed_calls",
        "engine.collapsing",
        "engine.engine",
    ),
    (
        "batches.sitemap",
        "batches.selector",
        "batches.warm_request",
        "batches.batch",
        "batches.purged",
        "batches.workers",
        "batches.batch_queue",
        "batches.renewal",
        "batches.scheduler",
        "batches.handed_over",
        "batches.fronts",
        "batches.warm_call",
        "batches.warm_elsewhere",
        "batches.warmer",
        "batches.operations",
    ),
    (
        "frontends.wsgi",
        "frontends.setup.engine_setup",
        "frontends.response.debug_detail",
        "frontends.setup.probe",
        "frontends.setup.app_version",
        "frontends.response.status_headers",
        "frontends.app_code.hooks",
        "frontends.request.request_body",
        "frontends.request.kept_values",
        "frontends.request.request_values",
        "frontends.request.request_origin",
        "frontends.app_code.login_decorators",
        "frontends.flask_internals.contexts",
        "frontends.flask_internals.sessions",
        "frontends.flask_internals.readers",
        "frontends.flask_internals.steps",
        "frontends.flask_internals.templates",
        "frontends.flask_internals.request_fields",
        "frontends.flask_internals.responses",
        "frontends.flask_internals.versions",
        "frontends.app_code.rest_frameworks",
        "frontends.observation.read_log",
        "frontends.observation.session_log",
        "frontends.observation.watched_session",
        "frontends.observation.observed_values",
        "frontends.observation.observed_accept",
        "frontends.observation.observed_environ",
        "frontends.request.caller_context",
        "frontends.request.request_hints",
        "frontends.app_code.function_names",
        "frontends.response.holes",
        "frontends.response.template_holes",
        "frontends.setup.current_app",
        "frontends.setup.default_directory",
        "frontends.response.conditional_answer",
        "frontends.middleware",
    ),
    (
        "frontends.pages.watching.request_state",
        "frontends.pages.watching.request_recorder",
        "frontends.pages.watching.session_recorder",
        "frontends.pages.watching.watch",
        "frontends.pages.named",
        "frontends.pages.variants",
        "frontends.pages.watching.hook_reads",
        "frontends.pages.filling_holes.known_holes",
        "frontends.pages.filling_holes.filling",
        "frontends.pages.bound_view",
        "frontends.pages.dependence",
        "frontends.pages.error_pages",
        "frontends.pages.view_call",
        "frontends.pages.responses",
        "frontends.pages.filling_holes.filled_copies",
        "frontends.pages.refresh",
        "frontends.pages.advice",
        "frontends.pages.made",
        "frontends.pages.fetch",
        "frontends.pages.origin",
        "frontends.pages.probed",
        "frontends.pages.handler",
    ),
    (
        "frontends.memoize.arguments",
        "frontends.memoize.policy",
        "frontends.memoize.serializers",
        "frontends.memoize.circuit_breaker",
        "frontends.memoize.places",
        "frontends.memoize.bound_function",
        "frontends.memoize.fetch",
        "frontends.memoize.origin",
        "frontends.memoize.handler",
        "frontends.memoize.function",
        "frontends.memoize.fragments",
    ),
    (
        "frontends.gateway.wsgi_call",
        "frontends.gateway.rules",
        "frontends.gateway.own_answers",
        "frontends.gateway.backend",
        "frontends.gateway.app_environ",
        "frontends.gateway.judging.dependence",
        "frontends.gateway.judging.failures",
        "frontends.gateway.converted_head",
        "frontends.gateway.judging.entry_builder",
        "frontends.gateway.judging.response_judge",
        "frontends.gateway.judging.visitor_judge",
        "frontends.gateway.fetch",
        "frontends.gateway.origin",
        "frontends.gateway.live_response",
        "frontends.gateway.deliver",
        "frontends.gateway.invalidation",
        "frontends.gateway.bypass",
        "frontends.gateway.handler",
        "frontends.gateway.gateway_cache",
    ),
    (
        "frontends.requests_adapter.url_key",
        "frontends.requests_adapter.rules",
        "frontends.requests_adapter.app_context",
        "frontends.requests_adapter.response",
        "frontends.requests_adapter.request",
        "frontends.requests_adapter.fetch",
        "frontends.requests_adapter.origin",
        "frontends.requests_adapter.adapter",
        "frontends.requests_adapter.factory",
    ),
    (
        "frontends.flask_app.flask_urls",
        "frontends.flask_app.first_request",
        "frontends.flask_app.flask_sessions",
        "frontends.flask_app.flask_observer",
        "frontends.flask_app.flask_endpoints",
        "frontends.flask_app.flask_gateway",
    ),
    ("app_state", "inquiry.sandbox", "inquiry.inquiry"),
    (
        "dashboard.windows_bar",
        "dashboard.url_lookup",
        "dashboard.entry_view",
        "dashboard.store_scan",
        "dashboard.charts",
        "dashboard.health",
        "dashboard.overview",
        "dashboard.data",
        "dashboard.csrf",
        "dashboard.actions",
        "dashboard.blueprint",
    ),
    ("metrics",),
    (
        "worker.jobs",
        "worker.child",
        "worker.worker_socket",
        "worker.parent",
        "worker.command",
    ),
    (
        "cli.output",
        "cli.context",
        "cli.selectors",
        "cli.listing",
        "cli.show",
        "cli.bulk",
        "cli.why",
        "cli.hosts",
        "cli.follow",
        "cli.stats",
        "cli.settings",
        "cli.maintenance",
        "cli.worker",
        "cli.log_files",
        "cli.advise",
        "cli.commands",
    ),
    ("jinja",),
    ("extension",),
    ("",),
)
ORDER = [module for layer in LAYERS for module in layer]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


#: Without the packages' own modules, which hold nothing but a docstring.
MODULES = {module_name(path): path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent == ROOT}
PURE = {module for module in MODULES if module.startswith("core.")} | PURE_ELSEWHERE


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(module: str) -> Iterator[str]:
    """Yield all that a module imports, anywhere in it, as absolute names; for ``from a import b`` both ``a`` and ``a.b``."""
    path = MODULES[module]
    package = [PACKAGE, *path.relative_to(ROOT).parent.parts]
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own_modules(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return set(_own_modules(MODULES[module], module))


@cache
def _own_modules(path: Path, module: str) -> frozenset[str]:
    names = {name.removeprefix(PACKAGE).removeprefix(".") for name in imported(module) if name.split(".")[0] == PACKAGE}
    found = {name for name in names if name in MODULES}
    # `from . import policy` names the package only in passing.
    return frozenset(name for name in found if name and not any(other.startswith(f"{name}.") for other in found))


def top_levels(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(module)}


def test_every_module_has_its_place() -> None:
    assert sorted(MODULES) == sorted(ORDER)


def found_in(found: Iterable[tuple[str, set[str]]]) -> dict[str, set[str]]:
    """Return the findings by module, without modules that have none. All modules are one test: a thousand tests take long."""
    return {module: others for module, others in found if others}


def test_imports_go_one_way() -> None:
    above = {module: set(ORDER[: ORDER.index(module)]) for module in MODULES}
    assert found_in((module, own_modules(module) - above[module]) for module in MODULES) == {}


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_its_place() -> None:
    assert {package_of(module) for module in MODULES} == set(PACKAGES)


def packages_above(module: str) -> set[str]:
    """The modules that a module imports from packages above its own."""
    below = PACKAGES[: PACKAGES.index(package_of(module)) + 1]
    return {other for other in own_modules(module) if package_of(other) not in below}


def test_no_package_imports_one_above_it() -> None:
    assert found_in((module, packages_above(module)) for module in MODULES) == {}


def subpackages_above(module: str) -> set[str]:
    """The modules that a module imports from packages which are above its own in the same package."""
    package, order = package_of(module), SUBPACKAGES[package_of(module)]
    below = order[: order.index(subpackage_of(module)) + 1]
    others = {other for other in own_modules(module) if package_of(other) == package}
    return {other for other in others if subpackage_of(other) not in below}


def test_no_package_within_a_package_imports_one_above_it() -> None:
    within = {module for module in MODULES if package_of(module) in SUBPACKAGES}
    assert found_in((module, subpackages_above(module)) for module in within) == {}


def subpackage_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def front_ends_known(module: str) -> set[str]:
    """The front ends that a front end's module knows, besides its own."""
    known = {subpackage_of(other) for other in own_modules(module) if package_of(other) == "frontends"}
    return known & FRONT_ENDS - {subpackage_of(module)}


def test_a_front_end_knows_no_other() -> None:
    assert found_in((module, front_ends_known(module)) for module in MODULES if subpackage_of(module) in FRONT_ENDS) == {}


def reached_behind_faces(module: str) -> set[str]:
    """The modules that a module imports from other packages although these do not list them in ``FACES``."""
    others = {other for other in own_modules(module) if package_of(other) != package_of(module)}
    return {other for other in others if other.partition(".")[2] not in FACES.get(package_of(other), {other.partition(".")[2]})}


def test_packages_are_entered_by_their_faces() -> None:
    assert found_in((module, reached_behind_faces(module)) for module in MODULES) == {}


def test_packages_hold_nothing_themselves() -> None:
    inits = [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    bodies = {path: ast.parse(path.read_text(encoding="utf-8")).body for path in inits}
    assert {path: body for path, body in bodies.items() if len(body) != 1 or ast.get_docstring(ast.Module(body, [])) is None} == {}


def test_flask_is_known_to_few() -> None:
    assert {module for module in MODULES if "flask" in top_levels(module)} <= KNOW_FLASK


def test_what_is_pure_imports_no_clock_no_io_and_no_chance() -> None:
    assert found_in((module, top_levels(module) & IMPURE) for module in PURE) == {}


def test_what_is_pure_imports_nothing_of_ours_that_is_not() -> None:
    # The configuration looks at paths: nothing pure may lean on it.
    assert found_in((module, own_modules(module) - PURE) for module in PURE) == {}


@pytest.mark.parametrize(
    "module",
    [
        "filesystem.per_process",
        "engine.scheduling.fair_queue",
        "engine.scheduling.thread_pool",
        "engine.scheduling.housekeeper",
        "engine.log",
        "stats.schema",
        "stats.counters",
        "engine.signals",
    ],
)
def test_a_tool_knows_neither_engine_nor_entry(module: str) -> None:
    assert own_modules(module) <= {
        "filesystem.per_process",
        "engine.scheduling.fair_queue",
        "core.formatting",
        "core.guarded",
        "engine.log",
        "engine.scheduling.threads",
        "filesystem.process",
    }


def test_the_engine_knows_no_store_in_particular() -> None:
    for module in (
        "engine.origin",
        "engine.answer_writer",
        "engine.background",
        "engine.fetch_state",
        "engine.collapsing",
        "engine.engine",
        "engine.flights.singleflight",
    ):
        assert {name for name in own_modules(module) if name.startswith("stores")} <= {"stores.base"}


def test_the_public_module_only_names() -> None:
    tree = ast.parse(MODULES[""].read_text(encoding="utf-8"))
    kinds = {type(node) for node in tree.body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}
    assert sorted(flask_stalecache.__all__) == sorted(
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    )


def test_nothing_is_pickled_but_values_that_a_developer_wants_pickled() -> None:
    assert {module for module in MODULES if top_levels(module) & {"pickle", "shelve", "marshal", "dill"}} <= {
        "frontends.memoize.serializers"
    }


@pytest.mark.parametrize(
    ("module", "source", "names"),
    [
        ("one", "from . import two\n", {"two"}),
        ("deep.one", "from ..two import Two\n", {"two"}),
        ("deep.one", "from .. import two as other\nfrom .three import Three\n", {"two", "deep.three"}),
        ("one", "def f():\n    from flask_stalecache.two import Two\n", {"two"}),
        ("one", "import flask_stalecache.deep.three\n", {"deep.three"}),
        ("one", "import flask\nfrom werkzeug import http\n", set()),
    ],
)
def test_these_tests_see_every_form_of_import(
    module: str, source: str, names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "MODULES", dict.fromkeys(["one", "two", "deep.one", "deep.three"], path))
    assert own_modules(module) == names
