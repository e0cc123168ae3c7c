"""The kernel distance: its definition, sets that are equal, sets that are small."""

import numpy as np
import pytest

from palette_jax.evaluation.metrics import kernel


def draw(count: int, shift: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (count, 6)).astype(np.float32)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(kernel.pseudo_values(x, y).mean())


def slow(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(float) @ b) / len(a) + 1) ** 3

    terms = [
        k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    return float(np.mean(terms))


@pytest.mark.parametrize("count", [3, 30])
def test_it_is_the_mean_over_pairs(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(count, 0, 0), draw(count, 0.5, 1)
    monkeypatch.setattr(kernel, "_ROWS", 7)  # The last rows do not fill a block.
    assert distance(x, y) == pytest.approx(slow(x, y))
    order = np.random.default_rng(2).permutation(count)
    assert distance(x[order], y[order]) == pytest.approx(distance(x, y))


def test_a_value_is_what_a_picture_adds_by_the_jackknife() -> None:
    """n times the distance of all, less n - 1 times that without the picture."""
    x, y = draw(8, 0, 0), draw(8, 0.5, 1)
    without = [slow(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(8)]
    expected = 8 * slow(x, y) - 7 * np.array(without)
    np.testing.assert_allclose(kernel.pseudo_values(x, y), expected, rtol=1e-9)


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = draw(20, 3, 0)
    assert np.abs(kernel.pseudo_values(x, x)).max() < 1e-9


def test_it_does_not_grow_as_sets_become_small_though_results_follow_originals() -> (
    None
):
    large, rng = draw(4000, 0, 0), np.random.default_rng(1)
    results = 0.9 * large + rng.normal(0.4, 0.6, large.shape).astype(np.float32)
    whole = distance(results, large)
    small = [
        distance(results[i : i + 10], large[i : i + 10]) for i in range(0, 4000, 10)
    ]
    error = np.std(small) / np.sqrt(len(small))
    assert abs(np.mean(small) - whole) < 4 * error
    assert 4 * error < whole  # The test sees a bias that is as large as the distance.
