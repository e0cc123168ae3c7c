"""Samplers: from noise to pictures.

A step of every sampler here is linear in four things: the noisy picture, the present
and the last estimate of the clean one, and fresh noise. So a sampler is a table of
their coefficients, one row a step, and one loop runs them all.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, Int, Key

from palette_jax.diffusion import process
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import PredictNoiseFn

Callback = Callable[[int, Float[Array, "b h w c"]], bool | None]
"""`callback(steps_done, y_0)`; returning False ends the sampling there."""


class Sampler(NamedTuple):
    """Coefficients of each step, the noisiest first.

    y_s = from_y_t * y_t + from_y_0 * y_0 + from_last_y_0 * last y_0 + std * noise
    """

    gamma: Float64[np.ndarray, " n"]
    var: Float64[np.ndarray, " n"]
    from_y_t: Float64[np.ndarray, " n"]
    from_y_0: Float64[np.ndarray, " n"]
    from_last_y_0: Float64[np.ndarray, " n"]
    std: Float64[np.ndarray, " n"]

    @property
    def num_steps(self) -> int:
        """How often the network is called."""
        return len(self.gamma)


def ddpm(
    schedule: NoiseSchedule, *, variance: Literal["large", "small"] = "large"
) -> Sampler:
    """Builds ancestral sampling (Ho et al. 2020, Algorithm 2; the paper's).

    Args:
      schedule: the steps to visit.
      variance: `large`, 1 - alpha, is the paper's; `small` is the posterior's, right
        for data that is a single picture.
    """
    before = _Before(schedule)
    beta = -np.expm1(schedule.log_gamma - before.log_gamma)
    std = np.sqrt(beta if variance == "large" else beta * before.var / schedule.var)
    std[0] = 0.0  # The last step visited arrives at a picture.
    return _noisiest_first(
        schedule,
        from_y_t=np.sqrt(1.0 - beta) * before.var / schedule.var,
        from_y_0=np.sqrt(before.gamma) * beta / schedule.var,
        std=std,
    )


def ddim(schedule: NoiseSchedule, *, eta: float = 0.0) -> Sampler:
    """Builds DDIM (Song et al. 2021, Equation 12).

    Args:
      schedule: the steps to visit.
      eta: 0 adds no noise after the first; 1 is `ddpm` with the small variance.
    """
    before = _Before(schedule)
    beta = -np.expm1(schedule.log_gamma - before.log_gamma)
    std = eta * np.sqrt(beta * before.var / schedule.var)
    from_y_t = np.sqrt((before.var - std**2) / schedule.var)
    return _noisiest_first(
        schedule,
        from_y_t=from_y_t,
        from_y_0=np.sqrt(before.gamma) - np.sqrt(schedule.gamma) * from_y_t,
        std=std,
    )


def dpmpp_2m(schedule: NoiseSchedule) -> Sampler:
    """Builds DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), for few steps.

    The first step and the last have the order 1: there is no estimate before the
    first, and the last ends at log-SNR infinity.
    """
    before = _Before(schedule)
    with np.errstate(divide="ignore"):
        log_snr = schedule.log_gamma - np.log(schedule.var)
        log_snr_before = before.log_gamma - np.log(before.var)
    h = (log_snr_before - log_snr) / 2
    h_last = np.append(h[1:], 0.0)  # Of the step visited before, a noisier one.
    weight = np.zeros_like(h)
    weight[1:-1] = h[1:-1] / (2 * h_last[1:-1])
    from_y_0 = -np.sqrt(before.gamma) * np.expm1(-h)
    return _noisiest_first(
        schedule,
        from_y_t=np.sqrt(before.var / schedule.var),
        from_y_0=from_y_0 * (1 + weight),
        from_last_y_0=-from_y_0 * weight,
    )


def sample(
    keys: Key[Array, " b"],
    predict_noise: PredictNoiseFn,
    x: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"],
    sampler: Sampler,
    *,
    clip: bool = False,
    callback: Callback | None = None,
    every: int = 0,
    compiler_options: Mapping[str, str] | None = None,
) -> Float[Array, "b h w c"]:
    """Paints the mask, from pure noise, and keeps the rest of `x`.

    Args:
      keys: one per image, so that an image depends neither on the batch it is drawn
        with nor on the number of devices.
      predict_noise: the trained network. As a `jax.tree_util.Partial` over its
        parameters it is compiled once, however often this is called.
      x: the source in [-1, 1], its hole already filled with noise of other keys.
      mask: 1 where to paint.
      sampler: the steps to take.
      clip: keeps every estimate of the clean picture in [-1, 1]. The paper does not.
      callback: called with the number of steps done and the present estimate of the
        clean picture; returning False ends the sampling.
      every: the number of steps between two calls.
      compiler_options: what XLA is told; not inside another compiled function.

    Returns:
      One picture for each row of `x`, not clipped to [-1, 1]; where the mask is 0 it
      equals `x` to the bit.
    """
    if not isinstance(predict_noise, Partial):
        predict_noise = Partial(predict_noise)
    num_steps = sampler.num_steps
    table = {
        name: jnp.asarray(column, jnp.float32)
        for name, column in sampler._asdict().items()
        if name != "std" or column.any()  # Without it, no noise is drawn.
    }
    table["y_t_to_y_0"] = jnp.asarray(1 / np.sqrt(sampler.gamma), jnp.float32)
    table["eps_to_y_0"] = jnp.asarray(
        -np.sqrt(sampler.var / sampler.gamma), jnp.float32
    )
    table["step"] = jnp.arange(num_steps)
    carry = _start(keys, x, mask)
    chunk = every if callback and every else num_steps
    advance = _compiled(tuple(sorted((compiler_options or {}).items())))
    for start in range(0, num_steps, chunk):
        rows = {name: column[start : start + chunk] for name, column in table.items()}
        carry = advance(keys, predict_noise, x, mask, carry, rows, clip)
        done = min(start + chunk, num_steps)
        if callback and callback(done, carry.y_0) is False:
            break
    return carry.y_t


class _Carry(NamedTuple):
    y_t: Float[Array, "b h w c"]
    y_0: Float[Array, "b h w c"]  # The last estimate of the clean picture.


@jax.jit
def _start(keys: Array, x: Array, mask: Array) -> _Carry:
    noise = process.normal_like(_fold(keys, 0), x)
    return _Carry(jnp.where(mask > 0, noise, x), jnp.zeros_like(x))


@functools.cache
def _compiled(options: tuple[tuple[str, str], ...]) -> Callable[..., _Carry]:
    # One object for each set of options, which remembers what it compiled.
    return jax.jit(
        _advance, static_argnames="clip", compiler_options=dict(options) or None
    )


def _advance(
    keys: Array,
    predict_noise: Partial,
    x: Array,
    mask: Array,
    carry: _Carry,
    rows: dict[str, Array],
    clip: bool,
) -> _Carry:
    def step(carry: _Carry, row: dict[str, Array]) -> tuple[_Carry, None]:
        gamma = jnp.broadcast_to(row["gamma"], carry.y_t.shape[:1])
        eps = predict_noise(x, carry.y_t, gamma).astype(carry.y_t.dtype)
        y_0 = row["y_t_to_y_0"] * carry.y_t + row["eps_to_y_0"] * eps
        y_0 = jnp.where(mask > 0, jnp.clip(y_0, -1, 1) if clip else y_0, x)
        y_t = (
            row["from_y_t"] * carry.y_t
            + row["from_y_0"] * y_0
            + row["from_last_y_0"] * carry.y_0
        )
        if "std" in row:
            noise = process.normal_like(_fold(keys, row["step"] + 1), x)
            y_t = y_t + row["std"] * noise
        return _Carry(jnp.where(mask > 0, y_t, x), y_0), None

    return jax.lax.scan(step, carry, rows)[0]


def _fold(keys: Key[Array, " b"], data: int | Int[Array, ""]) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


class _Before:
    """The levels that the steps of a schedule arrive at; step 0 at a clean picture."""

    def __init__(self, schedule: NoiseSchedule):
        self.gamma = np.append(1.0, schedule.gamma[:-1])
        self.var = np.append(0.0, schedule.var[:-1])
        self.log_gamma = np.append(0.0, schedule.log_gamma[:-1])


def _noisiest_first(
    schedule: NoiseSchedule,
    *,
    from_y_t: np.ndarray,
    from_y_0: np.ndarray,
    from_last_y_0: np.ndarray | None = None,
    std: np.ndarray | None = None,
) -> Sampler:
    zeros = np.zeros(len(schedule))
    columns = (
        schedule.gamma,
        schedule.var,
        from_y_t,
        from_y_0,
        zeros if from_last_y_0 is None else from_last_y_0,
        zeros if std is None else std,
    )
    return Sampler(*(column[::-1] for column in columns))
