"""Runs that are stopped, killed, or out of disk, and what is left of them."""

import pathlib
import random
import resource
import signal
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from palette_jax import build
from palette_jax.config import from_dict
from palette_jax.training import checkpoints
from palette_jax.training.state import make_state
from tests.programs.conftest import TINY, Process

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_STEPS = 15
Start = Callable[..., Process]


def _args(*more: str) -> list[str]:
    return [
        f"--config={ROOT}/configs/multitask.py:tiny",
        "--workdir=run",
        *TINY,
        f"--config.train.num_steps={NUM_STEPS}",
        "--config.train.log_every=1",
        "--config.train.checkpoint_every=3",
        "--config.train.preview_every=1000",
        *more,
    ]


def _state(folder: pathlib.Path) -> list[np.ndarray]:
    """Returns all that the newest checkpoint of a run holds."""
    directory = folder / "run" / "checkpoints"
    config = from_dict(checkpoints.load_config(directory))
    abstract = jax.eval_shape(
        lambda: make_state(
            build.init_params(jax.random.key(0), config), build.make_optimizer(config)
        )
    )
    with checkpoints.open_manager(directory) as manager:
        return [
            np.asarray(leaf)
            for leaf in jax.tree.leaves(checkpoints.restore(manager, abstract))
        ]


@pytest.fixture(scope="module")
def undisturbed(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("undisturbed")
    result = start(*_args(), folder=folder).finish()
    assert result.code == 0, result.output
    return _state(folder)


def _assert_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected) > 20
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_killed_five_times_a_run_ends_with_the_same_bits(
    start: Start, undisturbed: list[np.ndarray], tmp_path: pathlib.Path
) -> None:
    draw, went_on = random.Random(), 0
    for kill in range(5):
        process = start(*_args(), folder=tmp_path)
        # Later and later: in the start, in a step, or while a checkpoint is written.
        if kill:
            process.wait_for(f"step {3 * kill + draw.randint(0, 2)}/")
        time.sleep(draw.uniform(0, 0.5))
        process.signal(signal.SIGKILL)
        run = process.finish()
        assert run.code == -signal.SIGKILL, run.output
        went_on += "going on from step" in run.output
    run = start(*_args(), folder=tmp_path).finish()
    assert run.code == 0, run.output
    assert went_on, "every run began at the beginning"
    _assert_same_bits(_state(tmp_path), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_75(
    start: Start,
    undisturbed: list[np.ndarray],
    tmp_path: pathlib.Path,
    number: signal.Signals,
) -> None:
    args = _args("--config.train.checkpoint_every=1000")
    process = start(*args, folder=tmp_path)
    process.wait_for("left\n")
    process.signal(number)
    run = process.finish()
    assert run.code == 75, run.output
    (step,) = (int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert 1 <= step < NUM_STEPS
    run = start(
        *_args("--config.train.checkpoint_every=1000"), folder=tmp_path
    ).finish()
    assert run.code == 0 and f"going on from step {step}" in run.output, run.output
    _assert_same_bits(_state(tmp_path), undisturbed)


def test_a_full_disk_costs_no_finished_checkpoint(
    start: Start, undisturbed: list[np.ndarray], tmp_path: pathlib.Path
) -> None:
    run = start(*_args("--config.train.num_steps=3"), folder=tmp_path).finish()
    assert run.code == 0, run.output
    before = _state(tmp_path)
    files = [p for p in (tmp_path / "run" / "checkpoints" / "3").rglob("*")]
    largest = max(path.stat().st_size for path in files)

    # A limit on the size of a file fails a write as a full disk does.
    process = start(*_args(), folder=tmp_path)
    resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (largest // 2, resource.RLIM_INFINITY)
    )
    run = process.finish()
    assert run.code == 1, run.output
    (said,) = (x for x in run.output.splitlines() if x.startswith("error: "))
    assert "make room" in said and "step 3 is the last" in said
    after = _state(tmp_path)
    _assert_same_bits(after, before)

    run = start(*_args(), folder=tmp_path).finish()
    assert run.code == 0, run.output
    _assert_same_bits(_state(tmp_path), undisturbed)
