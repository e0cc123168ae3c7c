"""Training objectives: the noise (paper, section 2), the velocity, or the picture.

Each has a function from the network's output to the clean picture, the only input of
a sampler.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from palette_jax.diffusion import process
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import Batch, NetworkFn


class NoiseLevel(NamedTuple):
    """A noise level for each image."""

    t: Int[Array, " b"]  # The step of the drawn level; 0 is the cleanest.
    gamma: Float[Array, " b"]
    var: Float[Array, " b"]  # 1 - gamma, to full precision.


ObjectiveFn = Callable[..., tuple[Float[Array, " b"], NoiseLevel]]
"""`denoising_loss`, `velocity_loss` or `regression_loss`."""


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
    network: NetworkFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], NoiseLevel]:
    """Returns the loss of each image, averaged over its mask, and its noise level.

    Averaging over the mask, not over the picture, gives small and large holes the same
    weight.

    Args:
      keys: one per image.
      network: predicts the noise.
      batch: bytes as the data pipeline makes them.
      schedule: the trained levels.
      norm: `l2` is the paper's choice, `l1` its ablation (Table 6).
    """
    drawn = draw(keys, batch, lambda key: draw_level(key, schedule))
    eps = network(drawn.x, drawn.y_t, drawn.level.gamma)
    return masked_error(drawn.noise, eps, drawn.mask, norm), drawn.level


def velocity_loss(
    keys: Key[Array, " b"],
    network: NetworkFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], NoiseLevel]:
    """Returns the loss of a network that predicts sqrt(gamma) noise - sqrt(var) y.

    It is the noise at clean levels, and the negative picture at noisy levels (Salimans
    & Ho 2022, Appendix D). At noisy levels, the noise determines the picture's colours
    only by a small difference, which takes far longer to learn. Arguments and results
    are those of `denoising_loss`.
    """
    drawn = draw(keys, batch, lambda key: draw_level(key, schedule))
    root_gamma, root_var = (
        process.per_image(jnp.sqrt(level)) for level in drawn.level[1:]
    )
    target = root_gamma * drawn.noise - root_var * drawn.y
    velocity = network(drawn.x, drawn.y_t, drawn.level.gamma)
    return masked_error(target, velocity, drawn.mask, norm), drawn.level


def regression_loss(
    keys: Key[Array, " b"],
    network: NetworkFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], NoiseLevel]:
    """Returns the loss of the paper's baseline: the picture in one pass.

    The same network predicts the picture instead of the noise, at the noisiest level,
    without any input of the target. Arguments and results are those of
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
    picture = network(x, jnp.zeros_like(y), level.gamma)
    return masked_error(y, picture, mask, norm), level


def picture_from_noise(
    eps: Float[Array, "b h w c"],
    y_t: Float[Array, "b h w c"],
    gamma: Float[Array, " b"],
) -> Float[Array, "b h w c"]:
    """Returns the clean picture for a predicted noise."""
    gamma = process.per_image(gamma)
    return (y_t - jnp.sqrt(1 - gamma) * eps) / jnp.sqrt(gamma)


def picture_from_velocity(
    velocity: Float[Array, "b h w c"],
    y_t: Float[Array, "b h w c"],
    gamma: Float[Array, " b"],
) -> Float[Array, "b h w c"]:
    """Returns the clean picture for a predicted velocity, without a division.

    Near the clean end, float32 rounds 1 - gamma and changes its root by less than 3e-4,
    the factor of a small term.
    """
    gamma = process.per_image(gamma)
    return jnp.sqrt(gamma) * y_t - jnp.sqrt(1 - gamma) * velocity


class Drawn(NamedTuple):
    """A noisy picture, and what it is made of."""

    level: NoiseLevel
    noise: Float[Array, "b h w c"]
    x: Float[Array, "b h w c"]
    y: Float[Array, "b h w c"]
    y_t: Float[Array, "b h w c"]
    mask: Float[Array, "b h w 1"]


def draw(
    keys: Key[Array, " b"], batch: Batch, draw_levels: Callable[[Array], NoiseLevel]
) -> Drawn:
    """Draws a level and noise for each image, and makes the network's input."""
    key_level, key_hole, key_noise = jax.vmap(
        lambda key: jax.random.split(key, 3), out_axes=1
    )(keys)
    level = draw_levels(key_level)
    y = process.to_float(batch["y"])
    x = process.fill_hole(key_hole, process.to_float(batch["x"]), batch["hole"])
    mask = process.generation_mask(batch["hole"])
    noise = process.normal_like(key_noise, y)
    y_t = process.add_noise(y, noise, level.gamma, level.var, mask)
    return Drawn(level, noise, x, y, y_t, mask)


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
