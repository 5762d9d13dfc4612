"""The rules of http.md at the gateway, over real sockets with a real app behind: see :mod:`gateway_cases` for the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import time_machine
from gateway_cases import CASES
from gateway_site import Case, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with gateways, and an app that answers as a case says."""
    made = Site(tmp_path_factory.mktemp("gateways"))
    yield made
    made.close()


@pytest.mark.parametrize("played", [pytest.param(each, id=each.id) for each in CASES])
def test_case(played: Case, site: Site, clock: time_machine.Traveller) -> None:
    site.play(played, clock)


def test_every_rule_has_cases() -> None:
    assert {number for each in CASES for number in each.rules} == set(range(1, 32))


def test_cases_have_names_of_their_own() -> None:
    names = [(each.gateway, each.id) for each in CASES]
    assert len(names) == len(set(names))
    assert len(CASES) >= 250
