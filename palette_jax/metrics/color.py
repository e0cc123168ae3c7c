"""How much colour pictures have, and which: a colorization may fail by either."""

import numpy as np
from jaxtyping import Float64, UInt8


def colorfulness(
    pictures: UInt8[np.ndarray, "n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the measure M3 of Hasler and Suesstrunk (2003): 0 for gray pictures.

    Their subjects called 15 slightly, 45 averagely and 109 extremely colourful.
    """
    raise NotImplementedError


def mean_ab(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "n 2"]:
    """Returns the means of a* and b* of CIE Lab (D65): 0 for gray pictures.

    A cast shows in their mean over a set: positive a* is red, positive b* yellow.
    """
    raise NotImplementedError


def saturation(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, " n"]:
    """Returns the mean saturation of HSV, 0 to 1."""
    raise NotImplementedError
