"""Inception-v1 (GoogLeNet), whose pooled features give the perceptual distance.

The paper names the network and the layer but not the weights. These are torchvision's,
so compare these distances only with each other, not with the paper's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Float, UInt8

from palette_jax.evaluation.metrics import weight_files
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.evaluation.metrics.layers import conv_relu, folded_params, max_pool
from palette_jax.torch_file import read_torch

_SIZE = 224
_EPS = 1e-3
_CEIL = (0, 1)  # Pooling windows that overlap the end count.
# Channels of the branches: 1 x 1; 3 x 3 after 1 x 1; a second such pair; after maxima.
_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def load(path: epath.PathLike, **options: Any) -> Extractor:
    """Returns the network; its output is "pool", 1024 features for each picture.

    The key names are torchvision's.

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    network = InceptionV1()
    return Extractor(
        prepare,
        network.apply,
        folded_params(
            read_torch(path),
            path,
            network,
            _EPS,
            lambda key: (f"{key}.conv", f"{key}.bn"),
        ),
        sha256=weight_files.sha256(path),
        outputs=("pool",),
        **options,
    )


def prepare(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
    """Returns the whole pictures at 224 x 224 (bilinear, antialiased), in [-1, 1].

    It does not crop, because the border of a restored picture counts too.
    """
    x = pictures.astype(jnp.float32) / 255
    return 2 * jax.image.resize(x, (len(x), _SIZE, _SIZE, 3), "linear") - 1


class InceptionV1(nn.Module):
    """The network up to its pooled features; its 5 x 5 are 3 x 3, as in the file."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b 224 224 3"]
    ) -> dict[str, Float[Array, "b 1024"]]:
        """Returns the features, of pictures in [-1, 1]."""
        h = conv_relu(x, "conv1", 64, 7, stride=2, padding=3)
        h = max_pool(h, padding=_CEIL)
        h = conv_relu(conv_relu(h, "conv2", 64, 1), "conv3", 192, 3)
        h = max_pool(h, padding=_CEIL)
        for name, channels in _BLOCKS.items():
            h = _Block(channels, name=f"inception{name}")(h)
            if name == "3b":
                h = max_pool(h, padding=_CEIL)
            elif name == "4e":
                h = nn.max_pool(h, (2, 2), (2, 2))
        return {"pool": h.mean((1, 2))}


class _Block(nn.Module):
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, h: Array) -> Array:
        one, reduced, three, reduced_more, five, pooled = self.channels
        branch2 = conv_relu(h, "branch2.0", reduced, 1)
        branch3 = conv_relu(h, "branch3.0", reduced_more, 1)
        maxima = nn.max_pool(h, (3, 3), padding="SAME")
        branches = (
            conv_relu(h, "branch1", one, 1),
            conv_relu(branch2, "branch2.1", three, 3),
            conv_relu(branch3, "branch3.1", five, 3),
            conv_relu(maxima, "branch4.1", pooled, 1),
        )
        return jnp.concatenate(branches, -1)
