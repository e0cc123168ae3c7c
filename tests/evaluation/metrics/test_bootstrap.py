"""Intervals cover the mean as often as they say, also of few pictures."""

import numpy as np
import pytest

from palette_jax.evaluation.metrics import bootstrap


@pytest.mark.parametrize(
    ("count", "draw"), [(6, "normal"), (24, "normal"), (40, "skew")]
)
def test_95_of_100_intervals_hold_the_mean(count: int, draw: str) -> None:
    rng, held, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        values = (
            rng.normal(0, 1, count) if draw == "normal" else rng.exponential(1, count)
        )
        found = bootstrap.interval(values)
        assert found
        held += found[0] <= (0 if draw == "normal" else 1) <= found[1]
    # Three standard errors, and what skewness costs.
    assert 0.90 <= held / trials <= 0.99


def test_differences_on_the_same_pictures_tell_more_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(25, 5, 60)
    ours = pictures + rng.normal(0.5, 0.3, 60)
    low, high = bootstrap.interval(ours - pictures) or (0, 0)
    assert 0 < low < 0.5 < high < 1
    alone = bootstrap.interval(ours) or (0, 0)
    assert alone[1] - alone[0] > 5 * (high - low)


def test_it_moves_and_scales_with_the_values() -> None:
    values = np.random.default_rng(0).normal(0, 1, 30)
    low, high = bootstrap.interval(values) or (0, 0)
    np.testing.assert_allclose(
        bootstrap.interval(3 * values + 7), (3 * low + 7, 3 * high + 7)
    )
    with_unknown = np.append(values, np.nan)
    assert bootstrap.interval(with_unknown) == (low, high)
    assert bootstrap.interval(np.array([1.0, 2.0, np.nan])) is None
