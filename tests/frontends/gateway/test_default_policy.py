"""The windows where neither code nor the response sets one: :mod:`flask_stalecache.frontends.gateway.rules`."""

from __future__ import annotations

import pytest

from flask_stalecache import Policy
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.frontends.gateway.rules import default_policy

CONFIGURED = Windows(60.0, 600.0, 86400.0)


@pytest.mark.parametrize(
    ("rule", "coded", "expected"),
    [
        (Policy(), Policy(), (None, None, None)),
        (Policy(max_age=5), Policy(), (5, None, None)),
        (Policy(), Policy(gateway=True), (60, 600, 86400)),
        (Policy(max_age=5), Policy(gateway=True), (5, 600, 86400)),
        (Policy(stale_if_error=0), Policy(gateway=True, max_age=7), (60, 600, 0)),
    ],
)
def test_configured_windows_fill_the_gaps_of_a_rule_for_views_of_the_gateway(
    rule: Policy, coded: Policy, expected: tuple[float | None, float | None, float | None]
) -> None:
    policy = default_policy(rule, coded, CONFIGURED)
    assert (policy.max_age, policy.stale_while_revalidate, policy.stale_if_error) == expected
