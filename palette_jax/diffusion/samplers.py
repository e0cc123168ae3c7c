"""Samplers: from noise to pictures.

A step of every sampler here is linear in the noisy picture, the last estimates of the
clean one, and fresh noise. So a sampler is a table of coefficients, one row a step, and
one loop runs them all.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, Int, Key

from palette_jax.diffusion import process
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import PredictFn

Callback = Callable[[int, Float[Array, "b h w c"]], bool | None]
"""`callback(steps_done, y_0)`; returning False ends the sampling there."""

# What a step is linear in: the noisy picture that the network was shown, the corrected
# picture of the last step, and the estimates of the clean picture, the newest first.
_BASIS = ("y_t", "corrected", "y_0", "y_0 before", "y_0 two before", "y_0 three before")


class Sampler(NamedTuple):
    """Coefficients of each step, the noisiest first.

    Attributes:
      gamma: the noise levels at which the network is asked.
      var: 1 - gamma, to full precision.
      step: the next noisy picture, as a combination of `_BASIS`.
      correct: the corrected picture, likewise; all 0 for samplers that do not correct.
      std: of the fresh noise that is added to the next noisy picture.
    """

    gamma: Float64[np.ndarray, " n"]
    var: Float64[np.ndarray, " n"]
    step: Float64[np.ndarray, "n basis"]
    correct: Float64[np.ndarray, "n basis"]
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
    return _of_order_1(
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
    return _of_order_1(
        schedule,
        from_y_t=from_y_t,
        from_y_0=np.sqrt(before.gamma) - np.sqrt(schedule.gamma) * from_y_t,
        std=std,
    )


def dpmpp_2m(schedule: NoiseSchedule) -> Sampler:
    """Builds DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), for few steps."""
    return _multistep(schedule, order=2, corrects=False)


def unipc(schedule: NoiseSchedule, *, order: int) -> Sampler:
    """Builds UniPC (Zhao et al. 2023, Algorithms 5 and 6), for the fewest steps.

    With `B(h) = exp(h) - 1` and predicting the clean picture.

    Args:
      schedule: the steps to visit.
      order: 2 or 3, of the predictor; the corrector, which asks the network no more
        often, adds one.
    """
    return _multistep(schedule, order=order, corrects=True)


def _multistep(schedule: NoiseSchedule, *, order: int, corrects: bool) -> Sampler:
    """Builds a solver's table by running its rule once on the basis vectors.

    The first steps have a lower order, since there are fewer estimates, and so have the
    last ones: the last step ends at log-SNR infinity.
    """
    walk = _Walk(schedule)
    num_steps = len(schedule)
    y_t, corrected, *estimates = np.eye(len(_BASIS))
    step, correct = np.zeros((2, num_steps, len(_BASIS)))
    for i in range(num_steps):
        here = y_t
        if corrects and i:
            known = estimates[1 : 1 + min(order, i)]
            here = walk.move(corrected, i - 1, i, known, new=estimates[0])
        known = estimates[: min(order, i + 1, num_steps - i)]
        step[i] = walk.move(here, i, i + 1, known)
        correct[i] = here if corrects else 0.0
    return Sampler(
        schedule.gamma[::-1], schedule.var[::-1], step, correct, np.zeros(num_steps)
    )


class _Walk:
    """The levels of a schedule, the noisiest first and a clean picture at the end."""

    def __init__(self, schedule: NoiseSchedule):
        gamma = np.append(schedule.gamma[::-1], 1.0)
        var = np.append(schedule.var[::-1], 0.0)
        log_gamma = np.append(schedule.log_gamma[::-1], 0.0)
        self.alpha, self.sigma = np.sqrt(gamma), np.sqrt(var)
        with np.errstate(divide="ignore"):
            self.half_log_snr = (log_gamma - np.log(var)) / 2

    def move(
        self,
        y: np.ndarray,
        s: int,
        t: int,
        estimates: Sequence[np.ndarray],
        new: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the picture at level t that follows from one at level s.

        Args:
          y: the picture at level s.
          s: the level that the first estimate was made at, the next at s - 1, ...
          t: the level to go to.
          estimates: of the clean picture; as many as the order of the step.
          new: an estimate at level t, for a correction.
        """
        h = self.half_log_snr[t] - self.half_log_snr[s]
        share = -np.expm1(-h)
        first, *others = estimates
        moved = self.sigma[t] / self.sigma[s] * y + self.alpha[t] * share * first
        places = [
            (self.half_log_snr[s - k - 1] - self.half_log_snr[s]) / h
            for k in range(len(others))
        ]
        slopes = [(m - first) / r for m, r in zip(others, places, strict=True)]
        if new is not None:
            places, slopes = [*places, 1.0], [*slopes, new - first]
        weights = _weights(h, places)
        return moved + self.alpha[t] * share * sum(
            weight * slope for weight, slope in zip(weights, slopes, strict=True)
        )


def _weights(h: float, places: Sequence[float]) -> np.ndarray:
    """Returns the weights of slopes so that polynomials are integrated exactly.

    A single slope gets 1/2, as in the published solvers (Zhao et al. 2023, 3.4).
    """
    if len(places) < 2:
        return np.full(len(places), 0.5)
    phi, factorial, moments = np.expm1(-h) / -h - 1.0, 1.0, []
    for k in range(1, len(places) + 1):
        moments.append(phi * factorial / np.expm1(-h))
        factorial *= k + 1
        phi = phi / -h - 1.0 / factorial
    powers = np.vander(places, increasing=True).T
    return np.linalg.solve(powers, moments)


def sample(
    keys: Key[Array, " b"],
    predict: PredictFn,
    x: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"],
    sampler: Sampler,
    *,
    clip: bool = False,
    callback: Callback | None = None,
    every: int = 0,
    compiler_options: Mapping[str, str] | None = None,
    on_host: bool = False,
) -> Float[Array, "b h w c"]:
    """Paints the mask, from pure noise, and keeps the rest of `x`.

    Args:
      keys: one per image, so that an image depends neither on the batch it is drawn
        with nor on the number of devices.
      predict: returns the clean picture by the trained network. As a
        `jax.tree_util.Partial` over its parameters it is compiled once, however often
        this is called.
      x: the source in [-1, 1], its hole already filled with noise of other keys.
      mask: 1 where to paint.
      sampler: the steps to take.
      clip: keeps every estimate of the clean picture in [-1, 1]. The paper does not.
      callback: called with the number of steps done and the present estimate of the
        clean picture; returning False ends the sampling.
      every: the number of steps between two calls.
      compiler_options: what XLA is told; not inside another compiled function.
      on_host: calls `predict` between compiled steps instead of compiling it into them,
        so that it may look at what it is doing, and raise.

    Returns:
      One picture for each row of `x`, not clipped to [-1, 1]; where the mask is 0 it
      equals `x` to the bit.
    """
    if not isinstance(predict, Partial):
        predict = Partial(predict)
    num_steps = sampler.num_steps
    # Columns of zeros are not computed, and without `std` no noise is drawn.
    used = tuple(
        tuple(np.flatnonzero(rule.any(0)).tolist())
        for rule in (sampler.step, sampler.correct)
    )
    table = {
        "gamma": sampler.gamma,
        "step": sampler.step[:, used[0]],
        "correct": sampler.correct[:, used[1]],
    }
    if sampler.std.any():
        table["std"] = sampler.std
    table = {name: jnp.asarray(rows, jnp.float32) for name, rows in table.items()}
    table["index"] = jnp.arange(num_steps)
    # As many estimates as the rules look back on, the newest included.
    oldest = max((i for columns in used for i in columns), default=0)
    carry = _start(keys, x, mask, max(oldest - 1, 1))
    chunk = 1 if on_host else every if callback and every else num_steps
    advance = _compiled(tuple(sorted((compiler_options or {}).items())))
    for start in range(0, num_steps, chunk):
        rows = {name: column[start : start + chunk] for name, column in table.items()}
        asked = predict
        if on_host:
            gamma = jnp.broadcast_to(rows["gamma"][0], x.shape[:1])
            asked = Partial(_said, predict(x, carry.y_t, gamma))
        carry = advance(keys, asked, x, mask, carry, rows, clip, used)
        done = min(start + chunk, num_steps)
        if callback and callback(done, carry.estimates[0]) is False:
            break
    return carry.y_t


def _said(y_0: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """Returns what the host has asked for already."""
    del x, y_t, gamma
    return y_0


class _Carry(NamedTuple):
    y_t: Float[Array, "b h w c"]
    corrected: Float[Array, "b h w c"]
    estimates: tuple[Float[Array, "b h w c"], ...]  # The newest first.


@jax.jit(static_argnames="count")
def _start(keys: Array, x: Array, mask: Array, count: int) -> _Carry:
    noise = process.normal_like(_fold(keys, 0), x)
    y_t = jnp.where(mask > 0, noise, x)
    return _Carry(y_t, y_t, (jnp.zeros_like(x),) * count)


@functools.cache
def _compiled(options: tuple[tuple[str, str], ...]) -> Callable[..., _Carry]:
    # One object for each set of options, which remembers what it compiled.
    return jax.jit(
        _advance,
        static_argnames=("clip", "used"),
        compiler_options=dict(options) or None,
    )


def _advance(
    keys: Array,
    predict: Partial,
    x: Array,
    mask: Array,
    carry: _Carry,
    rows: dict[str, Array],
    clip: bool,
    used: tuple[tuple[int, ...], tuple[int, ...]],
) -> _Carry:
    def step(carry: _Carry, row: dict[str, Array]) -> tuple[_Carry, None]:
        gamma = jnp.broadcast_to(row["gamma"], carry.y_t.shape[:1])
        y_0 = predict(x, carry.y_t, gamma).astype(carry.y_t.dtype)
        y_0 = jnp.where(mask > 0, jnp.clip(y_0, -1, 1) if clip else y_0, x)
        estimates = (y_0, *carry.estimates)
        basis = (carry.y_t, carry.corrected, *estimates)

        def combine(weights: Array, columns: tuple[int, ...]) -> Array:
            terms = [weights[k] * basis[i] for k, i in enumerate(columns)]
            return functools.reduce(jnp.add, terms)

        y_t = combine(row["step"], used[0])
        if "std" in row:
            noise = process.normal_like(_fold(keys, row["index"] + 1), x)
            y_t = y_t + row["std"] * noise
        y_t = jnp.where(mask > 0, y_t, x)
        corrected = combine(row["correct"], used[1]) if used[1] else carry.corrected
        return _Carry(y_t, corrected, estimates[: len(carry.estimates)]), None

    return jax.lax.scan(step, carry, rows)[0]


def _fold(keys: Key[Array, " b"], data: int | Int[Array, ""]) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


class _Before:
    """The levels that the steps of a schedule arrive at; step 0 at a clean picture."""

    def __init__(self, schedule: NoiseSchedule):
        self.gamma = np.append(1.0, schedule.gamma[:-1])
        self.var = np.append(0.0, schedule.var[:-1])
        self.log_gamma = np.append(0.0, schedule.log_gamma[:-1])


def _of_order_1(
    schedule: NoiseSchedule,
    *,
    from_y_t: np.ndarray,
    from_y_0: np.ndarray,
    std: np.ndarray,
) -> Sampler:
    """Returns the table of a sampler that uses only the newest estimate."""
    step = np.zeros((len(schedule), len(_BASIS)))
    step[:, _BASIS.index("y_t")] = from_y_t[::-1]
    step[:, _BASIS.index("y_0")] = from_y_0[::-1]
    return Sampler(
        schedule.gamma[::-1], schedule.var[::-1], step, np.zeros_like(step), std[::-1]
    )
