"""Mean colours of squares, which a restoration takes from its input."""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image


def with_means(
    picture: UInt8[np.ndarray, "h w 3"], given: UInt8[np.ndarray, "h w 3"], side: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture with the smooth part of another picture.

    The difference of both is averaged over squares and interpolated. Detail finer than
    a square does not change.
    """
    difference = given.astype(np.float32) - picture
    smooth = np.stack([_smooth(d, side) for d in np.moveaxis(difference, -1, 0)], -1)
    return np.round(picture + smooth).clip(0, 255).astype(np.uint8)


def _smooth(a: Float32[np.ndarray, "h w"], side: int) -> Float32[np.ndarray, "h w"]:
    height, width = a.shape
    means = Image.fromarray(a).resize(
        (max(width // side, 1), max(height // side, 1)), Image.Resampling.BOX
    )
    return np.asarray(means.resize((width, height), Image.Resampling.BICUBIC))
