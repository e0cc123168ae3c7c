"""Networks whose restorations are known, in place of trained ones."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from palette_jax.diffusion import samplers, schedules
from palette_jax.restoration.batch import ApplyFn, predictor
from palette_jax.restoration.restorer import Restorer
from palette_jax.tasks.task import Gray

FILLED = 100  # What `negative` paints where x is noise.


def negative(params: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """Predicts the noise that leads to the negative of x, times the weight."""
    gamma = gamma[:, None, None, None]
    return (y_t + params * jnp.sqrt(gamma) * x) / jnp.sqrt(1 - gamma)


def constant(params: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """Predicts the noise that leads to `FILLED` everywhere."""
    gamma = gamma[:, None, None, None]
    picture = params * (FILLED / 127.5 - 1)
    return (y_t - jnp.sqrt(gamma) * picture) / jnp.sqrt(1 - gamma)


def noisy(params: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """Looks at neighbours in the tile, and leaves much of the noise in the result."""
    return params * (0.5 * y_t + 0.2 * jnp.roll(y_t, 1, axis=1) - 0.1 * x)


def make_restorer(
    apply: ApplyFn,
    *,
    image_size: int = 8,
    task_names: tuple[str, ...] = ("colorize", "inpaint", "uncrop", "jpeg"),
    knows_hints: bool = False,
    gray: Gray = "luma",
) -> Restorer:
    """Returns a restorer with one of the networks above."""

    def make_sampler(steps: Mapping[str, Any]) -> samplers.Sampler:
        curve = schedules.linear_schedule(1000, 1e-4, 0.09)
        schedule = schedules.respace(curve, steps["num_steps"], gamma_floor=5e-5)
        name, _, order = steps["sampler"].partition("_")
        if name == "unipc":
            return samplers.unipc(schedule, order=int(order))
        return getattr(samplers, steps["sampler"])(schedule)

    return Restorer(
        predictor(apply, jnp.float32(1), objective="denoise", gamma_floor=1e-5),
        make_sampler,
        image_size=image_size,
        task_names=task_names,
        clip=True,
        knows_hints=knows_hints,
        gray=gray,
        about={"checkpoint": "oracle", "step": 0},
    )
