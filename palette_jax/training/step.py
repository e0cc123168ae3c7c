"""One step of training, a pure function of the state, the batch and the seed."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from palette_jax.diffusion import objective
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.training.optimizer import ema_decay_at, update_ema
from palette_jax.training.state import TrainState
from palette_jax.types import Batch, Params

NUM_LEVELS = 10


class Metrics(NamedTuple):
    """The metrics of a step, as sums, which add over steps and devices.

    The mean loss alone can hide a network that fails on the noisiest tenth of the
    levels and paints noise.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    level_loss: Float[Array, " levels"]  # Sum over the images of each tenth of t.
    level_count: Float[Array, " levels"]
    bad_steps: Int[Array, ""]  # Number of skipped steps in a row up to this one.


StepFn = Callable[..., tuple[TrainState, Metrics]]
"""`step(state, batch, *fixed)`; see `make_train_step`."""


def make_train_step(
    key: Key[Array, ""],
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: NoiseSchedule,
    *,
    loss: objective.ObjectiveFn = objective.denoising_loss,
    norm: Literal["l1", "l2"] = "l2",
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    axis_name: str | None = None,
    platform: str | None = None,
) -> StepFn:
    """Returns the step; compile it with the state donated.

    It passes further arguments after the batch, such as the weights of a teacher, to
    the loss without changing them.

    Args:
      key: of the run. The noise of an image depends on the key, the step and the
        image's position in the global batch, and not on the split of the batch.
      network: called as `network(x, y_t, gamma, deterministic)`.
      optimizer: converts gradients to updates.
      schedule: the trained noise levels.
      loss: of the objective, for example the noise or the picture.
      norm: of the error.
      ema_decay: of the averaged weights, once warmed up.
      accumulate: number of parts of a batch, to save memory.
      axis_name: of `jax.pmap`, in which the step gets one device's share of the batch.
        Its result is the same on every device, except that dropout has another key.
      platform: target of the compilation, "cpu", "tpu" or "gpu"; the default is the
        present platform.
    """

    def loss_fn(
        params: Params, fixed: tuple, batch: Batch, keys: Array, dropout_key: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        def apply(x: Array, y_t: Array, gamma: Array) -> Array:
            output: Any = network.apply(
                {"params": params}, x, y_t, gamma, False, rngs={"dropout": dropout_key}
            )
            return output

        losses, level = loss(keys, apply, batch, schedule, *fixed, norm=norm)
        bins = jax.nn.one_hot(level.t * NUM_LEVELS // len(schedule), NUM_LEVELS)
        return losses.mean(), (losses @ bins, bins.sum(0))

    gradients = jax.value_and_grad(loss_fn, has_aux=True)

    def train_step(
        state: TrainState, batch: Batch, *fixed: Any
    ) -> tuple[TrainState, Metrics]:
        image_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        position = jnp.arange(batch["y"].shape[0])
        if axis_name:
            device = jax.lax.axis_index(axis_name)
            position += device * len(position)
            dropout_key = jax.random.fold_in(dropout_key, device)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(image_key, position)
        parts = (
            *jax.tree.map(lambda array: _deal(array, accumulate), (batch, keys)),
            jax.random.split(dropout_key, accumulate),
        )
        total = _sum_over(
            functools.partial(gradients, state.params, fixed),
            parts,
            platform or jax.default_backend(),
        )
        if axis_name:
            total = _join(total, axis_name)
        (loss_sum, (level_loss, level_count)), grads = total
        mean_loss = loss_sum / accumulate
        grads = jax.tree.map(lambda g: g / accumulate, grads)

        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(mean_loss) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        def if_finite(new: Params, old: Params) -> Params:
            return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)

        # Averages the selected weights: the new ones, a TPU would write to memory
        # for the average and read again for the selection.
        params = if_finite(params, state.params)
        decay = ema_decay_at(state.step, ema_decay)
        ema_params = update_ema(state.ema_params, params, decay)
        state = TrainState(
            step=state.step + 1,
            params=params,
            ema_params=if_finite(ema_params, state.ema_params),
            opt_state=if_finite(opt_state, state.opt_state),
            bad_steps=jnp.where(finite, 0, state.bad_steps + 1),
        )
        return state, Metrics(
            mean_loss, grad_norm, level_loss, level_count, state.bad_steps
        )

    return train_step


def _join(total: Params, axis_name: str) -> Params:
    """Averages losses and gradients over the devices; sums counts."""
    (loss, counted), grads = total
    loss, grads = jax.lax.pmean((loss, grads), axis_name)
    return (loss, jax.lax.psum(counted, axis_name)), grads


def _deal(array: Array, parts: int) -> Array:
    """Splits a batch in parts so that each device has images of every part."""
    dealt = array.reshape(array.shape[0] // parts, parts, *array.shape[1:])
    return jnp.moveaxis(dealt, 1, 0)


def _sum_over(function: Callable[..., Params], parts: tuple, platform: str) -> Params:
    """Sums the results of the parts, in a loop on platforms with fast loops."""

    def add(total: Params, part: tuple) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    length = len(jax.tree.leaves(parts)[0])
    first, rest = jax.tree.map(lambda array: array[0], parts), range(1, length)
    total = function(*first)
    if platform == "cpu":
        # XLA:CPU computes the gradient of a convolution 15 times slower in a loop.
        for i in rest:
            total, _ = add(total, jax.tree.map(lambda array, i=i: array[i], parts))
        return total
    return jax.lax.scan(add, total, jax.tree.map(lambda array: array[1:], parts))[0]
