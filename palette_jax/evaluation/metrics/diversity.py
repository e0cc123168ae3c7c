"""The diversity of the samples of one picture, as the paper measures it."""

import numpy as np
from jaxtyping import Float64, UInt8

from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics import structure
from palette_jax.evaluation.metrics.extractor import Extractor


def ms_ssim_to_first(
    samples: UInt8[np.ndarray, "samples n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the mean MS-SSIM between the first sample and each other; low is diverse.

    Raises:
      MetricError: if there are fewer than two samples, or they are too small.
    """
    _refuse_single(samples)
    return np.mean([structure.ms_ssim(samples[0], other) for other in samples[1:]], 0)


def lpips_of_consecutive(
    samples: UInt8[np.ndarray, "samples n h w 3"], lpips: Extractor
) -> Float64[np.ndarray, " n"]:
    """Returns the mean LPIPS between each sample and the next; high is diverse.

    Raises:
      MetricError: if there are fewer than two samples.
    """
    _refuse_single(samples)
    shape = (-1, *samples.shape[2:])
    distances = lpips(samples[:-1].reshape(shape), samples[1:].reshape(shape))["lpips"]
    return distances.astype(np.float64).reshape(len(samples) - 1, -1).mean(0)


def _refuse_single(samples: np.ndarray) -> None:
    if len(samples) < 2:
        raise MetricError(
            f"expected two samples or more of each picture to measure diversity, got"
            f" {len(samples)}; set sample.num_samples to 2 or more"
        )
