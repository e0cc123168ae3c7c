"""ResNet-50; the paper reports its top-1 accuracy on restored pictures."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, UInt8

from palette_jax.evaluation.metrics import weight_files
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.evaluation.metrics.layers import (
    conv,
    conv_relu,
    folded_params,
    max_pool,
)
from palette_jax.torch_file import read_torch

_MEAN = np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
_DEVIATION = np.array([[[[0.229, 0.224, 0.225]]]], np.float32)
_EPS = 1e-5
_SHORT_SIDE, _CROP = 256, 224


def load(path: epath.PathLike, *, whole: bool = False, **options: Any) -> Extractor:
    """Returns the network; its output is "logits", 1000 scores for each picture.

    The key names are torchvision's.

    Args:
      path: of the weights.
      whole: whether the input is the whole picture, as in the evaluation of I2SB, or
        its centre, as in torchvision.
      options: `batch_size` and `mesh` of `Extractor`.

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    network = ResNet50()
    return Extractor(
        prepare_whole if whole else prepare,
        network.apply,
        folded_params(read_torch(path), path, network, _EPS, _keys),
        sha256=weight_files.sha256(path),
        outputs=("logits",),
        **options,
    )


def prepare(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
    """Returns the pictures with the preprocessing published with the weights.

    Resizes the short side to 256 (bilinear, antialiased), takes the central 224 x 224,
    and normalizes by ImageNet's mean and deviation. A picture of 256 x 256 is only
    cropped.
    """
    x = pictures.astype(jnp.float32) / 255
    height, width = x.shape[1:3]
    short = min(height, width)
    height, width = height * _SHORT_SIDE // short, width * _SHORT_SIDE // short
    if (height, width) != x.shape[1:3]:
        x = jax.image.resize(x, (len(x), height, width, 3), "linear")
    top, left = round((height - _CROP) / 2), round((width - _CROP) / 2)
    x = x[:, top : top + _CROP, left : left + _CROP]
    return (x - _MEAN) / _DEVIATION


def prepare_whole(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
    """Returns the whole pictures at 224 x 224, as in the public evaluation of I2SB.

    PyTorch's `interpolate(mode="bicubic")`: no antialiasing, and the border repeats.
    """
    x = pictures.astype(jnp.float32) / 255
    rows, columns = (_cubic(side) for side in x.shape[1:3])
    x = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
    return (x - _MEAN) / _DEVIATION


def _cubic(side: int) -> Float[np.ndarray, "224 side"]:
    """Returns the weights of a cubic convolution (Keys 1981, a = -3/4)."""
    place = (np.arange(_CROP) + 0.5) * side / _CROP - 0.5
    weights = np.zeros((_CROP, side))
    for tap in range(-1, 3):
        pixel = np.floor(place).astype(int) + tap
        t = np.abs(place - pixel)
        near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        border = pixel.clip(0, side - 1)
        weights[np.arange(_CROP), border] += np.where(t <= 1, near, far)
    return weights.astype(np.float32)


class ResNet50(nn.Module):
    """The network in torchvision's form, which strides in the 3 x 3 convolutions."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b 224 224 3"]
    ) -> dict[str, Float[Array, "b 1000"]]:
        """Returns the class scores before the softmax."""
        h = conv_relu(x, "conv1", 64, 7, stride=2, padding=3)
        h = max_pool(h, padding=(1, 1))
        for group, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                stride = 2 if group and not block else 1
                name = f"layer{group + 1}.{block}"
                h = _Bottleneck(64 * 2**group, stride, name=name)(h)
        return {"logits": nn.Dense(1000, name="fc")(h.mean((1, 2)))}


class _Bottleneck(nn.Module):
    inner: int
    stride: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        skip, outer = h, 4 * self.inner
        if h.shape[-1] != outer:
            skip = conv(h, "downsample.0", outer, 1, stride=self.stride)
        h = conv_relu(h, "conv1", self.inner, 1)
        h = conv_relu(h, "conv2", self.inner, 3, stride=self.stride, padding=1)
        return nn.relu(skip + conv(h, "conv3", outer, 1))


def _keys(layer: str) -> tuple[str, str | None]:
    if layer == "fc":
        return layer, None
    if layer.endswith("downsample.0"):
        return layer, f"{layer[:-1]}1"
    block, _, last = layer.rpartition("conv")
    return layer, f"{block}bn{last}"
