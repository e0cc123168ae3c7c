"""The building blocks of the ADM U-Net (Dhariwal & Nichol 2021, section 3)."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from palette_jax.models.attention import attend
from palette_jax.models.layers import (
    Conv,
    Dense,
    HeadProjections,
    Pointwise,
    add_bias,
    upsample,
)

_Affines = tuple[Array, Array, Array, Array]
"""Gain and bias of the layer, scale and shift of each picture; 1 c or b c or none."""


class GroupNorm(nn.Module):
    """Normalises groups of channels; computes in float32, whatever the input's type.

    Where 32 does not divide the channels, as in very small networks, it takes the
    largest power of two below it that does.
    """

    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b *hw c"],
        scale: Float[Array, "b c"] | float = 0.0,
        shift: Float[Array, "b c"] | float = 0.0,
        *,
        silu: bool = False,
    ) -> Float[Array, "b *hw c"]:
        """Returns the normalised features times 1 + scale, plus shift.

        Args:
          h: the features.
          scale: of each picture's channels.
          shift: the same.
          silu: applies the SiLU to the result.
        """
        groups = math.gcd(self.groups, h.shape[-1])
        gain, bias = _Affine(name="norm")(h.shape[-1])
        affine = jax.tree.map(jnp.float32, (gain, bias, scale, shift))
        return _norm(h, affine, groups, self.epsilon, silu)


# All that is done to a channel of a picture comes to one factor and one summand: one
# pass over the features to find them and one to apply them. Written out in turn, with
# gradients, it takes three to five times as long on a CPU.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _norm(h: Array, affine: _Affines, groups: int, epsilon: float, silu: bool) -> Array:
    return _norm_forward(h, affine, groups, epsilon, silu)[0]


def _norm_forward(
    h: Array, affine: _Affines, groups: int, epsilon: float, silu: bool
) -> tuple[Array, Any]:
    pixels = tuple(range(1, h.ndim - 1))
    # Squares of numbers around 0 lose no digits to a large mean.
    pivot = _first_of_groups(h, groups)
    centered = h.astype(jnp.float32) - jnp.expand_dims(pivot, pixels)
    moments = centered.mean(pixels), jnp.square(centered).mean(pixels)
    line = _line(moments, affine, groups, epsilon)
    out = _apply_line(centered, line)
    out = nn.silu(out) if silu else out
    return out.astype(h.dtype), (h, pivot, moments, affine)


def _norm_backward(
    groups: int, epsilon: float, silu: bool, kept: Any, cotangent: Array
) -> tuple[Array, _Affines]:
    h, pivot, moments, affine = kept
    pixels = tuple(range(1, h.ndim - 1))
    line, pull_back = jax.vjp(
        lambda moments, affine: _line(moments, affine, groups, epsilon),
        moments,
        affine,
    )

    def of_line(h: Array, cotangent: Array) -> tuple[Array, Array]:
        h, cotangent = h.astype(jnp.float32), cotangent.astype(jnp.float32)
        centered = h - jnp.expand_dims(pivot, pixels)
        if silu:
            out = _apply_line(centered, line)
            gate = nn.sigmoid(out)
            cotangent *= gate * (1 + out * (1 - gate))
        return centered, cotangent

    centered, inner = of_line(h, cotangent)
    sums = (centered * inner).sum(pixels), inner.sum(pixels)
    (d_mean, d_square), d_affine = pull_back(sums)
    # Computed again from what is stored in the type of `h`: kept, it would be written
    # and read in float32. Without the barrier XLA finds that both are the same.
    centered, inner = of_line(*jax.lax.optimization_barrier((h, cotangent)))
    count = math.prod(h.shape[1:-1])
    d_h = inner * jnp.expand_dims(line[0], pixels)
    d_h += _apply_line(centered, (2 * d_square / count, d_mean / count))
    return d_h.astype(h.dtype), d_affine


_norm.defvjp(_norm_forward, _norm_backward)


def _line(
    moments: tuple[Array, Array], affine: _Affines, groups: int, epsilon: float
) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Returns the factor and the summand of each channel of each picture."""
    gain, bias, scale, shift = affine
    offset, square = (_mean_of_groups(moment, groups) for moment in moments)
    var = jnp.maximum(square - jnp.square(offset), 0.0)
    factor = jax.lax.rsqrt(var + epsilon) * gain
    summand = (bias - offset * factor) * (1 + scale) + shift
    return factor * (1 + scale), summand


def _apply_line(h: Array, line: tuple[Array, Array]) -> Array:
    factor, summand = (jnp.expand_dims(a, range(1, h.ndim - 1)) for a in line)
    return h * factor + summand


class _Affine(nn.Module):
    """The weights of a norm."""

    @nn.compact
    def __call__(
        self, features: int
    ) -> tuple[Float[Array, "1 c"], Float[Array, "1 c"]]:
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        return scale[None], bias[None]


def _first_of_groups(h: Float[Array, "b *hw c"], groups: int) -> Float[Array, "b c"]:
    """Returns a number of each group, of its first pixel, in float32."""
    # Cut out first: a reshape of all of it would be a copy on a TPU.
    pixel = h[(slice(None), *(0 for _ in h.shape[1:-1]))]
    first = pixel.reshape(len(h), groups, -1)[..., :1]
    pivot = jnp.broadcast_to(first, (*first.shape[:2], h.shape[-1] // groups))
    return pivot.reshape(len(h), -1).astype(jnp.float32)


def _mean_of_groups(mean: Float[Array, "b c"], groups: int) -> Float[Array, "b c"]:
    """Averages neighbouring channels; gives each the mean of its group."""
    grouped = mean.reshape(len(mean), groups, -1)
    means = jnp.broadcast_to(grouped.mean(2, keepdims=True), grouped.shape)
    return means.reshape(mean.shape)


def downsample(h: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Halves the size by averaging squares of four pixels."""
    return jax.lax.platform_dependent(
        h, tpu=_downsample_by_convolution, default=_downsample_by_reshaping
    )


def _downsample_by_reshaping(h: Array) -> Array:
    b, height, width, c = h.shape
    return h.reshape(b, height // 2, 2, width // 2, 2, c).mean((2, 4))


def _downsample_by_convolution(h: Array) -> Array:
    # A TPU would write what it reshapes in float32, padded.
    c = h.shape[-1]
    kernel = jnp.broadcast_to(0.25 * jnp.eye(c, dtype=h.dtype), (2, 2, c, c))
    return jax.lax.conv_general_dilated(
        h,
        kernel,
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )


def pixel_unshuffle(
    h: Float[Array, "b h w c"], size: int
) -> Float[Array, "b h//{size} w//{size} c*{size}**2"]:
    """Makes one pixel of each square of size x size pixels, with all their channels."""
    b, height, width, c = h.shape
    h = h.reshape(b, height // size, size, width // size, size, c)
    return h.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // size, width // size, -1)


def pixel_shuffle(
    h: Float[Array, "b h w c"], size: int
) -> Float[Array, "b h*{size} w*{size} c//{size}**2"]:
    """Makes a square of size x size pixels of each pixel; undoes `pixel_unshuffle`."""
    b, height, width, _ = h.shape
    h = h.reshape(b, height, width, size, size, -1)
    return h.transpose(0, 1, 3, 2, 4, 5).reshape(b, height * size, width * size, -1)


class Resize(nn.Module):
    """Halves or doubles the size by a convolution, where no `ResBlock` does it."""

    features: int
    direction: Literal["up", "down"]
    pad_end: bool = False  # Down: pads below and to the right only, not all around.
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        """Returns the resized features."""
        conv = functools.partial(Conv, self.features, dtype=self.dtype, name="conv")
        if self.direction == "up":
            return conv(upsample=True)(h)
        padding = (0 if self.pad_end else 1, 1)
        return conv(strides=2, padding=(padding, padding))(h)


class ResBlock(nn.Module):
    """Two 3x3 convolutions, the second scaled and shifted by the noise level.

    `conv_out` starts at zero, so a new block passes its input through unchanged (or
    resized: BigGAN's up- and down-sampling sits between norm and convolution).
    """

    features: int
    resize: Literal["up", "down"] | None = None
    conditioning: Literal["scale_shift", "shift"] = "scale_shift"
    dropout: float = 0.0
    norm: Callable[..., nn.Module] = GroupNorm
    dtype: DTypeLike = jnp.float32  # Of the convolutions; parameters stay float32.

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b h w c_in"],
        level_emb: Float[Array, "b emb"],
        deterministic: bool = True,
    ) -> Float[Array, "b h2 w2 c_out"]:
        """Returns the new features; dropout needs a `dropout` key if not turned off."""
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        resize = {"up": upsample, "down": downsample, None: lambda h: h}[self.resize]
        skip = resize(h)
        if h.shape[-1] != self.features:
            skip = Pointwise(self.features, self.dtype, name="skip")(skip)

        h = self.norm(name="norm_in")(h, silu=True)
        if self.resize == "down":
            h = downsample(h)
        h = conv(upsample=self.resize == "up", name="conv_in")(h)
        count = self.features * (2 if self.conditioning == "scale_shift" else 1)
        film = Dense(count, self.dtype, name="film")(nn.silu(level_emb))
        film = film.astype(jnp.float32)
        norm_out = self.norm(name="norm_out")
        if self.conditioning == "scale_shift":
            h = norm_out(h, *jnp.split(film, 2, -1), silu=True)
        else:
            h = norm_out(add_bias(h, film[:, None, None, :]), silu=True)
        h = nn.Dropout(self.dropout, deterministic=deterministic)(h)
        zeros = nn.initializers.zeros
        h = conv(kernel_init=zeros, name="conv_out")(h)
        return skip + h


class DilatedBlock(nn.Module):
    """A 3x3 convolution with holes, told the noise level; starts as the identity."""

    dilation: int
    norm: Callable[..., nn.Module] = GroupNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b h w c"], level_emb: Float[Array, "b emb"]
    ) -> Float[Array, "b h w c"]:
        """Returns features of the same shape."""
        features = h.shape[-1]
        shift = Dense(features, self.dtype, name="shift")(nn.silu(level_emb))
        out = self.norm(name="norm")(h, shift=shift.astype(jnp.float32), silu=True)
        conv = Conv(
            features,
            kernel_dilation=self.dilation,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            name="conv",
        )
        return h + conv(out)


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, added to its input; starts as the identity.

    With `blocks_per_side`, a pixel attends to those of its own block only: 2 cuts the
    picture into four blocks that do not overlap.
    """

    head_features: int = 64
    num_heads: int = 0  # The same everywhere; 0: as `head_features` says.
    blocks_per_side: int = 1
    norm: Callable[..., nn.Module] = GroupNorm
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns features of the same shape."""
        _, height, width, c = h.shape
        heads = self.num_heads or max(c // self.head_features, 1)
        dense = functools.partial(Dense, dtype=self.dtype)
        tokens = self.norm(name="norm")(h)
        tokens = _cut(tokens, self.blocks_per_side)
        q, k, v = HeadProjections(heads, self.dtype, name="qkv")(tokens)
        out = attend(q, k, v).reshape(tokens.shape)
        out = _join(out, self.blocks_per_side, height, width)
        return h + dense(c, kernel_init=nn.initializers.zeros, name="out")(out)


def _cut(h: Float[Array, "b h w c"], side: int) -> Float[Array, "blocks hw c"]:
    """Returns the pixels of each of side x side blocks as a row of tokens."""
    b, height, width, c = h.shape
    if height % side or width % side:
        raise ValueError(
            f"expected a height and width that {side} divides, to cut into {side} x"
            f" {side} blocks, got {height} x {width}; take a picture whose size is a"
            f" multiple of {side} times the smallest level's stride, or"
            " model.attention=global"
        )
    h = h.reshape(b, side, height // side, side, width // side, c)
    return jnp.moveaxis(h, 3, 2).reshape(b * side**2, -1, c)


def _join(
    tokens: Float[Array, "blocks hw c"], side: int, height: int, width: int
) -> Float[Array, "b h w c"]:
    """Puts the blocks back in their places."""
    c = tokens.shape[-1]
    h = tokens.reshape(-1, side, side, height // side, width // side, c)
    return jnp.moveaxis(h, 2, 3).reshape(-1, height, width, c)
