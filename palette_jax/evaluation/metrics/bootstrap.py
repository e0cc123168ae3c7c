"""Bootstrap intervals of means over pictures (Efron 1979)."""

import numpy as np
import scipy.stats
from jaxtyping import Float

_RESAMPLES = 2000
_LEVEL = 0.95


def interval(values: Float[np.ndarray, " n"]) -> tuple[float, float] | None:
    """Returns a 95% interval for the mean of values, one for each picture.

    It is the percentile interval, widened to Student's width for few pictures
    (Hesterberg 2015). For differences of two methods on the same pictures it is the
    paired interval.

    Args:
      values: NaN is ignored, such as the accuracy of an unknown class.

    Returns:
      None for fewer than three values.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    count = len(values)
    if count < 3:
        return None
    rng = np.random.default_rng(0)
    means = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        drawn = rng.integers(0, count, count)
        means[index] = values[drawn].mean()
    student = scipy.stats.t.ppf((1 - _LEVEL) / 2, count - 1)
    tail = scipy.stats.norm.cdf(student * np.sqrt(count / (count - 1)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
