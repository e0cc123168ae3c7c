"""The lightness L* of CIE Lab as a byte, as OpenCV converts sRGB.

It is one conversion of colours to gray; its mid grays are 8 of 255 brighter than their
luma. All numbers are integers, so that the graph and numpy agree bit by bit.
"""

import numpy as np
from jaxtyping import UInt8

_SRGB = np.arange(256) / 255
_LIGHT = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
_WEIGHTS = np.round(2**13 * np.array([0.212671, 0.715160, 0.072169])).astype(int)
_EDGES = (np.arange(1, 256) - 0.5) * 100 / 255  # L* where a byte rounds up.
_CURVE = np.where(_EDGES > 8, ((_EDGES + 16) / 116) ** 3, _EDGES * 27 / 24389)

# By byte and channel, how much light it adds to a pixel, which is at most 2**30.
LIGHT = np.round(2**17 * _LIGHT[:, None]).astype(np.int32) * _WEIGHTS.astype(np.int32)
# The byte of a pixel is how many of these its light reaches.
STEPS = np.ceil(LIGHT[255].sum() * _CURVE).astype(np.int32)


def lightness(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
    """Returns L*, from 0 to 255."""
    light = sum(LIGHT[picture[..., channel], channel] for channel in range(3))
    return np.searchsorted(STEPS, light, side="right").astype(np.uint8)[..., None]
