"""Runs that are stopped, killed, or out of disk, and what is left of them."""

import pathlib
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from palette_jax.training import checkpoints
from tests.programs.conftest import TINY, Process
from tests.states import assert_same_bits, newest_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_STEPS = 60  # Enough that a slow machine signals in time.


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
        went_on += "resuming from step" in run.output
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
    # What schedulers send, a lost terminal, and Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        process = start(tmp_path, seldom)
        process.wait_for(" ms/step ", count=2)
        process.signal(number)
        run = process.finish()
        assert run.code == 75, run.output
        assert f"got {number.name}" in run.output or "Ctrl-C" in run.output
        assert not last or f"resuming from step {last}" in run.output
        newest = _steps(tmp_path)[0]
        assert last + 2 <= newest < NUM_STEPS
        last = newest
    run = start(tmp_path, seldom).finish()
    assert run.code == 0 and f"resuming from step {last}" in run.output, run.output
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


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_costs_no_finished_checkpoint(
    start: Callable[..., Process], tmp_path: pathlib.Path
) -> None:
    process = start(tmp_path, "--config.train.num_steps=100000")
    process.wait_for("held_out_loss", count=3)
    process.signal(signal.SIGINT)
    time.sleep(0.02)
    process.signal(signal.SIGINT)
    run = process.finish()
    assert run.code in (75, 130) and "Traceback" not in run.output, run.output
    assert _steps(tmp_path)


@pytest.mark.slow
def test_a_second_run_in_the_same_workdir_is_refused(
    start: Callable[..., Process], tmp_path: pathlib.Path
) -> None:
    first = start(tmp_path, "--config.train.num_steps=100000")
    first.wait_for(" ms/step ", count=2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "run").symlink_to(tmp_path / "run")
    error = start(elsewhere).finish().error
    assert f"process {first.pid} on" in error and "--workdir" in error
    first.signal(signal.SIGTERM)
    assert first.finish().code == 75


@pytest.mark.slow
def test_a_diverged_run_goes_on_from_a_sound_state_with_the_advice(
    start: Callable[..., Process], tmp_path: pathlib.Path
) -> None:
    wild = [f"--config.optim.{key}" for key in ("learning_rate=1e30", "clip_norm=0")]
    wild.append("--config.optim.warmup_steps=0")
    often = "--config.train.checkpoint_every=1"
    error = start(tmp_path, *wild, often).finish().error
    assert "not finite" in error and "a lower --config.optim.learning_rate" in error
    advice = re.findall(r"--config\.[\w.]+=[\w.]+", error)
    assert len(advice) == 2
    # With the sane rate of the config, and with each of the others beside it.
    for num_steps, flags in enumerate(([], *([flag] for flag in advice)), NUM_STEPS):
        steps = f"--config.train.num_steps={num_steps}"
        run = start(tmp_path, often, *flags, steps).finish()
        assert run.code == 0, run.output
        assert f"step {num_steps}/{num_steps}" in run.output, run.output


@pytest.mark.slow
def test_pictures_added_between_two_starts_move_none_to_the_other_side(
    start: Callable[..., Process], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    there = f"--config.data.folder={folder}"
    assert start(tmp_path, there, "--config.train.num_steps=2").finish().code == 0
    directory = tmp_path / "run" / "checkpoints"
    before = set(checkpoints.load_about(directory)["data"]["held_out_names"])
    for i in range(40):
        shutil.copy(photos / "0.jpg", folder / f"added_{i}.jpg")
    run = start(tmp_path, there, "--config.train.num_steps=4").finish()
    assert run.code == 0, run.output
    assert "pictures changed since the last checkpoint" in run.output
    after = set(checkpoints.load_about(directory)["data"]["held_out_names"])
    assert before <= after
    assert all(name.startswith("added_") for name in after - before)


def test_a_workdir_that_cannot_be_written_is_one_sentence(
    start: Callable[..., Process], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "run").write_text("a file")
    assert "expected to write to the workdir" in start(tmp_path).finish().error


@pytest.mark.slow
@pytest.mark.parametrize("what", ["events", "previews"])
def test_a_log_that_cannot_be_written_is_one_sentence_and_keeps_checkpoints(
    start: Callable[..., Process], tmp_path: pathlib.Path, what: str
) -> None:
    run = start(tmp_path, "--config.train.num_steps=3").finish()
    assert run.code == 0, run.output
    before = newest_state(tmp_path / "run")
    if what == "previews":
        shutil.rmtree(tmp_path / "run" / "previews")
        (tmp_path / "run" / "previews").write_text("in the way")
    process = start(
        tmp_path,
        "--config.train.num_steps=100000",
        "--config.train.checkpoint_every=100000",
        f"--config.train.preview_every={100 if what == 'previews' else 100_000}",
    )
    process.wait_for(" ms/step ")
    if what == "events":
        # A limit on the size of a file fails a write as a full disk does.
        limits = (20_000, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
    error = process.finish().error
    assert "make room" in error and "step 3 is the last" in error, error
    assert_same_bits(newest_state(tmp_path / "run"), before)
