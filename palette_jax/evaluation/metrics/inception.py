"""Inception-v3 of 2015-12-05, the network of FID and Inception Score.

Its features equal pytorch-fid's: the same key names, poolings and resize. Another
resize (TensorFlow 1's, or an antialiased one) changes FID.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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

FEATURES = ("64", "192", "768", "2048")
"""The names of the features, by their number of channels, shallow to deep."""
LOGITS = "logits"
"""1008 class scores before the softmax; no bias, as in the score's original program."""

_SIZE = 299
_EPS = 1e-3  # Of the batch norms, as in TensorFlow.


def find(*, folder: epath.PathLike | None = None) -> epath.Path:
    """Returns the weight file, or the file that ends after the 768-d feature.

    Raises:
      MissingWeightsError: if neither exists.
    """
    try:
        return weight_files.find("inception", folder=folder)
    except weight_files.MissingWeightsError as error:
        try:
            return weight_files.find("inception_768", folder=folder)
        except weight_files.MissingWeightsError:
            raise error from None


def load(path: epath.PathLike, *, clean: bool = False, **options: Any) -> Extractor:
    """Returns the network, from pictures of one size to features by name.

    Its `outputs` are "64", "192", "768", "2048" (means over the positions) and
    "logits"; a file that ends after Mixed_6e has no "2048" and no "logits".

    Args:
      path: of the weights.
      clean: resizes pictures as clean-fid does, else as pytorch-fid does.
      options: `batch_size` and `mesh` of `Extractor`.

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    state = read_torch(path)
    is_whole = any(key.startswith("Mixed_7") for key in state)
    network = Inception(is_whole=is_whole)

    def keys(layer: str) -> tuple[str, str | None]:
        return (layer, None) if layer == "fc" else (f"{layer}.conv", f"{layer}.bn")

    return Extractor(
        prepare_clean if clean else prepare,
        network.apply,
        folded_params(state, path, network, _EPS, keys),
        sha256=weight_files.sha256(path),
        outputs=(*FEATURES, LOGITS) if is_whole else FEATURES[:3],
        **options,
    )


def prepare(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b 299 299 3"]:
    """Returns the whole pictures at 299 x 299, in [-1, 1].

    Bilinear between the centres of pixels, without antialiasing, in floats:
    PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    x = pictures.astype(jnp.float32) / 255
    shape = (len(x), _SIZE, _SIZE, 3)
    return 2 * jax.image.resize(x, shape, "linear", antialias=False) - 1


def prepare_clean(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b 299 299 3"]:
    """Returns the whole pictures at 299 x 299 as clean-fid does (Parmar 2022).

    Uses Pillow's bicubic filter, which antialiases, in floats that may overshoot; then
    subtracts 128 and divides by 128.
    """
    x = pictures.astype(jnp.float32)
    return (jax.image.resize(x, (len(x), _SIZE, _SIZE, 3), "cubic") - 128) / 128


class Inception(nn.Module):
    """The network, up to the 768-d feature or complete; layer names are the file's.

    The average poolings of FID's variant exclude the padding.
    """

    is_whole: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> dict[str, Float[Array, "b c"]]:
        """Returns the features by name, of pictures in [-1, 1]."""
        features: dict[str, Any] = {}
        h = conv_relu(x, "Conv2d_1a_3x3", 32, 3, stride=2, padding="VALID")
        h = conv_relu(h, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        h = max_pool(conv_relu(h, "Conv2d_2b_3x3", 64, 3))
        features["64"] = h.mean((1, 2))
        h = conv_relu(h, "Conv2d_3b_1x1", 80, 1)
        h = max_pool(conv_relu(h, "Conv2d_4a_3x3", 192, 3, padding="VALID"))
        features["192"] = h.mean((1, 2))
        for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
            h = _MixedA(pooled, name=f"Mixed_5{letter}")(h)
        h = _MixedB(name="Mixed_6a")(h)
        for letter, inner in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            h = _MixedC(inner, name=f"Mixed_6{letter}")(h)
        features["768"] = h.mean((1, 2))
        if self.is_whole:
            h = _MixedD(name="Mixed_7a")(h)
            h = _MixedE(is_last=False, name="Mixed_7b")(h)
            h = _MixedE(is_last=True, name="Mixed_7c")(h)
            features["2048"] = h.mean((1, 2))
            logits = nn.Dense(1008, use_bias=False, name="fc")
            features[LOGITS] = logits(features["2048"])
        return features


def _chain(h: Array, *layers: tuple[str, int, int | tuple[int, int]]) -> Array:
    for name, features, size in layers:
        h = conv_relu(h, name, features, size)
    return h


def _pooled(h: Array, features: int) -> Array:
    """Returns the branch of the 3 x 3 averages.

    The original order is to average and then to mix the channels. Both are linear, so
    this averages after mixing, over fewer channels.
    """
    mixed = conv(h, "branch_pool", features, 1)
    return nn.relu(nn.avg_pool(mixed, (3, 3), padding="SAME", count_include_pad=False))


class _MixedA(nn.Module):
    pooled: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        dbl = "branch3x3dbl"
        branches = (
            conv_relu(h, "branch1x1", 64, 1),
            _chain(h, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            _chain(h, (f"{dbl}_1", 64, 1), (f"{dbl}_2", 96, 3), (f"{dbl}_3", 96, 3)),
            _pooled(h, self.pooled),
        )
        return jnp.concatenate(branches, -1)


class _MixedB(nn.Module):
    @nn.compact
    def __call__(self, h: Array) -> Array:
        dbl = _chain(h, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3))
        branches = (
            conv_relu(h, "branch3x3", 384, 3, stride=2, padding="VALID"),
            conv_relu(dbl, "branch3x3dbl_3", 96, 3, stride=2, padding="VALID"),
            max_pool(h),
        )
        return jnp.concatenate(branches, -1)


class _MixedC(nn.Module):
    inner: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        wide, high = (1, 7), (7, 1)
        branches = (
            conv_relu(h, "branch1x1", 192, 1),
            _chain(
                h,
                ("branch7x7_1", self.inner, 1),
                ("branch7x7_2", self.inner, wide),
                ("branch7x7_3", 192, high),
            ),
            _chain(
                h,
                ("branch7x7dbl_1", self.inner, 1),
                ("branch7x7dbl_2", self.inner, high),
                ("branch7x7dbl_3", self.inner, wide),
                ("branch7x7dbl_4", self.inner, high),
                ("branch7x7dbl_5", 192, wide),
            ),
            _pooled(h, 192),
        )
        return jnp.concatenate(branches, -1)


class _MixedD(nn.Module):
    @nn.compact
    def __call__(self, h: Array) -> Array:
        small = conv_relu(h, "branch3x3_1", 192, 1)
        large = _chain(
            h,
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
        )
        branches = (
            conv_relu(small, "branch3x3_2", 320, 3, stride=2, padding="VALID"),
            conv_relu(large, "branch7x7x3_4", 192, 3, stride=2, padding="VALID"),
            max_pool(h),
        )
        return jnp.concatenate(branches, -1)


class _MixedE(nn.Module):
    is_last: bool  # The last block of FID's variant takes maxima, not averages.

    @nn.compact
    def __call__(self, h: Array) -> Array:
        small = conv_relu(h, "branch3x3_1", 384, 1)
        large = _chain(h, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
        if self.is_last:
            maxima = nn.max_pool(h, (3, 3), padding="SAME")
            pooled = conv_relu(maxima, "branch_pool", 192, 1)
        else:
            pooled = _pooled(h, 192)
        branches = (
            conv_relu(h, "branch1x1", 320, 1),
            conv_relu(small, "branch3x3_2a", 384, (1, 3)),
            conv_relu(small, "branch3x3_2b", 384, (3, 1)),
            conv_relu(large, "branch3x3dbl_3a", 384, (1, 3)),
            conv_relu(large, "branch3x3dbl_3b", 384, (3, 1)),
            pooled,
        )
        return jnp.concatenate(branches, -1)
