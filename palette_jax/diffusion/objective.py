"""The training objective: predict the noise (paper, section 2)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from palette_jax.diffusion import process
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import Batch, PredictNoiseFn


class NoiseLevel(NamedTuple):
    """A noise level for each image."""

    t: Int[Array, " b"]  # The step it was drawn around; 0 is the cleanest.
    gamma: Float[Array, " b"]
    var: Float[Array, " b"]  # 1 - gamma, to full precision.


ObjectiveFn = Callable[..., tuple[Float[Array, " b"], NoiseLevel]]
"""`denoising_loss` or `regression_loss`."""


def draw_level(keys: Key[Array, " b"], schedule: NoiseSchedule) -> NoiseLevel:
    """Draws t uniformly, then gamma uniformly between its neighbours t - 1 and t.

    Step 0 has the clean image for a neighbour, so every level from there to the
    noisiest has a density (SR3, section 2; WaveGrad, section 3.3).
    """

    def draw(key: Array) -> tuple[Array, Array]:
        key_t, key_share = jax.random.split(key)
        t = jax.random.randint(key_t, (), 0, len(schedule))
        return t, jax.random.uniform(key_share)

    def between(t: Array, share: Array, table: np.ndarray, clean: float) -> Array:
        # The host subtracts in float64; only the small difference is rounded.
        before = np.append(clean, table[:-1])
        lower = jnp.asarray(before, jnp.float32)[t]
        return lower + share * jnp.asarray(table - before, jnp.float32)[t]

    t, share = jax.vmap(draw)(keys)
    return NoiseLevel(
        t=t,
        gamma=between(t, share, schedule.gamma, 1.0),
        var=between(t, share, schedule.var, 0.0),
    )


def denoising_loss(
    keys: Key[Array, " b"],
    predict_noise: PredictNoiseFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], NoiseLevel]:
    """Returns the loss of each image, averaged over its mask, and its noise level.

    Averaging over the mask, and not over the picture, makes a small hole weigh as
    much as a large one.

    Args:
      keys: one per image.
      predict_noise: the network.
      batch: bytes as the data pipeline makes them.
      schedule: the levels to train on.
      norm: `l2` is the paper's choice, `l1` its ablation (Table 6).
    """
    key_level, key_hole, key_noise = jax.vmap(
        lambda key: jax.random.split(key, 3), out_axes=1
    )(keys)
    level = draw_level(key_level, schedule)
    y = process.to_float(batch["y"])
    x = process.fill_hole(key_hole, process.to_float(batch["x"]), batch["hole"])
    mask = process.generation_mask(batch["hole"])
    noise = process.normal_like(key_noise, y)
    y_t = process.add_noise(y, noise, level.gamma, level.var, mask)
    return masked_error(noise, predict_noise(x, y_t, level.gamma), mask, norm), level


def regression_loss(
    keys: Key[Array, " b"],
    predict_picture: PredictNoiseFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], NoiseLevel]:
    """Returns the loss of the paper's baseline: the picture in one pass.

    The same network is given nothing of the target, at the noisiest level, and asked
    for the picture instead of the noise. Arguments and results are those of
    `denoising_loss`.
    """
    y = process.to_float(batch["y"])
    x = process.fill_hole(keys, process.to_float(batch["x"]), batch["hole"])
    mask = process.generation_mask(batch["hole"])
    last = len(schedule) - 1
    level = NoiseLevel(
        t=jnp.full(keys.shape, last),
        gamma=jnp.full(keys.shape, schedule.gamma[last], jnp.float32),
        var=jnp.full(keys.shape, schedule.var[last], jnp.float32),
    )
    picture = predict_picture(x, jnp.zeros_like(y), level.gamma)
    return masked_error(y, picture, mask, norm), level


def masked_error(
    target: Float[Array, "b h w c"],
    estimate: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"],
    norm: Literal["l1", "l2"],
) -> Float[Array, " b"]:
    """Averages the error of each image over the pixels of its mask, in float32."""
    error = (target - estimate.astype(jnp.float32)) * mask
    error = jnp.abs(error) if norm == "l1" else jnp.square(error)
    pixels = jnp.sum(mask, axis=(1, 2, 3)) * target.shape[-1]
    return jnp.sum(error, axis=(1, 2, 3)) / pixels
