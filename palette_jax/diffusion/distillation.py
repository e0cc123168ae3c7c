"""Multistep consistency distillation (Heek, Hoogeboom, Salimans 2024, Algorithm 1).

The schedule has one segment for each step of the student. Within a segment, the loss
makes the student agree with itself along one DDIM step of the teacher. Sampling is DDIM
over the ends of the segments.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from palette_jax.diffusion import objective, process
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import Batch, PredictFn


def distillation_loss(
    keys: Key[Array, " b"],
    student: PredictFn,
    batch: Batch,
    schedule: NoiseSchedule,
    *,
    teacher: PredictFn,
    num_segments: int,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Float[Array, " b"], objective.NoiseLevel]:
    """Returns the loss of each image, averaged over its mask, and its noise level.

    The error is that of the velocity (a weight of SNR + 1), whatever the teacher
    predicts: so the noisiest level, the most important one, has a weight of 1.

    Args:
      keys: one per image.
      student: predicts the picture; the gradient flows through one of its two calls.
      batch: bytes as the data pipeline makes them.
      schedule: the steps of the teacher; a multiple of `num_segments`.
      teacher: predicts the picture with fixed weights.
      num_segments: number of steps of the student.
      norm: of the error.

    Raises:
      ValueError: if the segments have not all the same number of the teacher's steps.
    """
    tables = _tables(schedule, num_segments)

    def draw_levels(keys: Array) -> objective.NoiseLevel:
        t = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(schedule)))(keys)
        return objective.NoiseLevel(t, tables.gamma[t], tables.var[t])

    level, _, x, y, y_t, mask = objective.draw(keys, batch, draw_levels)
    row = _Tables(*(column[level.t] for column in tables))
    by_teacher = teacher(x, y_t, row.gamma)
    y_s = (
        process.per_image(row.keep) * y_t + process.per_image(row.add) * by_teacher
    )  # DDIM from t to s.
    y_s = jnp.where(mask > 0, y_s, y)
    by_student = student(x, y_s, row.gamma_s)
    # DDIM from t over s to the end, then its inverse from the end to t: a mean.
    share = process.per_image(row.share)
    target = (1.0 - share) * by_teacher + jnp.where(share > 0, share * by_student, 0.0)
    target = jax.lax.stop_gradient(target)
    weight = process.per_image(jax.lax.rsqrt(row.var))
    estimate = weight * student(x, y_t, row.gamma)
    losses = objective.masked_error(weight * target, estimate, mask, norm)
    return losses, level


class _Tables(NamedTuple):
    """Coefficients of the loss for each level t; s is one step cleaner."""

    gamma: Float[Array, " _"]
    var: Float[Array, " _"]
    gamma_s: Float[Array, " _"]
    keep: Float[Array, " _"]  # Of y_t, in y_s.
    add: Float[Array, " _"]  # Of the picture, in y_s.
    share: Float[Array, " _"]  # Of the student's, at s.


def _tables(schedule: NoiseSchedule, num_segments: int) -> _Tables:
    length, rest = divmod(len(schedule), num_segments)
    if rest or not length:
        raise ValueError(
            f"expected a number of segments that divides {len(schedule)} steps, got"
            f" {num_segments}"
        )
    gamma, var = np.append(1.0, schedule.gamma), np.append(0.0, schedule.var)
    alpha, sigma = np.sqrt(gamma), np.sqrt(var)
    t = np.arange(1, len(schedule) + 1)
    s, end = t - 1, (t - 1) // length * length
    keep = sigma[s] / sigma[t]
    to_end = np.divide(sigma[end], sigma[s], out=np.ones(len(t)), where=s > end)
    from_s = alpha[end] - alpha[s] * to_end
    from_t = alpha[end] - alpha[t] * sigma[end] / sigma[t]
    add, share = alpha[s] - alpha[t] * keep, from_s / from_t
    columns = (gamma[t], var[t], gamma[s], keep, add, share)
    return _Tables(*(jnp.asarray(column, jnp.float32) for column in columns))
