"""Quantiles of a histogram."""

from __future__ import annotations

import math

import pytest

from flask_stalecache.stats.quantiles import buckets_of, quantile

INF = math.inf


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INF: 0}, 0.5, None),
        ({1.0: 10, INF: 0}, 0.5, 0.5),
        ({1.0: 10, 2.0: 10, INF: 0}, 0.5, 1.0),
        ({1.0: 10, 2.0: 10, INF: 0}, 0.75, 1.5),
        ({2.0: 4, 1.0: 0, INF: 0}, 1.0, 2.0),
        # Times beyond the last bound count as that bound, since no more is known of them.
        ({1.0: 1, INF: 99}, 0.95, 1.0),
    ],
)
def test_quantile(buckets: dict[float, int], share: float, seconds: float | None) -> None:
    assert quantile(buckets, share) == seconds


def test_buckets_of_what_is_cumulative() -> None:
    assert buckets_of({"0.5": 2, "1.0": 2, "+Inf": 5}) == {0.5: 2, 1.0: 0, INF: 3}
