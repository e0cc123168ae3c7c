"""From a ConfigDict to what training starts with, and to the loss that is watched."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.diffusion import objective
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.training.state import TrainState, make_state
from palette_jax.types import Params


def abstract_state(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, Any]:
    """Returns the shapes of a run's state with their shardings, and these alone."""
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(
        lambda key: make_state(build.init_params(key, config), optimizer), key
    )
    shardings = parallel.param_shardings(mesh, shapes)
    return parallel.with_shardings(shapes, shardings), shardings


def init_state(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    shardings: Any,
) -> TrainState:
    """Draws the state before the first step."""
    # Compiling hundreds of small draws well takes far longer than running them badly.
    on_cpu = jax.default_backend() == "cpu"
    options: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
    init = jax.jit(
        lambda key: make_state(build.init_params(key, config), optimizer),
        out_shardings=shardings,
    )
    key = jax.random.key(config.seed)
    return init.lower(key).compile(compiler_options=options)(key)


def make_held_out_loss(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[[Params, dict[str, Array]], tuple[Array, Array]]:
    """Returns what sums the losses of a padded batch and counts its pictures.

    A batch has `id`, which the noise follows from, and `valid` beside `x`, `y`, `hole`.
    """
    return jax.jit(
        functools.partial(
            _held_out_losses,
            build.make_network(config),
            build.make_schedule(config),
            build.make_loss(config),
            config.diffusion.loss_norm,
        ),
        compiler_options=parallel.compiler_options(mesh),
    )


def _held_out_losses(
    network: nn.Module,
    schedule: NoiseSchedule,
    loss: objective.ObjectiveFn,
    norm: Literal["l1", "l2"],
    params: Params,
    batch: dict[str, Array],
) -> tuple[Array, Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), batch["id"])

    def apply(x: Array, y_t: Array, gamma: Array) -> Array:
        output: Any = network.apply({"params": params}, x, y_t, gamma)
        return output

    pictures: Any = {name: batch[name] for name in ("x", "y", "hole")}
    losses, _ = loss(keys, apply, pictures, schedule, norm=norm)
    return jnp.where(batch["valid"], losses, 0).sum(), batch["valid"].sum()
