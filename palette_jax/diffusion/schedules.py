"""Noise schedules: the variance left of the clean image at each step.

`gamma` here is Palette's: the variance left of the clean image, 1 when clean (other
papers write alpha-bar). It is neither VDM's gamma (a negative log-SNR) nor EDM's.
"""

import dataclasses
import statistics

import numpy as np
from jaxtyping import Float64

# Of `log_normal_schedule`.
_MEAN_LOG_SNR, _STD_LOG_SNR, _GAMMA_END = 1.0, 2.4, 9e-5


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels of a T-step process; index 0 is the cleanest step.

    Kept in float64 on the host: derive every coefficient from these tables and
    cast last. In float32, 1 - gamma is already 1.3% off at Palette's step 0.
    """

    gamma: Float64[np.ndarray, " T"]  # Variance left of the clean image, ~1 to ~0.
    var: Float64[np.ndarray, " T"]  # Variance of the noise, 1 - gamma.

    def __len__(self) -> int:
        """Returns the number of steps."""
        return len(self.gamma)

    @property
    def log_gamma(self) -> Float64[np.ndarray, " T"]:
        """The logarithm of gamma, exact at the clean end too, where gamma is not."""
        with np.errstate(divide="ignore"):  # log1p(-1) is computed, never chosen.
            return np.where(self.var < 0.5, np.log1p(-self.var), np.log(self.gamma))


def linear_schedule(num_steps: int, beta_min: float, beta_max: float) -> NoiseSchedule:
    """Returns the schedule whose betas rise linearly between the two bounds.

    Palette trains on 2000 steps from 1e-6 to 0.01 and samples with 1000 steps from
    1e-4 to 0.09 (paper, section 3).
    """
    return _from_log_gamma(
        np.cumsum(np.log1p(-np.linspace(beta_min, beta_max, num_steps)))
    )


def log_normal_schedule(num_steps: int) -> NoiseSchedule:
    """Returns levels whose log-SNR is normal, as EDM trains (Karras et al. 2022).

    With the paper's schedule, a third of the trained levels have a gamma below 0.01.
    EDM's numbers, a mean of -1.2 and a deviation of 1.2 of log sigma, are 2.4 and 2.4
    here; the lower mean gives more weight to the levels that determine colours. The
    last level has a gamma of 9e-5, so that sampling can start there.
    """
    normal = statistics.NormalDist(_MEAN_LOG_SNR, _STD_LOG_SNR)
    shares = 1 - np.arange(1, num_steps) / num_steps
    log_snr = [normal.inv_cdf(share) for share in shares]
    log_snr = np.append(log_snr, np.log(_GAMMA_END) - np.log1p(-_GAMMA_END))
    return _from_log_gamma(-np.logaddexp(0, -np.minimum.accumulate(log_snr)))


def respace(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    gamma_floor: float = 0.0,
    exponent: float = 1.0,
) -> NoiseSchedule:
    """Resamples a schedule with another number of steps.

    The table samples one continuous curve, log gamma over time, which starts clean;
    step i of N is at the share (i / N) ** exponent of the curve. So the noisiest level
    does not depend on the number of steps: sampling starts from pure noise, which needs
    a last gamma near 0.

    Args:
      schedule: the curve.
      num_steps: number of steps; the schedule's own number returns it unchanged.
      gamma_floor: the end of the curve, if it goes below. With the smallest gamma of
        the training schedule, no step is at an untrained level (532 of the 1000 in the
        paper's own pair of schedules).
      exponent: 1 spaces the steps evenly, as in the paper. Larger values move them to
        the clean end, so that a solver's last step, which has order 1, is short.
    """
    time = np.arange(len(schedule) + 1, dtype=np.float64)
    log_gamma = np.append(0.0, schedule.log_gamma)
    end = float(len(schedule))
    if gamma_floor > schedule.gamma[-1]:
        end = float(np.interp(-np.log(gamma_floor), -log_gamma, time))
    new_time = (np.arange(1, num_steps + 1) / num_steps) ** exponent * end
    return _from_log_gamma(np.interp(new_time, time, log_gamma))


def _from_log_gamma(log_gamma: Float64[np.ndarray, " T"]) -> NoiseSchedule:
    return NoiseSchedule(gamma=np.exp(log_gamma), var=-np.expm1(log_gamma))
