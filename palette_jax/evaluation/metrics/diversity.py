"""The diversity of two samples or more of one picture, as the paper measures it."""

import numpy as np
from jaxtyping import Float64, UInt8

from palette_jax.evaluation.metrics import structure
from palette_jax.evaluation.metrics.extractor import Extractor


def ms_ssim_to_first(
    samples: UInt8[np.ndarray, "samples n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the mean MS-SSIM of the first sample and each other; low is diverse."""
    return np.mean([structure.ms_ssim(samples[0], other) for other in samples[1:]], 0)


def lpips_of_consecutive(
    samples: UInt8[np.ndarray, "samples n h w 3"], lpips: Extractor
) -> Float64[np.ndarray, " n"]:
    """Returns the mean LPIPS between each sample and the next; high is diverse."""
    shape = (-1, *samples.shape[2:])
    distances = lpips(samples[:-1].reshape(shape), samples[1:].reshape(shape))["lpips"]
    return distances.astype(np.float64).reshape(len(samples) - 1, -1).mean(0)
