"""Quantiles of a histogram. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def buckets_of(cumulative: Mapping[str, int]) -> dict[float, int]:
    """Return the count of each bucket by its upper bound, from counts that are cumulative, as in Prometheus."""
    buckets, below = {}, 0
    for bound, count in cumulative.items():
        buckets[float(bound)] = count - below
        below = count
    return buckets


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """Return the seconds within which a share of all durations lies; ``None`` if there are no durations.

    :param buckets: the count of each bucket by its upper bound, not cumulative.
    :param share: from 0 to 1.
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
