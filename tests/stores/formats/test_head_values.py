"""A head whose checksum is right and whose values are absurd: a miss for all readers, never an error or a wrong answer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flask_stalecache import StaleCache
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.errors import BrokenEntry
from flask_stalecache.filesystem.sealed import SIZE, seal
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.formats import entry_format, head_values, note_format
from flask_stalecache.stores.formats.summary import summary_of
from support.engine import make_entry, make_index
from support.sealed import head_in, sealed, text_with

EXAMPLES = 5000 if os.environ.get("STALECACHE_SOAK") == "1" else 30
NAN, INFINITY = math.nan, math.inf
#: Values as JSON. No field of a head has any of them.
NEVER = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-1e300",
    "1e999",
    f"-{'9' * 400}",
    "[[]]",
    "[" * 5000 + "]" * 5000,
    '[{"a": [null]}]',
]
#: Values that make sense in some field and none in others.
ODD = [
    "null", "true", "false", "0", "-1", "0.5", "99", "1000", "9" * 30, "9" * 400, "1e308", '""', '"text"', '"\\ud800"',
    '"a\\r\\nSet-Cookie: session=mallory"', '"a\\u0000b"', '"\\u20ac"', "[]", "{}",
    '["a"]', "[1, 2, 3]", '[["a", "b"]]', '{"a": 1}',
]  # fmt: skip


# -- each check ------------------------------------------------------------------------------------------------------


def _inputs(**kinds: Any) -> dict[str, Any]:
    return {"cookies": [], "headers": [], "variables": [], "session": [], **kinds}


CHECKS: dict[str, tuple[Callable[[Any], object], list[Any], list[Any]]] = {
    "text": (head_values.text, ["", "a", "\ud800"], [None, 1, b"a", ["a"]]),
    "flag": (head_values.flag, [True, False], [0, 1, None, "true"]),
    "count": (head_values.count, [0, 2**64 - 1], [-1, 2**64, 1.0, True, None, "1", NAN]),
    "moment": (head_values.moment, [0, 1.8e9, -6e10], [NAN, INFINITY, -INFINITY, 1e300, 10**400, -(10**400), True, None, "1"]),
    "span": (head_values.span, [0, 1.5, 1e308], [NAN, INFINITY, -1, -0.1, 10**400, True, None, "1"]),
    "status": (head_values.status, [0, 200, 404, 599], [99, 100, 199, 206, 304, 600, 1000, -200, 200.0, True, None, "200"]),
    "field value": (head_values.field_value, ["", "a b", "\tü"], ["a\r\nb", "a\nb", "a\0", "\x7f", "€", "\ud800", None, 1]),
    "fields": (
        head_values.fields,
        [[], [["X-A", ""]], (("X-A", "1"), ("X-A", "2"))],
        [None, "ab", ["ab"], [["", "1"]], [["X A", "1"]], [["X:", "1"]], [["X\n", "1"]], [["X"]], [["X", 1]], [["X", "1", "2"]]],
    ),
    "windows": (head_values.windows, [[0, 0, 0], [1.5, 1e308, 0]], [[0, 0], [0, 0, 0, 0], [0, 0, NAN], [0, -1, 0], None, "000"]),
    "work": (
        head_values.work,
        [None, [0, 0], [1.5, 1], [3, 0.25]],
        [0, [], [1], [1, 2], [-1, 0], [0, -0.1], [NAN, 0], [0, NAN], "00", [1, 1, 1]],
    ),
    "names": (head_values.texts, [[], ["a"]], ["abc", {"a": 1}, [None], 7]),
    "inputs": (
        head_values.inputs_sent,
        [
            _inputs(), _inputs(cookies=["ü€"], headers=["x-user"], variables=["REMOTE_ADDR"], session=["_user_id"]),
        ],
        [
            None, [], {"cookies": [], "headers": [], "variables": []}, _inputs(cookies="ab"), _inputs(headers=["a\r\nb"]),
            _inputs(cookies=[1]), _inputs(variables=[1]), _inputs(session=[1]), _inputs(session="ab"),
        ],
    ),
    "recipe": (
        head_values.recipe,
        [{}, {"function": "shop.rates", "arguments": None}, {"function": "f", "arguments": {"args": [], "kwargs": {}}}],
        [
            None, [], {"scheme": "http"}, {"fields": 1}, {"function": 1}, {"url": None}, {"reason": 1}, {"arguments": []},
            {"arguments": {"args": {}, "kwargs": {}}}, {"arguments": {"args": []}},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_lets_through_what_makes_sense(name: str) -> None:
    check, right, _ = CHECKS[name]
    for value in right:
        check(value)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_refuses_what_makes_no_sense(name: str) -> None:
    check, _, absurd = CHECKS[name]
    for value in absurd:
        with pytest.raises((TypeError, ValueError, LookupError)):
            check(value)


def test_a_recipe_may_not_be_nested_deeper_than_what_goes_through_it_can_follow() -> None:
    def nested(levels: int) -> dict[str, Any]:
        data: Any = []
        for _ in range(levels):
            data = [data]
        return {"url": "u", "more": data}

    head_values.recipe(nested(150))
    with pytest.raises(ValueError, match="deep"):
        head_values.recipe(nested(400))


INDEX = make_index()


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": ()},
        {"headers": (("Vary", "x"),) * 5},
        {"headers": (("Content-Type", "text/html"),)},
        {"windows": Windows(60.0, 0.0, 0.0)},
        {"recipe": {"url": "https://bank.example/"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_index_of_variants_leads_somewhere_and_can_not_be_served(changes: dict[str, Any]) -> None:
    head_values.check_index(make_entry())
    head_values.check_index(INDEX)
    with pytest.raises(ValueError, match="index"):
        head_values.check_index(replace(INDEX, **changes))


# -- served ----------------------------------------------------------------------------------------------------------


class Site:
    """A site with a page of a view and one of the gateway, whose entries a test replaces."""

    def __init__(self, directory: Path) -> None:
        app = Flask("shop")
        app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=True, STALECACHE_REFRESH_WORKERS=0, SECRET_KEY="x")
        cache = StaleCache(app)
        self.runs = 0

        @app.get("/view")
        @cache.cached(3600, 600, 86400, vary=["Accept-Language"])
        def view() -> str:
            return self._page("view")

        @app.get("/gateway")
        def gateway() -> Response:
            response = Response(self._page("gateway"))
            response.headers.update(
                {"Cache-Control": "public, max-age=3600, stale-while-revalidate=600", "Vary": "Accept-Language"}
            )
            return response

        self.app = app
        self.store: FileStore = app.extensions["stalecache"].engine.store
        self.client = FlaskClient(app, app.response_class)

    def _page(self, name: str) -> str:
        self.runs += 1
        return f"{name} for {request.headers.get('Accept-Language')}, run {self.runs}"

    def visit(self, page: str) -> str:
        with self.client.get(f"/{page}", headers={"Accept-Language": "de"}) as response:
            assert response.status_code == 200
            assert "Set-Cookie" not in response.headers
            return response.get_data(as_text=True)

    def fill(self, page: str) -> dict[str, bytes]:
        """Return the files of a page: of its entry, and of its index if it has one."""
        self.visit(page)
        return {stored.name: stored.read_bytes() for stored in self.store.directory.glob("??/*") if len(stored.name) == 40}

    def plant(self, name: str, data: bytes) -> None:
        """Replace a file and drop all copies, as if another process had written it and moved the stamps."""
        folder = self.store.directory / name[:2]
        (folder / name).write_bytes(data)
        for note in folder.glob("*.note"):
            note.unlink()
        self.store.forget()


@pytest.fixture(scope="module", params=["view", "gateway"])
def page(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, page: str) -> tuple[Site, dict[str, bytes]]:
    site = Site(tmp_path_factory.mktemp(page) / "cache")
    return site, site.fill(page)


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all values in a head but the key, which is compared."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if (*place, name) != ("key",):
            yield (*place, name)
            yield from places_in(inner, (*place, name))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_absurd_head_is_never_an_error_nor_a_wrong_answer(
    filled: tuple[Site, dict[str, bytes]], page: str, data: st.DataObject
) -> None:
    site, files = filled
    name = data.draw(st.sampled_from(sorted(files)))
    head, body = head_in(files[name])
    place = data.draw(st.sampled_from(list(places_in(head))))
    value = data.draw(st.sampled_from(NEVER + ODD) | st.text().map(json.dumps) | st.integers().map(str))
    # Another status that can be stored is not absurd.
    assume(place != ("status",) or value not in map(str, range(200, 600)))
    for each, content in files.items():
        site.plant(each, content)
    site.plant(name, sealed(text_with(head, place, value), body))
    for stored in site.store.walk():
        summary_of(stored, 1.8e9).to_json()
    for _ in range(2):
        assert site.visit(page).startswith(f"{page} for de, run ")


@pytest.mark.grid
@pytest.mark.parametrize("value", NEVER, ids=range(len(NEVER)))
def test_what_no_field_has_is_a_broken_entry_wherever_it_stands(filled: tuple[Site, dict[str, bytes]], value: str) -> None:
    _, files = filled
    for data in files.values():
        head, body = head_in(data)
        for place in places_in(head):
            with pytest.raises(BrokenEntry):
                entry_format.decode(sealed(text_with(head, place, value), body), head["key"])


@pytest.mark.grid
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("windows", 0), "Infinity"),
        (("answered",), "NaN"),
        (("recipe",), "null"),
        (("headers", 0, 1), '"text/html\\r\\nSet-Cookie: session=mallory"'),
        (("headers", 0, 0), '"X\\r\\nY"'),
        (("status",), "99"),
        (("status",), "1000"),
        (("seq",), "-1"),
        (("names",), "[" * 100_000 + "]" * 100_000),
    ],
    ids=[
        "endless",
        "no time",
        "no recipe",
        "line end in a value",
        "line end in a name",
        "status 99",
        "status 1000",
        "negative",
        "deep",
    ],
)
def test_a_page_with_an_absurd_head_is_made_again(tmp_path: Path, page: str, place: tuple[Any, ...], value: str) -> None:
    site = Site(tmp_path / "cache")
    files = site.fill(page)
    for name, data in files.items():
        head, body = head_in(data)
        if head["status"] == 200:
            site.plant(name, sealed(text_with(head, place, value), body))
            assert name == digest(head["key"])
    assert site.visit(page) == f"{page} for de, run 2"
    assert site.visit(page) == f"{page} for de, run 2"


# -- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*NEVER, "null", "true", '"1"'], ids=range(len(NEVER) + 3))
def test_a_note_with_an_absurd_value_says_nothing(value: str) -> None:
    head: dict[str, Any] = json.loads(note_format.encode(NOTHING)[SIZE:])
    for place in places_in(head):
        if place[0] != "kept_out":
            assert note_format.decode(seal(b"NOT2", text_with(head, place, value))) is NOTHING
