"""Quantiles of a histogram. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def buckets_of(cumulative: Mapping[str, int]) -> dict[float, int]:
    """Return how many by their upper bound, each alone, of what is cumulative as Prometheus has it."""
    buckets, below = {}, 0
    for bound, count in cumulative.items():
        buckets[float(bound)] = count - below
        below = count
    return buckets


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """Return the seconds that a share of all stayed under; ``None`` if there was nothing.

    :param buckets: how many by their upper bound, each alone.
    """
    total = sum(buckets.values())
    if total <= 0:
        return None
    wanted, lower, below = share * total, 0.0, 0
    for upper, count in sorted(buckets.items()):
        if count and below + count >= wanted:
            # Nothing more is known of durations above the last bound.
            return lower if upper == float("inf") else lower + (upper - lower) * (wanted - below) / count
        lower, below = upper, below + count
    return lower
