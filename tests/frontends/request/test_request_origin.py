"""Who may share the answer to a WSGI request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.frontends.request.request_origin import RequestOrigin
from support.engine import make_entry


class Asked(RequestOrigin):
    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ


@pytest.mark.parametrize(
    ("environ", "may"),
    [
        ({"REQUEST_METHOD": "GET"}, True),
        ({"REQUEST_METHOD": "GET", "HTTP_COOKIE": "theme=dark"}, True),
        ({"REQUEST_METHOD": "HEAD"}, False),
        ({"REQUEST_METHOD": "GET", "HTTP_AUTHORIZATION": "Basic eA=="}, False),
    ],
)
def test_others_wait_only_for_what_is_likely_to_be_stored(environ: dict[str, Any], may: bool) -> None:
    assert Asked(environ).may_collapse is may


@pytest.mark.parametrize(
    ("environ", "is_shared", "is_barred"),
    [
        ({}, False, False),
        ({"HTTP_AUTHORIZATION": "Basic eA=="}, False, True),
        ({"HTTP_AUTHORIZATION": "Basic eA=="}, True, False),
        ({"HTTP_COOKIE": "member=7"}, True, True),
        ({"HTTP_COOKIE": "theme=dark"}, True, False),
        ({"HTTP_X_COUNTRY": "at"}, True, True),
    ],
)
def test_an_entry_is_not_for_requests_with_an_absent_name(environ: dict[str, Any], is_shared: bool, is_barred: bool) -> None:
    absent = RequestInputs(cookies=("member",), headers=("x-country",))
    entry = replace(make_entry("a key"), shared=is_shared, absent=absent)
    assert Asked(environ).is_barred_from(entry) is is_barred


def test_a_request_carries_the_names_that_it_has() -> None:
    names = RequestInputs(cookies=("member",))
    assert Asked({"HTTP_COOKIE": "member=7"}).carries(names)
    assert not Asked({"HTTP_COOKIE": "theme=dark"}).carries(names)
