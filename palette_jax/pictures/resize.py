"""Resizing, equal to TensorFlow's in `data/images.py` to rounding.

Pillow's resizing differs: its box filter is no area average at fractional ratios, and
it rounds between the axes.
"""

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image


def resize(
    pixels: UInt8[np.ndarray, "h w c"], height: int, width: int
) -> UInt8[np.ndarray, "height width c"]:
    """Returns a picture resized by area to shrink it, else by a bicubic curve."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    along = _area if shrinks else _bicubic
    resized = along(along(pixels, height).swapaxes(0, 1), width).swapaxes(0, 1)
    return np.round(resized).clip(0, 255).astype(np.uint8)


def center_square(
    pixels: UInt8[np.ndarray, "h w c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
    """Returns the largest centred square of a picture, resized to `size`."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels[top : top + side, left : left + side], size, size)


def torchvision_square(
    pixels: UInt8[np.ndarray, "h w c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
    """Returns torchvision's `Resize(size)` and `CenterCrop(size)` of a picture.

    Resizes the short side by Pillow's bilinear filter, which antialiases, and then cuts
    out the centre.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    new = size * height // short, size * width // short
    resized = Image.fromarray(pixels).resize(new[::-1], Image.Resampling.BILINEAR)
    top, left = (round((side - size) / 2) for side in new)
    return np.asarray(resized)[top : top + size, left : left + size]


def _area(a: np.ndarray, count: int) -> Float64[np.ndarray, "count ..."]:
    """Averages along the first axis; partial pixels are weighted by their share."""
    size = len(a)
    total = np.concatenate([np.zeros((1, *a.shape[1:])), np.cumsum(a, 0, np.float64)])
    edges = np.arange(count + 1) * size / count
    whole = np.minimum(edges.astype(int), size - 1)
    share = (edges - whole).reshape(-1, *[1] * (a.ndim - 1))
    return np.diff(total[whole] + share * a[whole], axis=0) * (count / size)


def _bicubic(a: np.ndarray, count: int) -> Float64[np.ndarray, "count ..."]:
    """Interpolates along the first axis (Keys 1981, a = -1/2)."""
    size = len(a)
    place = (np.arange(count) + 0.5) * size / count - 0.5
    taps = np.floor(place).astype(int)[:, None] + np.arange(-1, 3)
    t = np.abs(place[:, None] - taps)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t <= 1, near, far)
    weights[(taps < 0) | (taps >= size)] = 0.0
    weights /= weights.sum(1, keepdims=True)
    taps = taps.clip(0, size - 1)
    return np.einsum("nk,nk...->n...", weights, a[taps].astype(np.float64))
