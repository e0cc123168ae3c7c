"""Mean colours of squares, which a restoration takes from what was given."""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image


def with_means(
    picture: UInt8[np.ndarray, "h w 3"],
    given: UInt8[np.ndarray, "h w 3"],
    side: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture whose smooth part is that of another one.

    The difference of both is averaged over squares and interpolated. What is finer
    than a square stays the picture's.

    Args:
      picture: the result of a restoration.
      given: what it was made of.
      side: of the squares, in pixels.
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
