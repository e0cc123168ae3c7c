"""Structural similarity of pairs of pictures (Wang et al. 2003, 2004).

The window is Gaussian, 11 x 11, of deviation 1.5; only windows inside the picture
count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, UInt8

from palette_jax.errors import MetricError

_WINDOW = 11
_DEVIATION = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MAX_SCALES = len(_WEIGHTS)


def ssim(
    pictures: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]
) -> Float64[np.ndarray, " n"]:
    """Returns SSIM, the mean over windows and channels; 1 for equal pictures."""
    return _each(_ssim, pictures, reference)


def num_scales(height: int, width: int) -> int:
    """Returns the number of scales for a size: 5 from 161 pixels up.

    Raises:
      MetricError: if a side is shorter than the window, 11 pixels.
    """
    side, scales = min(height, width), 0
    while scales < MAX_SCALES and side >= _WINDOW:
        side, scales = -(-side // 2), scales + 1
    if not scales:
        raise MetricError(
            f"expected pictures of {_WINDOW} pixels or more for SSIM, got"
            f" {height} x {width}"
        )
    return scales


def ms_ssim(
    pictures: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]
) -> Float64[np.ndarray, " n"]:
    """Returns multi-scale SSIM over `num_scales` scales.

    With fewer than five scales, the weights are scaled to a sum of 1. Such values do
    not compare with those of larger pictures, so report the number of scales.
    """
    return _each(_ms_ssim, pictures, reference)


def ms_ssim_to_first(
    samples: UInt8[np.ndarray, "samples n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the mean MS-SSIM of the first sample and each other; low is diverse."""
    return np.mean([ms_ssim(samples[0], other) for other in samples[1:]], 0)


def _each(
    function: Callable[[Array, Array], Array],
    pictures: UInt8[np.ndarray, "n h w 3"],
    reference: UInt8[np.ndarray, "n h w 3"],
) -> Float64[np.ndarray, " n"]:
    """Returns the similarity of each pair, one after another.

    One compiled function serves any number of pictures of a size.
    """
    found = [function(x, y) for x, y in zip(pictures, reference, strict=True)]
    return np.array(jax.device_get(found), np.float64)


def _mean_of_channels(
    one: Callable[[Array, Array], Array],
    x: UInt8[Array, "h w c"],
    y: UInt8[Array, "h w c"],
) -> Float[Array, ""]:
    """Returns the mean over the channels, one after another to save memory."""
    channels = [jnp.moveaxis(picture, -1, 0) for picture in (x, y)]

    def floats(pair: list[Array]) -> Array:
        return one(*(channel.astype(jnp.float32) for channel in pair))

    return jax.lax.map(floats, channels).mean()


@jax.jit
def _ssim(x: UInt8[Array, "h w c"], y: UInt8[Array, "h w c"]) -> Float[Array, ""]:
    return _mean_of_channels(lambda a, b: _similarity(a, b)[0], x, y)


@jax.jit
def _ms_ssim(x: UInt8[Array, "h w c"], y: UInt8[Array, "h w c"]) -> Float[Array, ""]:
    return _mean_of_channels(_ms_ssim_of_channel, x, y)


def _ms_ssim_of_channel(
    first: Float[Array, "h w"], second: Float[Array, "h w"]
) -> Float[Array, ""]:
    scales = num_scales(*first.shape)
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    product = jnp.ones(())
    for scale, weight in enumerate(weights):
        whole, structure = _similarity(first, second)
        term = whole if scale == scales - 1 else structure
        product *= jnp.maximum(term, 0) ** np.float32(weight)
        first, second = _halved(first), _halved(second)
    return product


def _similarity(
    x: Float[Array, "h w"], y: Float[Array, "h w"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns SSIM of a channel, and its factor of contrast and structure.

    Variances are computed after subtracting a middle gray, which keeps more digits in
    float32.
    """
    x, y, change = x - 127.5, y - 127.5, x - y
    mean_x, mean_y, mean_change = _blurred(x), _blurred(y), _blurred(change)
    # The sum of both variances is twice the covariance plus the variance of the change;
    # for equal pictures it is exactly twice the covariance.
    twice = 2 * (_blurred(x * y) - mean_x * mean_y) + _C2
    structure = twice / (twice + _blurred(change * change) - mean_change**2)
    means = 2 * (mean_x + 127.5) * (mean_y + 127.5) + _C1
    luminance = means / (means + mean_change**2)
    return (luminance * structure).mean(), structure.mean()


def _blurred(x: Float[Array, "h w"]) -> Float[Array, "h2 w2"]:
    """Returns the means of all windows inside the picture."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-np.square(offsets) / (2 * _DEVIATION**2))
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = (side - _WINDOW + 1 for side in x.shape[:2])
    x = sum((w * x[i : i + height] for i, w in enumerate(weights)), jnp.zeros(()))
    return sum((w * x[:, i : i + width] for i, w in enumerate(weights)), jnp.zeros(()))


def _halved(x: Float[Array, "h w"]) -> Float[Array, "h2 w2"]:
    """Returns the means of 2 x 2 pixels; an odd last row or column is repeated."""
    height, width = x.shape
    x = jnp.pad(x, ((0, height % 2), (0, width % 2)), "edge")
    return x.reshape(-(-height // 2), 2, -(-width // 2), 2).mean((1, 3))
