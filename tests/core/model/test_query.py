"""What a query parameter is called, as the app sees it."""

from __future__ import annotations

import pytest
from werkzeug.wrappers import Request

from flask_stalecache.core.model.query import parameter_name
from support.client import wire

PARAMETERS: list[tuple[str, str | None, bool]] = [
    ("utm_a", None, False),
    ("utm_a", "", False),
    ("utm_a", "utm_a=1", True),
    ("utm_a", "utm_a", True),
    ("utm_a", "b=2&utm_a=1", True),
    ("utm_a", "%75tm_a=1", True),
    ("utm_a", "utm%5Fa", True),
    ("utm_a", "utm_ab=1", False),
    ("utm_a", "b=utm_a", False),
    ("utm_a", "b=2;utm_a=1", False),
    ("utm_a", "b=2%26utm_a=1", False),
    ("utm_a", "UTM_A=1", False),
    ("my id", "my+id=1", True),
    ("my id", "my%20id=1", True),
    ("my+id", "my%2Bid=1", True),
    ("my+id", "my+id=1", False),
    ("é", "%C3%A9=1", True),
    ("é", wire("é=1"), True),
]


@pytest.mark.parametrize(("name", "query", "carried"), PARAMETERS, ids=repr)
def test_a_parameter_is_carried_if_the_app_would_find_it(name: str, query: str | None, carried: bool) -> None:
    environ = {} if query is None else {"QUERY_STRING": query}
    assert (name in {parameter_name(part) for part in (query or "").split("&")}) is carried
    assert (name in Request(environ).args) is carried, "the table is wrong"
