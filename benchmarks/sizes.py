"""The measured networks, with random weights and pictures."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from palette_jax import parallel
from palette_jax.config import base, build, build_training
from palette_jax.planning import roofline
from palette_jax.training.state import TrainState, make_state
from palette_jax.types import Params

_Keys = dict[str, Any]
# A variant of the configs and its changes: `tiny` at 64 pixels; `medium`, a network of
# 25 million parameters that a CPU can still train; `toy`, for tests of these programs.
_SIZES: dict[str, tuple[str, _Keys]] = {
    "toy": (
        "tiny",
        {
            "data.image_size": 8,
            "model.base_features": 8,
            "model.feature_multipliers": (1, 2),
            "model.attn_resolutions": (4,),
            "train.batch_size": 4,
        },
    ),
    "tiny": ("tiny", {"data.image_size": 64, "model.attn_resolutions": (16,)}),
    "medium": (
        "tiny",
        {
            "data.image_size": 64,
            "model.base_features": 64,
            "model.feature_multipliers": (1, 2, 3, 4),
            "model.num_res_blocks": 2,
            "model.attn_resolutions": (32, 16, 8),
            "train.batch_size": 8,
        },
    ),
    "small": ("small", {"train.batch_size": 32}),
    "paper": ("paper", {"train.batch_size": 32}),
}
SIZES = tuple(_SIZES)


def get_config(
    size: str, *, batch_size: int = 0, dtype: str | None = None, remat: bool = False
) -> ml_collections.ConfigDict:
    """Returns the config of a size; 0 and None keep its batch and type."""
    variant, keys = _SIZES[size]
    config = base.get_config(variant)
    for key, value in keys.items():
        group, name = key.split(".")
        config[group][name] = value
    config.train.batch_size = batch_size or config.train.batch_size
    config.eval.batch_size = config.train.batch_size
    config.model.dtype = dtype or config.model.dtype
    config.model.remat = remat
    build.check(config)
    return config


def use_all_cores(configs: list[ml_collections.ConfigDict]) -> None:
    """Makes CPU cores devices, as training does; call before using a device."""
    parallel.use_cpu_cores([config.train.batch_size for config in configs])


def draw_params(config: ml_collections.ConfigDict, mesh: Mesh) -> Params:
    """Returns small random weights, without compiling anything."""
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct, sharding: Any) -> jax.Array:
        fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
        values = rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)
        return jax.device_put(values.astype(leaf.dtype), sharding)

    return jax.tree.map(draw, shapes, parallel.param_shardings(mesh, shapes))


def draw_batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Returns a batch of noise with a hole in half of its pictures."""
    rng, size = np.random.default_rng(0), config.data.image_size
    count = config.train.batch_size
    y = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    hole = np.zeros((count, size, size, 1), np.uint8)
    hole[::2, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    ids = np.arange(count, dtype=np.uint32)
    return {"x": np.where(hole > 0, 0, y).astype(np.uint8), "y": y, "hole": hole} | {
        "id": ids
    }


class TrainingStep(NamedTuple):
    """A compiled step; each run continues from the previous state.

    Attributes:
      run: runs the step once, from the bytes of a batch on the host.
      flops: of products and convolutions in the traced program.
      compiled: the program.
      trace_seconds, compile_seconds: time of tracing and compiling.
    """

    run: Callable[[], Any]
    flops: float
    compiled: jax.stages.Compiled
    trace_seconds: float
    compile_seconds: float


def training_step(config: ml_collections.ConfigDict) -> TrainingStep:
    """Compiles the training step of a config, as `main.py` runs it."""
    mesh = parallel.make_mesh()
    step = build_training.make_step(config)
    state = _draw_state(config, mesh)
    batch = {name: draw_batch(config)[name] for name in ("x", "y", "hole")}
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted = parallel.jit_step(step, mesh, shardings)
    start = time.perf_counter()
    traced = jitted.trace(state, parallel.to_global(mesh, batch))
    lowered = traced.lower()
    traced_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    flops = roofline.count_work(traced.jaxpr).flops
    carry = [state]

    def run() -> Any:
        carry[0], metrics = compiled(carry[0], parallel.to_global(mesh, batch))
        return carry[0], metrics

    return TrainingStep(
        run, flops, compiled, traced_at - start, compiled_at - traced_at
    )


def _draw_state(config: ml_collections.ConfigDict, mesh: Mesh) -> TrainState:
    optimizer, params = build.make_optimizer(config), draw_params(config, mesh)
    shapes = jax.eval_shape(lambda params: make_state(params, optimizer), params)
    shardings = parallel.param_shardings(mesh, shapes)
    zeros = jax.tree.map(
        lambda leaf, sharding: jax.device_put(
            np.zeros(leaf.shape, leaf.dtype), sharding
        ),
        shapes,
        shardings,
    )
    average = jax.tree.map(lambda leaf: leaf.copy(), params)
    return zeros.replace(params=params, ema_params=average)


def forward_flops(config: ml_collections.ConfigDict) -> float:
    """Counts the operations of one evaluation of the network for a batch."""
    params = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    count, size = config.train.batch_size, config.data.image_size
    picture = jax.ShapeDtypeStruct((count, size, size, 3), np.float32)
    gamma = jax.ShapeDtypeStruct((count,), np.float32)
    network = build.make_network(config)
    traced = jax.make_jaxpr(network.apply)({"params": params}, picture, picture, gamma)
    return roofline.count_work(traced).flops
