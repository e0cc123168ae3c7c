"""Parallelism: what the devices share, and that results do not depend on them."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.diffusion import schedules
from palette_jax.models.unet import UNet
from palette_jax.training import state, step

ROOT = pathlib.Path(__file__).resolve().parent.parent
NETWORK = UNet(
    base_features=8,
    feature_multipliers=(1,),
    num_res_blocks=1,
    attn_resolutions=(8,),
    image_size=8,
    head_features=8,
)
# Momentum is a state to shard. Adam would turn roundings of tiny gradients into steps.
RULE = optax.sgd(0.1, momentum=0.9)
SCHEDULE = schedules.linear_schedule(2000, 1e-6, 0.01)


def _batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    hole = np.zeros((16, 8, 8, 1), np.uint8)
    hole[:5, :, :4] = 1
    return {"y": y, "x": y * (1 - hole), "hole": hole}


@functools.cache
def _start() -> state.TrainState:
    image = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(NETWORK.init)(jax.random.key(0), image, image, jnp.ones(1))[
        "params"
    ]
    return state.make_state(params, RULE)


def _train(
    num_devices: int, fsdp: int, *, pmap: bool = False, accumulate: int = 1
) -> Any:
    """Returns the losses of two steps and the parameters after them."""
    mesh = parallel.make_mesh(fsdp=fsdp, devices=jax.devices()[:num_devices])
    current = _start()
    shardings = parallel.param_shardings(mesh, current)
    current = jax.device_put(jax.device_get(current), shardings)
    train_step = step.make_train_step(
        jax.random.key(7),
        NETWORK,
        RULE,
        SCHEDULE,
        accumulate=accumulate,
        axis_name=parallel.PMAP_AXIS if pmap else None,
    )
    if pmap:
        run = parallel.pmap_step(train_step, mesh)
    else:
        jitted = parallel.jit_step(train_step, mesh, shardings)

        def run(current: Any, batch: dict[str, np.ndarray]) -> Any:
            return jitted(current, parallel.to_global(mesh, batch))

    seen = []
    for n in range(2):
        current, metrics = run(current, _batch(n))
        seen.append([float(metrics.loss), *metrics.level_loss.tolist()])
    layouts = jax.tree.map(lambda leaf: leaf.sharding, current)
    jax.tree.map(
        lambda a, b, leaf: _assert_same(a, b, leaf), layouts, shardings, current
    )
    return np.array(seen), jax.device_get((current.params, current.ema_params))


def _assert_same(layout: Any, expected: Any, leaf: jax.Array) -> None:
    assert layout.is_equivalent_to(expected, leaf.ndim)


def _distance(tree: Any, other: Any) -> float:
    difference = jax.tree.map(np.subtract, tree, other)
    return float(optax.tree.norm(difference) / optax.tree.norm(other))


def _compare_all() -> None:
    """Prints how far each layout on 8 devices is from one device."""
    one, found = _train(1, 1), {}
    for name, options in {
        "jit": {},
        "fsdp 2": {"fsdp": 2},
        "fsdp 4": {"fsdp": 4},
        "fsdp 8": {"fsdp": 8},
        "pmap": {"pmap": True, "accumulate": 2},
    }.items():
        seen, trees = _train(8, **{"fsdp": 1, **options})
        loss = float(np.max(np.abs(seen - one[0])) / one[0].max())
        found[name] = (loss, _distance(trees, one[1]))
    print(json.dumps(found))


@pytest.mark.slow
def test_eight_devices_train_as_one_under_jit_fsdp_and_pmap() -> None:
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_parallel"],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 5
    for name, (loss, params) in found.items():
        assert loss < 1e-5 and params < 1e-5, name


def test_each_device_holds_its_share_of_every_large_leaf() -> None:
    current = _start()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(current))
    for fsdp in (1, 2, 4):
        shardings = parallel.param_shardings(parallel.make_mesh(fsdp=fsdp), current)
        placed = jax.device_put(current, shardings)
        here = sum(
            leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed)
        )
        # All but the counts and the three values of the last bias is divided.
        assert whole / fsdp <= here < whole / fsdp * 1.02
        kernel = placed.params["conv_in"]["kernel"]
        moment = placed.opt_state[0].trace["conv_in"]["kernel"]
        average = placed.ema_params["conv_in"]["kernel"]
        assert kernel.sharding == moment.sharding == average.sharding


@pytest.mark.slow
def test_the_devices_do_not_change_what_is_sampled() -> None:
    config = uncrop.get_config("tiny")
    config.model.base_features, config.model.feature_multipliers = 8, (1, 2)
    config.model.attn_resolutions, config.model.norm_groups = (8,), 4
    config.data.image_size, config.sample.num_steps = 16, 3
    params = jax.jit(lambda: build.init_params(jax.random.key(0), config))()
    # The last layer of a new network is zero, and any two of those agree.
    params["conv_out"]["kernel"] += 0.02
    batch = {
        name: np.resize(value, (8, 16, 16, value.shape[-1]))
        for name, value in _batch(0).items()
    }
    batch["id"] = np.arange(8, dtype=np.uint32)
    results = []
    for devices, fsdp in ((1, 1), (4, 1), (4, 2), (4, 4)):
        mesh = parallel.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
        placed = jax.device_put(params, parallel.param_shardings(mesh, params))
        results.append(build.make_restore(config, mesh)(placed, batch).astype(int))
    assert results[0].std() > 20
    for other in results[1:]:
        # To rounding: a value may fall on the other side of the edge of a byte.
        assert np.abs(other - results[0]).max() <= 1
        assert np.mean(other != results[0]) < 0.01


def test_a_mesh_goes_host_by_host() -> None:
    class Device:
        def __init__(self, process_index: int, number: int):
            self.process_index, self.id = process_index, number

    # As on a slice of TPU v3: the first host has 0 to 3 and 8 to 11.
    devices: Any = [Device(n // 4 % 2, n) for n in range(16)]
    order = [d.id for d in sorted(devices, key=lambda d: (d.process_index, d.id))]
    assert order == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]
    with pytest.raises(ValueError, match="divide the 4 devices, got 3"):
        parallel.make_mesh(fsdp=3)


if __name__ == "__main__":
    _compare_all()
