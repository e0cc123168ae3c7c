"""Distances between a restored picture and its original.

The paper deliberately avoids them: a blurred guess scores better than a sharp one. They
show whether a model works at all, not whether its pictures look real.
"""

import numpy as np
from jaxtyping import Float, Num, UInt8


def psnr(
    estimate: Num[np.ndarray, "b h w c"],
    target: UInt8[np.ndarray, "b h w c"],
    mask: UInt8[np.ndarray, "b h w 1"],
) -> Float[np.ndarray, " b"]:
    """Returns the peak signal-to-noise ratio over the mask of each picture, in dB.

    Args:
      estimate: 0 to 255, bytes or floats (a mean of samples).
      target: the clean pictures.
      mask: 1 at the compared pixels.

    Returns:
      At most 100, also for equal pictures: otherwise one picture of a single colour
      would make the mean over a set infinite.
    """
    error = np.square(estimate.astype(np.float64) - target) * mask
    pixels = mask.sum((1, 2, 3), dtype=np.float64) * target.shape[-1]
    mean_error = error.sum((1, 2, 3)) / pixels
    return 10 * np.log10(255.0**2 / np.maximum(mean_error, 255.0**2 / 1e10))


def trivial_estimate(
    x: UInt8[np.ndarray, "b h w 3"], hole: UInt8[np.ndarray, "b h w 1"]
) -> Float[np.ndarray, "b h w 3"]:
    """Returns the trivial baseline: the mean known colour in holes, else the source."""
    known = 1.0 - hole
    mean = (x * known).sum((1, 2), keepdims=True)
    mean /= np.maximum(known.sum((1, 2), keepdims=True), 1.0)
    return np.where(hole > 0, mean, x)
