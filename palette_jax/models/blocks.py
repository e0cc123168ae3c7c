"""The building blocks of the ADM U-Net (Dhariwal & Nichol 2021, section 3)."""

import functools
from collections.abc import Callable
from typing import Literal

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
from palette_jax.models.norms import GroupNorm


def downsample(h: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Halves the size by averaging squares of four pixels."""
    return jax.lax.platform_dependent(
        h, tpu=_downsample_by_convolution, default=_downsample_by_reshaping
    )


def _downsample_by_reshaping(h: Array) -> Array:
    b, height, width, c = h.shape
    return h.reshape(b, height // 2, 2, width // 2, 2, c).mean((2, 4))


def _downsample_by_convolution(h: Array) -> Array:
    # A TPU would write the reshaped array in float32, padded.
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
    """Packs each square of size x size pixels into the channels of one pixel."""
    b, height, width, c = h.shape
    h = h.reshape(b, height // size, size, width // size, size, c)
    return h.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // size, width // size, -1)


def pixel_shuffle(
    h: Float[Array, "b h w c"], size: int
) -> Float[Array, "b h*{size} w*{size} c//{size}**2"]:
    """Unpacks each pixel to size x size pixels; the inverse of `pixel_unshuffle`."""
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

    `conv_out` starts at zero, so a new block returns its input (or resizes it: BigGAN's
    up- and down-sampling is between norm and convolution).
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
        """Returns the new features; dropout, unless off, needs a `dropout` key."""
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
    """A dilated 3x3 convolution with the noise level; starts as the identity."""

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

    With `blocks_per_side`, a pixel attends only to pixels of its own block: 2 cuts the
    picture into four disjoint blocks.
    """

    head_features: int = 64
    num_heads: int = 0  # At all levels; 0: by `head_features`.
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
            f"expected a height and width divisible by {side}, for {side} x {side}"
            f" blocks, got {height} x {width}; use a picture whose size is a multiple"
            f" of {side} times the smallest level's stride, or model.attention=global"
        )
    h = h.reshape(b, side, height // side, side, width // side, c)
    return jnp.moveaxis(h, 3, 2).reshape(b * side**2, -1, c)


def _join(
    tokens: Float[Array, "blocks hw c"], side: int, height: int, width: int
) -> Float[Array, "b h w c"]:
    """Joins the blocks; the inverse of `_cut`."""
    c = tokens.shape[-1]
    h = tokens.reshape(-1, side, side, height // side, width // side, c)
    return jnp.moveaxis(h, 2, 3).reshape(-1, height, width, c)
