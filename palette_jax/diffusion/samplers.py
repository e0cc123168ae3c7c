"""Samplers: tables of coefficients, from noise to pictures.

A step of every sampler here is linear in the noisy picture, the last estimates of the
clean one, and fresh noise. So a sampler is a table of coefficients, one row a step, and
one loop (`sampling.sample`) runs them all.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from palette_jax.diffusion.schedules import NoiseSchedule

# A step is linear in: the network's noisy input, the corrected picture of the last
# step, and the estimates of the clean picture, the newest first.
_BASIS = ("y_t", "corrected", "y_0", "y_0 before", "y_0 two before", "y_0 three before")


class Sampler(NamedTuple):
    """Coefficients of each step, the noisiest first.

    Attributes:
      gamma: the noise levels of the network's calls.
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
    before = _targets(schedule)
    beta = -np.expm1(schedule.log_gamma - before.log_gamma)
    std = np.sqrt(beta if variance == "large" else beta * before.var / schedule.var)
    std[0] = 0.0  # The last step ends at a picture.
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
    before = _targets(schedule)
    beta = -np.expm1(schedule.log_gamma - before.log_gamma)
    std = eta * np.sqrt(beta * before.var / schedule.var)
    from_y_t = np.sqrt((before.var - std**2) / schedule.var)
    return _of_order_1(
        schedule,
        from_y_t=from_y_t,
        from_y_0=np.sqrt(before.gamma) - np.sqrt(schedule.gamma) * from_y_t,
        std=std,
    )


def _targets(schedule: NoiseSchedule) -> NoiseSchedule:
    """Returns the target level of each step; a clean picture for step 0."""
    return NoiseSchedule(
        np.append(1.0, schedule.gamma[:-1]), np.append(0.0, schedule.var[:-1])
    )


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


def dpmpp_2m(schedule: NoiseSchedule) -> Sampler:
    """Builds DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), for few steps."""
    return _multistep(schedule, order=2, corrects=False)


def unipc(schedule: NoiseSchedule, *, order: int) -> Sampler:
    """Builds UniPC (Zhao et al. 2023, Algorithms 5 and 6), for the fewest steps.

    With `B(h) = exp(h) - 1` and predicting the clean picture.

    Args:
      schedule: the steps to visit.
      order: 2 or 3, of the predictor; the corrector, which needs no further call of
        the network, adds one.
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
