"""Colour hints: what the network is given of them, and how its result follows.

The network sees small squares of true colours, and often misses these colours. So its
result is corrected: the difference at a hint spreads over near pixels of similar luma.
This is the prior of Levin, Lischinski & Weiss 2004, as one weighted mean.
"""

import itertools

import numpy as np
from jaxtyping import UInt8

from palette_jax.tasks.colorize import LUMA_WEIGHTS

_LUMA_REACH = 20.0  # Standard deviation of the luma of pixels of one colour, of 255.
_FLOOR = 0.25  # Pixels of no correction in the mean: far from all hints, they win.


def squares(opacity: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "h w 1"]:
    """Returns small squares of hints, 1 inside, for a network of `size` pixels.

    Training has squares of up to a twentieth of the size (`data.masks.hints`); wide
    strokes make the network's colours worse than none. Each cell of an eighth of the
    size keeps one square, around its most opaque pixel, of these the most central.
    """
    kept = np.zeros_like(opacity)
    cell, side = max(size // 8, 1), max(round(size / 20), 1)
    tops, lefts = (range(0, length, cell) for length in opacity.shape)
    for top, left in itertools.product(tops, lefts):
        here = opacity[top : top + cell, left : left + cell]
        if not here.any():
            continue
        pixels = np.argwhere(here == here.max())
        central = np.square(pixels - (cell - 1) / 2).sum(1).argmin()
        first = np.maximum(pixels[central] + (top, left) - side // 2, 0)
        square = tuple(slice(start, start + side) for start in first)
        kept[square] |= (opacity[square] >= min(here.max(), 128)).astype(np.uint8)
    return kept[..., None]


def spread(
    picture: UInt8[np.ndarray, "h w 3"],
    x: UInt8[np.ndarray, "h w 3"],
    is_hint: UInt8[np.ndarray, "h w 1"],
    size: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a colorized picture, corrected by its hints; luma stays to rounding.

    Args:
      picture: the network's result.
      x: its input, with the colours of the hints.
      is_hint: 1 at the hints.
      size: of the network, of which a hint reaches half (a standard deviation).
    """
    points = np.argwhere(is_hint[..., 0])
    if not len(points):
        return picture
    result = picture.astype(np.float32)
    luma = result @ LUMA_WEIGHTS
    at = tuple(points.T)
    off = x[at] - result[at]
    off -= (off @ LUMA_WEIGHTS)[:, None]  # Only the colour: the luma is the photo's.
    reach = size / 2
    # By blocks, with the hints that reach them, to bound the memory.
    for top, left in itertools.product(*(range(0, n, size) for n in luma.shape)):
        block = np.s_[top : top + size, left : left + size]
        starts = np.array((top, left))
        ends = np.minimum(starts + size, luma.shape)
        near = (points > starts - 4 * reach) & (points < ends + 4 * reach)
        near = near.all(1)
        rows = np.arange(top, ends[0], dtype=np.float32)[:, None, None]
        columns = np.arange(left, ends[1], dtype=np.float32)[None, :, None]
        far = (rows - points[near, 0]) ** 2 + (columns - points[near, 1]) ** 2
        unlike = (luma[block][..., None] - luma[at][near]) ** 2
        weights = np.exp(-far / (2 * reach**2) - unlike / (2 * _LUMA_REACH**2))
        result[block] += (weights @ off[near]) / (weights.sum(-1)[..., None] + _FLOOR)
    return np.round(result).clip(0, 255).astype(np.uint8)
