"""How much the samples of one picture differ, as the paper measures it."""

import numpy as np
from jaxtyping import Float64, UInt8

from palette_jax.metrics.extractor import Extractor


def ms_ssim_to_first(
    samples: UInt8[np.ndarray, "samples n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the mean MS-SSIM between the first sample and each other; low is diverse.

    Raises:
      MetricError: if there are fewer than two samples, or they are too small.
    """
    raise NotImplementedError


def lpips_of_consecutive(
    samples: UInt8[np.ndarray, "samples n h w 3"], lpips: Extractor
) -> Float64[np.ndarray, " n"]:
    """Returns the mean LPIPS between each sample and the next; high is diverse.

    Raises:
      MetricError: if there are fewer than two samples.
    """
    raise NotImplementedError
