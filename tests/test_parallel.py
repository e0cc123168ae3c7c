"""Parallelism: what the devices share, and that results do not depend on them."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.diffusion import schedules
from palette_jax.errors import UserError
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
    parallel.MIN_SHARDED = 1  # The network is small.
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


def test_small_leaves_stay_whole() -> None:
    mesh = parallel.make_mesh(fsdp=4)
    limit = parallel.MIN_SHARDED
    leaves = {
        name: jax.ShapeDtypeStruct((count // 64, 64), jnp.float32)
        for name, count in (("small", limit - 64), ("large", limit))
    }
    found = parallel.param_shardings(mesh, leaves)
    assert found["small"].is_fully_replicated
    assert not found["large"].is_fully_replicated


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 3, 256, 512), 3),
        ((3, 3, 512, 256), 2),
        ((512, 256), 0),
        ((256, 510), 0),  # 510 is no multiple of 4.
        ((4, 4, 4096), 2),
    ],
)
def test_the_longest_axis_that_divides_is_shared_out(shape: tuple, axis: int) -> None:
    """Shares of a short axis are so thin that they fill no tile of a matrix unit."""
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    sharding = parallel.param_shardings(parallel.make_mesh(fsdp=4), leaf)
    wanted = tuple(n // 4 if i == axis else n for i, n in enumerate(shape))
    assert sharding.shard_shape(shape) == wanted


def test_each_device_holds_its_share_of_every_large_leaf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "MIN_SHARDED", 1)
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
    # As on a slice of TPU v3: the first host has 0 to 3 and 8 to 11.
    devices = [_device(n // 4 % 2, n) for n in range(16)]
    order = [d.id for d in parallel.make_mesh(devices=devices).devices.flat]
    assert order == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]
    with pytest.raises(UserError, match="divide the 4 devices of a slice"):
        parallel.make_mesh(fsdp=3)


def _device(
    process_index: int, number: int, *, slice_index: int = 0, platform: str = "tpu"
) -> Any:
    device = mock.Mock(spec=jax.Device)
    device.configure_mock(
        process_index=process_index,
        id=number,
        slice_index=slice_index,
        platform=platform,
    )
    return device


@pytest.mark.parametrize("slices", [0, 2])
def test_fsdp_stays_within_a_slice_and_data_goes_over_all(slices: int) -> None:
    # Ids and hosts of one slice between those of the other.
    devices = [_device(n % 4, n, slice_index=n % 2) for n in range(16)]
    mesh = parallel.make_mesh(fsdp=4, slices=slices, devices=devices)
    assert mesh.shape == {"data": 4, "fsdp": 4}
    for group in mesh.devices:
        assert len({device.slice_index for device in group}) == 1
    with pytest.raises(UserError, match="divide the 8 devices of a slice"):
        parallel.make_mesh(fsdp=16, slices=slices, devices=devices)
    with pytest.raises(UserError, match="16 in 2 slices, got 4"):
        parallel.make_mesh(slices=4, devices=devices)
    # The hosts of GPUs are no slices: `fsdp` may go over them.
    gpus = [_device(n, n, slice_index=n, platform="gpu") for n in range(16)]
    assert parallel.make_mesh(fsdp=16, devices=gpus).shape["fsdp"] == 16


if __name__ == "__main__":
    _compare_all()


_COMPILE = """
import warnings
import jax
from palette_jax import parallel
warnings.simplefilter("error")
parallel.cache_compilations()
parallel.cache_compilations()
assert jax.jit(lambda x: 2 * x + 1)(3.0) == 7
"""


@pytest.mark.parametrize("left", [b"", b"garbage", None])
def test_a_torn_file_of_a_compiled_program_is_replaced(tmp_path, left) -> None:
    def compile_once() -> dict[str, int]:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", _COMPILE], env=environment, check=True)
        return {path.name: path.stat().st_size for path in tmp_path.iterdir()}

    whole = compile_once()
    assert whole
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if left is None else left)
    again = compile_once()
    assert again.keys() == whole.keys()
    # The time that compiling took is in the file.
    assert all(abs(again[name] - size) < 100 for name, size in whole.items())


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_rows_come_back_in_their_order_whatever_that_of_the_devices(order) -> None:
    devices = np.array([jax.devices()[i] for i in order])
    mesh = jax.sharding.Mesh(devices.reshape(2, 2), ("data", "fsdp"))
    rows = np.arange(24).reshape(8, 3)
    split = parallel.to_global(mesh, {"rows": rows})["rows"]
    np.testing.assert_array_equal(parallel.to_host(split), rows)
    # Also where devices have copies.
    by_data = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    copies = jax.device_put(rows, by_data)
    np.testing.assert_array_equal(parallel.to_host(copies), rows)


@pytest.mark.parametrize(
    ("cores", "batches", "count"),
    [(6, [8, 4], 4), (3, [64], 2), (8, [6, 9], 3), (2, [5], 1), (4, [64, 32], 4)],
)
def test_as_many_cores_are_used_as_divide_all_batches(
    monkeypatch: pytest.MonkeyPatch, cores: int, batches: list[int], count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    settings: dict[str, Any] = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    parallel.use_cpu_cores(batches)
    assert settings == {"jax_num_cpu_devices": count}
