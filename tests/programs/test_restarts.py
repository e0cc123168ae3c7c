"""Runs that are stopped, killed, or out of disk, and what is left of them."""

import pathlib
import random
import resource
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from palette_jax.training import checkpoints
from tests.programs.conftest import TINY, Process
from tests.states import assert_same_bits, newest_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_STEPS = 30


@pytest.fixture(scope="module")
def start(start: Callable, photos: pathlib.Path) -> Callable[..., Process]:
    """`start(folder, *overrides)` starts the run that all tests here are about."""

    def start_run(folder: pathlib.Path, *overrides: str) -> Process:
        return start(
            f"--config={ROOT}/configs/multitask.py:tiny",
            "--workdir=run",
            *TINY,
            "--config.data.source=folder",
            f"--config.data.folder={photos}",
            "--config.data.max_broken_share=0.5",
            "--config.model.feature_multipliers=(1,)",
            "--config.model.attn_resolutions=()",
            "--config.model.dropout=0.1",
            f"--config.train.num_steps={NUM_STEPS}",
            "--config.train.log_every=1",
            "--config.train.checkpoint_every=4",
            "--config.train.preview_every=1000",
            *overrides,
            folder=folder,
        )

    return start_run


@pytest.fixture(scope="module")
def undisturbed(
    start: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory
) -> list[np.ndarray]:
    """What a run that nothing happened to ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = start(folder).finish()
    assert result.code == 0, result.output
    return newest_state(folder / "run")


def _steps(folder: pathlib.Path) -> list[int]:
    return checkpoints.committed_steps(folder / "run" / "checkpoints")


@pytest.mark.slow
def test_killed_five_times_a_run_ends_with_the_same_bits(
    start: Callable[..., Process], undisturbed: list[np.ndarray], tmp_path: pathlib.Path
) -> None:
    draw, went_on, killed = random.Random(), 0, 0
    # While it starts; past the save at 8, which waits for the one at 4, so that there
    # is a checkpoint; then in a step, or while a checkpoint is written.
    for steps in (0, 9, *(draw.randint(1, 6) for _ in range(3))):
        process = start(tmp_path)
        process.wait_for(" ms/step ", count=steps)
        time.sleep(draw.uniform(0, 0.15 if steps else 3))
        process.signal(signal.SIGKILL)
        run = process.finish()
        assert run.code in (-signal.SIGKILL, 0), run.output
        killed += run.code != 0
        went_on += "going on from step" in run.output
    run = start(tmp_path).finish()
    assert run.code == 0, run.output
    assert killed >= 3 and went_on >= 1, "nothing happened to the run"
    assert_same_bits(newest_state(tmp_path / "run"), undisturbed)


@pytest.mark.slow
def test_a_signal_saves_exits_with_75_and_the_same_command_goes_on(
    start: Callable[..., Process], undisturbed: list[np.ndarray], tmp_path: pathlib.Path
) -> None:
    seldom = "--config.train.checkpoint_every=1000"
    last = 0
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process = start(tmp_path, seldom)
        process.wait_for(" ms/step ", count=2)
        process.signal(number)
        run = process.finish()
        assert run.code == 75, run.output
        assert f"got {number.name}" in run.output
        assert not last or f"going on from step {last}" in run.output
        newest = _steps(tmp_path)[0]
        assert last + 2 <= newest < NUM_STEPS
        last = newest
    run = start(tmp_path, seldom).finish()
    assert run.code == 0 and f"going on from step {last}" in run.output, run.output
    assert_same_bits(newest_state(tmp_path / "run"), undisturbed)


@pytest.mark.slow
def test_a_full_disk_costs_no_finished_checkpoint(
    start: Callable[..., Process], undisturbed: list[np.ndarray], tmp_path: pathlib.Path
) -> None:
    run = start(tmp_path, "--config.train.num_steps=3").finish()
    assert run.code == 0, run.output
    before = newest_state(tmp_path / "run")
    files = (tmp_path / "run" / "checkpoints" / "3").rglob("*")
    largest = max(path.stat().st_size for path in files)

    # A limit on the size of a file fails a write as a full disk does.
    process = start(tmp_path)
    limits = (largest // 2, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
    run = process.finish()
    assert "make room" in run.error and "step 3 is the last" in run.error
    assert_same_bits(newest_state(tmp_path / "run"), before)

    run = start(tmp_path).finish()
    assert run.code == 0, run.output
    assert_same_bits(newest_state(tmp_path / "run"), undisturbed)
