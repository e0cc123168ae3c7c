"""Structural similarity (Wang et al. 2003, 2004), of each pair of pictures.

The window is Gaussian, 11 x 11, of deviation 1.5; only windows that lie inside count.
"""

import numpy as np
from jaxtyping import Float64, UInt8

MAX_SCALES = 5


def ssim(
    pictures: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]
) -> Float64[np.ndarray, " n"]:
    """Returns SSIM, the mean over windows and channels; 1 for equal pictures.

    Raises:
      MetricError: if a side is shorter than the window, 11 pixels.
    """
    raise NotImplementedError


def num_scales(height: int, width: int) -> int:
    """Returns how many of the five scales such pictures have: 5 from 176 pixels up.

    Raises:
      MetricError: if a side is shorter than the window, 11 pixels.
    """
    raise NotImplementedError


def ms_ssim(
    pictures: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]
) -> Float64[np.ndarray, " n"]:
    """Returns multi-scale SSIM over `num_scales` scales.

    With fewer than five, the first weights are raised to a sum of 1: such numbers do
    not compare with those of larger pictures, so report the number of scales.

    Raises:
      MetricError: if a side is shorter than the window, 11 pixels.
    """
    raise NotImplementedError
