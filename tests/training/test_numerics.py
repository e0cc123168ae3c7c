"""What a run does in bfloat16 beside float32, and what is compiled while it goes."""

import logging

import jax
import ml_collections
import numpy as np
import pytest
from numpy.random import default_rng

from benchmarks import sizes
from palette_jax import parallel
from palette_jax.config import build, build_training
from palette_jax.training.state import TrainState, make_state

_STEPS = 300


def _config(dtype: str = "float32") -> ml_collections.ConfigDict:
    config = sizes.get_config("toy", batch_size=8, dtype=dtype)
    config.optim.warmup_steps = 10
    config.optim.ema_decay = 0.9
    config.optim.learning_rate = 1e-2
    config.sample.num_steps = 8
    return config


def _batch(step: int, *, count: int = 8) -> dict[str, np.ndarray]:
    """Returns smooth pictures: coloured ramps, the right half of them missing."""
    rng, ramp = default_rng(step), np.linspace(0, 1, 8)[None, :, None, None]
    ends = rng.uniform(0, 255, (2, count, 1, 1, 3))
    y = (ends[0] * ramp + ends[1] * (1 - ramp)) * np.ones((1, 1, 8, 1))
    y = y.astype(np.uint8)
    hole = np.zeros((count, 8, 8, 1), np.uint8)
    hole[:, :, 4:] = 1
    return {"x": np.where(hole > 0, 0, y).astype(np.uint8), "y": y, "hole": hole}


def _start(config: ml_collections.ConfigDict) -> tuple[jax.sharding.Mesh, TrainState]:
    mesh, optimizer = parallel.make_mesh(), build.make_optimizer(config)
    params = sizes.draw_params(config, mesh)
    # A new network predicts nothing: its last convolution is zero.
    params["conv_out"] = jax.tree.map(np.zeros_like, params["conv_out"])
    state = make_state(params, optimizer)
    return mesh, jax.device_put(state, parallel.replicated(mesh))


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[np.ndarray, TrainState]]:
    """Losses and the last state of runs in either type, and with other noise."""
    found, steps = {}, {}
    for name, dtype, offset in (
        ("float32", "float32", 0),
        ("bfloat16", "bfloat16", 0),
        ("other noise", "float32", 10_000),
    ):
        config = _config(dtype)
        mesh, state = _start(config)
        if dtype not in steps:
            shardings = parallel.param_shardings(mesh, state)
            steps[dtype] = build_training.compile_step(config, mesh, shardings)
        state = state.replace(step=state.step + offset)  # The noise follows from it.
        losses = []
        for step in range(_STEPS):
            state, metrics = steps[dtype](state, _batch(step))
            losses.append(float(metrics.loss))
        found[name] = (np.array(losses), state)
    return found


@pytest.mark.slow
def test_the_loss_falls_the_same_way_in_bfloat16(runs: dict) -> None:
    whole, half, other = (
        runs[name][0] for name in ("float32", "bfloat16", "other noise")
    )
    assert whole[-100:].mean() < 0.9 * whole[:10].mean()  # It does learn.
    # Type against type with the same noise, and noise against noise in the same type.
    of_type = np.sqrt(np.mean((half - whole) ** 2))
    of_noise = np.sqrt(np.mean((other - whole) ** 2))
    assert of_type < 0.2 * of_noise
    assert abs(half[-100:].mean() - whole[-100:].mean()) < 0.02 * whole[-100:].mean()


@pytest.mark.slow
def test_pictures_are_the_same_in_bfloat16_to_40_decibels(runs: dict) -> None:
    params = runs["float32"][1].ema_params
    batch = {**_batch(1000), "id": np.arange(8, dtype=np.uint32)}
    restored = {}
    for dtype in ("float32", "bfloat16"):
        restore = build.make_restore(_config(dtype), parallel.make_mesh())
        restored[dtype] = np.asarray(restore(params, batch), np.float64)
    painted = batch["hole"][..., 0] > 0
    error = (restored["bfloat16"] - restored["float32"])[painted]
    psnr = 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9))
    assert psnr > 40, psnr


def test_nothing_is_compiled_after_the_first_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = _config()
    mesh, state = _start(config)
    step = build_training.compile_step(
        config, mesh, parallel.param_shardings(mesh, state)
    )
    restore = build.make_restore(config, mesh)

    def go(number: int) -> None:
        nonlocal state
        state, _ = step(state, _batch(number))
        ids = np.arange(8, dtype=np.uint32) + number
        restore(state.ema_params, {**_batch(number), "id": ids})

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        go(0)
        first = len(_compiled(caplog))
        assert any("train_step" in line for line in _compiled(caplog))
        for number in range(1, 4):
            go(number)
        assert _compiled(caplog)[first:] == []


def _compiled(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("Compiling")]
