"""Schedules against exact arithmetic, and what re-spacing must never change."""

from fractions import Fraction

import numpy as np
import pytest

from palette_jax.diffusion import schedules

PAPER = (1000, 1e-4, 0.09)


def test_gamma_and_its_complement_are_exact_to_float64() -> None:
    num_steps, low, high = 50, 1e-6, 0.01
    schedule = schedules.linear_schedule(num_steps, low, high)
    gamma = Fraction(1)
    for t, beta in enumerate(np.linspace(low, high, num_steps)):
        gamma *= 1 - Fraction(float(beta))
        np.testing.assert_allclose(schedule.gamma[t], float(gamma), rtol=1e-14)
        np.testing.assert_allclose(schedule.var[t], float(1 - gamma), rtol=1e-14)
        exact = np.log1p(-float(1 - gamma))
        np.testing.assert_allclose(schedule.log_gamma[t], exact, rtol=1e-13)


def test_the_papers_training_schedule_ends_where_it_says() -> None:
    schedule = schedules.linear_schedule(2000, 1e-6, 0.01)
    assert schedule.var[0] == pytest.approx(1e-6, rel=1e-12)
    assert schedule.gamma[-1] == pytest.approx(4.39e-5, rel=1e-3)


def test_respacing_to_the_same_number_of_steps_changes_nothing() -> None:
    curve = schedules.linear_schedule(*PAPER)
    same = schedules.respace(curve, len(curve))
    np.testing.assert_allclose(same.gamma, curve.gamma, rtol=1e-12)
    np.testing.assert_allclose(same.var, curve.var, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 20, 50, 250, 999, 1000, 1500])
def test_the_last_gamma_is_near_zero_for_any_number_of_steps(num_steps: int) -> None:
    curve = schedules.linear_schedule(*PAPER)
    floor = schedules.linear_schedule(2000, 1e-6, 0.01).gamma[-1]
    paper = schedules.respace(curve, num_steps)
    trimmed = schedules.respace(curve, num_steps, gamma_floor=floor)
    assert len(paper) == len(trimmed) == num_steps
    assert paper.gamma[-1] == pytest.approx(curve.gamma[-1], rel=1e-9)
    assert trimmed.gamma[-1] == pytest.approx(floor, rel=1e-9)
    assert trimmed.gamma.min() >= floor * (1 - 1e-9)
    for schedule in (paper, trimmed):
        assert np.all(np.diff(schedule.gamma) < 0)


def test_half_of_the_steps_visit_every_second_level_of_the_curve() -> None:
    curve = schedules.linear_schedule(*PAPER)
    half = schedules.respace(curve, 500)
    np.testing.assert_allclose(half.gamma, curve.gamma[1::2], rtol=1e-12)


def test_a_larger_exponent_moves_the_steps_to_the_clean_end() -> None:
    curve = schedules.linear_schedule(*PAPER)
    squared = schedules.respace(curve, 10, exponent=2.0)
    visited = 10 * np.arange(1, 11) ** 2 - 1  # (i / 10)² of 1000 steps.
    np.testing.assert_allclose(squared.gamma, curve.gamma[visited], rtol=1e-9)


def test_log_normal_levels_have_their_mean_and_deviation() -> None:
    schedule = schedules.log_normal_schedule(2000)
    log_snr = np.log(schedule.gamma / schedule.var)
    assert np.all(np.diff(log_snr) < 0)
    assert schedule.gamma[-1] == pytest.approx(9e-5)
    np.testing.assert_allclose(np.mean(log_snr < 1.0), 0.5, atol=1e-3)
    # Its quartiles, as tabulated.
    schedule = schedules.log_normal_schedule(4)
    log_snr = np.log(schedule.gamma / schedule.var)
    np.testing.assert_allclose(log_snr[:3], [2.618776, 1.0, -0.618776], atol=1e-5)
