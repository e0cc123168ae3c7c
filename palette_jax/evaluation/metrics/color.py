"""Strength and cast of the colours of pictures; a colorization can fail in either."""

import numpy as np
import skimage.color
from jaxtyping import Float64, UInt8


def colorfulness(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, " n"]:
    """Returns the measure M3 of Hasler and Suesstrunk (2003): 0 for gray pictures.

    Their subjects called 15 slightly, 45 averagely and 109 extremely colourful.
    """
    red, green, blue = np.moveaxis(pictures.astype(np.float64), -1, 0)
    axes = np.stack([red - green, (red + green) / 2 - blue])
    deviation = np.linalg.norm(axes.std((2, 3)), axis=0)
    mean = np.linalg.norm(axes.mean((2, 3)), axis=0)
    return deviation + 0.3 * mean


def mean_ab(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "n 2"]:
    """Returns the means of a* and b* of CIE Lab (D65): about 0 for gray pictures.

    The mean over a set shows a cast: positive a* is red, positive b* yellow.
    """
    return np.array([skimage.color.rgb2lab(p)[..., 1:].mean((0, 1)) for p in pictures])
