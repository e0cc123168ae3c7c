"""The building blocks of the ADM U-Net (Dhariwal & Nichol 2021, section 3)."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from palette_jax.models.attention import attend

# Uniform in +-1/sqrt(fan_in), as ADM's layers start in PyTorch.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class GroupNorm(nn.Module):
    """Normalises groups of channels in float32, whatever the input's type.

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
    ) -> Float[Array, "b *hw c"]:
        """Returns the normalised features times 1 + scale, plus shift, in float32.

        All that is done to a channel of a picture comes to one factor and one summand:
        one pass over the features to find them and one to apply them. Written out in
        turn, with gradients, it takes three to five times as long on a CPU.
        """
        groups = math.gcd(self.groups, h.shape[-1])
        h = h.astype(jnp.float32)
        pixels = tuple(range(1, h.ndim - 1))
        # Squares of numbers around 0 lose no digits to a large mean.
        pivot = _first_of_groups(h, groups)
        centered = h - jnp.expand_dims(pivot, pixels)
        offset = _mean_of_groups(centered.mean(pixels), groups)
        square = _mean_of_groups(jnp.square(centered).mean(pixels), groups)
        var = jnp.maximum(square - jnp.square(offset), 0.0)
        gain, bias = _Affine(name="norm")(h.shape[-1])
        factor = jax.lax.rsqrt(var + self.epsilon) * gain
        summand = (bias - offset * factor) * (1 + scale) + shift
        factor *= 1 + scale
        factor, summand = (jnp.expand_dims(a, pixels) for a in (factor, summand))
        return centered * factor + summand


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
    """Returns a number of each group, of its first pixel; gradients pass it by."""
    pixel = h.reshape(len(h), -1, groups, h.shape[-1] // groups)[:, 0, :, :1]
    pivot = jnp.broadcast_to(pixel, (*pixel.shape[:2], h.shape[-1] // groups))
    return jax.lax.stop_gradient(pivot.reshape(len(h), -1))


def _mean_of_groups(mean: Float[Array, "b c"], groups: int) -> Float[Array, "b c"]:
    """Averages neighbouring channels; gives each the mean of its group."""
    grouped = mean.reshape(len(mean), groups, -1)
    means = jnp.broadcast_to(grouped.mean(2, keepdims=True), grouped.shape)
    return means.reshape(mean.shape)


def upsample(h: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles the size by repeating pixels."""
    b, height, width, c = h.shape
    h = jnp.broadcast_to(h[:, :, None, :, None], (b, height, 2, width, 2, c))
    return h.reshape(b, 2 * height, 2 * width, c)


def downsample(h: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Halves the size by averaging squares of four pixels."""
    b, height, width, c = h.shape
    return h.reshape(b, height // 2, 2, width // 2, 2, c).mean((2, 4))


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


class Pointwise(nn.Module):
    """A 1x1 convolution, with the weights of one, as the matrix product that it is.

    On a CPU, XLA's convolution takes 1.2 to 1.6 times as long.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h w c_out"]:
        """Returns the features of each pixel, made of those of the same pixel."""
        shape = (1, 1, h.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        h, kernel, bias = nn.dtypes.promote_dtype(h, kernel, bias, dtype=self.dtype)
        return h @ kernel[0, 0] + bias[None, None, None]


class Resize(nn.Module):
    """Halves or doubles the size by a convolution, where no `ResBlock` does it."""

    features: int
    direction: Literal["up", "down"]
    pad_end: bool = False  # Down: pads below and to the right only, not all around.
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        """Returns the resized features."""
        conv = functools.partial(
            nn.Conv,
            self.features,
            (3, 3),
            dtype=self.dtype,
            kernel_init=kernel_init,
            name="conv",
        )
        if self.direction == "up":
            return conv()(upsample(h))
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
        conv = functools.partial(
            nn.Conv, self.features, dtype=self.dtype, kernel_init=kernel_init
        )
        resize = {"up": upsample, "down": downsample, None: lambda h: h}[self.resize]
        skip = resize(h)
        if h.shape[-1] != self.features:
            skip = Pointwise(self.features, self.dtype, name="skip")(skip)

        h = resize(nn.silu(self.norm(name="norm_in")(h)).astype(self.dtype))
        h = conv((3, 3), name="conv_in")(h)
        film = nn.Dense(
            self.features * (2 if self.conditioning == "scale_shift" else 1),
            dtype=self.dtype,
            kernel_init=kernel_init,
            name="film",
        )(nn.silu(level_emb))
        norm_out = self.norm(name="norm_out")
        if self.conditioning == "scale_shift":
            h = norm_out(h, *jnp.split(film.astype(jnp.float32), 2, -1))
        else:
            h = norm_out(h + film[:, None, None, :])
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=deterministic)(h)
        h = conv((3, 3), kernel_init=nn.initializers.zeros, name="conv_out")(
            h.astype(self.dtype)
        )
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
        shift = nn.Dense(
            features, dtype=self.dtype, kernel_init=kernel_init, name="shift"
        )(nn.silu(level_emb))
        shift = shift[:, None, None, :].astype(jnp.float32)
        out = nn.silu(self.norm(name="norm")(h) + shift).astype(self.dtype)
        conv = nn.Conv(
            features,
            (3, 3),
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
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=kernel_init)
        tokens = self.norm(name="norm")(h).astype(self.dtype)
        tokens = _cut(tokens, self.blocks_per_side)
        qkv = dense(3 * c, name="qkv")(tokens)
        qkv = qkv.reshape(*tokens.shape[:2], heads, 3, -1)
        q, k, v = jnp.moveaxis(qkv, 3, 0)
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
