"""The speed of a run, its share of useful time, and its trace."""

import pathlib
import time

import jax
import jax.numpy as jnp
import pytest

from palette_jax.training import pace


class _Time:
    """A clock that goes on only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: 1e9 + self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock_time(monkeypatch: pytest.MonkeyPatch) -> _Time:
    return _Time(monkeypatch)


def test_evaluation_and_checkpoints_do_not_count_as_steps(
    tmp_path: pathlib.Path, clock_time: _Time
) -> None:
    clock = pace.Clock(str(tmp_path), start_step=0)
    for _ in range(10):
        with clock.waiting():
            clock_time.sleep(0.5)
        clock_time.sleep(1.5)
    with clock.paused():
        clock_time.sleep(600)
    found = clock.lap(10)
    assert found.step_seconds == pytest.approx(2.0)
    assert found.data_share == pytest.approx(0.25)
    assert found.goodput == pytest.approx(20 / 620)
    clock_time.sleep(30)  # What was paused and waited for is over.
    found = clock.lap(20)
    assert found.step_seconds == pytest.approx(3.0)
    assert found.data_share == 0.0
    assert found.goodput == pytest.approx((20 + 30) / 650)  # A slow lap hides no pause.


def test_the_first_step_waits_for_the_compiler_and_is_left_out(
    tmp_path: pathlib.Path, clock_time: _Time
) -> None:
    clock = pace.Clock(str(tmp_path), start_step=40)
    clock_time.sleep(900)
    clock.compiled(41)
    clock_time.sleep(18)
    assert clock.lap(50).step_seconds == pytest.approx(2.0)


def test_goodput_goes_back_to_the_first_start_and_forgets_lost_steps(
    tmp_path: pathlib.Path, clock_time: _Time
) -> None:
    # Started 4000 s ago; killed at step 700, restored at 500, half an hour away.
    for age in (4000, 100):
        started = int(1e9 + clock_time.now - age)
        (tmp_path / f"events.out.tfevents.{started}.host.1.v2").touch()
    clock = pace.Clock(str(tmp_path), start_step=500)
    clock_time.sleep(1000)
    assert clock.lap(1000).goodput == pytest.approx(1000 * 2 / 5000)


def test_utilization_is_the_time_at_peak_by_the_time_taken(
    tmp_path: pathlib.Path, clock_time: _Time
) -> None:
    clock = pace.Clock(str(tmp_path), start_step=0, best_step_seconds=0.8)
    clock_time.sleep(20)
    assert clock.lap(10).utilization == pytest.approx(0.4)
    assert pace.Clock(str(tmp_path), start_step=0).lap(1).utilization is None


def test_some_steps_are_traced(tmp_path: pathlib.Path) -> None:
    profile = pace.Profile(str(tmp_path), (3, 5))
    square = jax.jit(jnp.square)
    for step in range(1, 8):
        profile.before(step)
        square(1.0 * step).block_until_ready()
        traces = list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
        assert len(traces) == (step >= 5)
    profile = pace.Profile(str(tmp_path), (3, 9))
    profile.before(3)
    profile.stop()  # The run ends before the trace does.
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
