"""The kernel distance between two sets of features, KID (Bińkowski et al. 2018).

Unlike the Fréchet distance, its expected value does not depend on the number of
pictures, so it suits sets that are too small for FID.
"""

import numpy as np
from jaxtyping import Float, Float64

_ROWS = 512  # Rows of the kernel matrices that are in memory at once.


def pseudo_values(
    features: Float[np.ndarray, "n f"], reference: Float[np.ndarray, "n f"]
) -> Float64[np.ndarray, " n"]:
    """Returns the contribution of each picture; their mean is the distance.

    Both have the same order. The kernel is KID's, `(x . y / f + 1)**3`. The estimate is
    the U-statistic of pairs (Gretton et al. 2012, equation 4), which never compares a
    result with its own original: it is unbiased for results that depend on their
    originals, and 0 for equal sets. The values are those of the jackknife, so their
    spread gives the error. They need three pictures.
    """
    count, size = features.shape
    x, y = features.astype(np.float64), reference.astype(np.float64)
    sums = np.zeros(count)
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = (x[rows] @ x.T / size + 1) ** 3 + (y[rows] @ y.T / size + 1) ** 3
        kernel -= (x[rows] @ y.T / size + 1) ** 3 + (y[rows] @ x.T / size + 1) ** 3
        own = np.arange(start, min(start + _ROWS, count))
        kernel[own - start, own] = 0.0
        sums[rows] = kernel.sum(1)
    whole = sums.sum() / (count * (count - 1))
    without = (sums.sum() - 2 * sums) / ((count - 1) * (count - 2))
    return count * whole - (count - 1) * without
