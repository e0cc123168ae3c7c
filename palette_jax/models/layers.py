"""Convolutions and linear layers, with the names and shapes of Flax's weights.

Unlike Flax's, they always sum the gradient of a bias in float32: in bfloat16 a sum of
equal terms over all pixels stops growing at 256 terms.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from palette_jax.models import winograd

# Uniform in +-1/sqrt(fan_in), as ADM's layers start in PyTorch.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def add_bias(h: Float[Array, "b *n c"], bias: Float[Array, "..."]) -> Array:
    """Adds a float32 bias to features of any type; sums its gradient in float32."""
    # Broadcast first, cast after: backward, the cast comes before the sum.
    return h + jnp.broadcast_to(bias, h.shape).astype(h.dtype)


class Dense(nn.Module):
    """A linear layer over the last axis."""

    features: int
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, h: Float[Array, "b *n c_in"]) -> Float[Array, "b *n c_out"]:
        """Returns the new features."""
        kernel = self.param("kernel", self.kernel_init, (h.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _with_bias(h.astype(self.dtype) @ kernel.astype(self.dtype), bias)


class HeadProjections(nn.Module):
    """Queries, keys and values of attention, with the weights of one linear layer.

    Its columns are ordered by head, then by kind, as in ADM. The weights are reordered
    by kind, so that no features have to be moved.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n c"]
    ) -> tuple[Float[Array, "b n heads d"], ...]:
        """Returns the queries, keys and values."""
        c = tokens.shape[-1]
        kernel = self.param("kernel", kernel_init, (c, 3 * c))
        bias = self.param("bias", nn.initializers.zeros, (3 * c,))
        kernel = jnp.moveaxis(kernel.reshape(c, self.heads, 3, -1), 2, 0)
        bias = jnp.moveaxis(bias.reshape(self.heads, 3, -1), 1, 0)
        tokens, kernel = tokens.astype(self.dtype), kernel.astype(self.dtype)
        shape = (*tokens.shape[:-1], self.heads, -1)
        return tuple(
            _with_bias(tokens @ k.reshape(c, c), b.reshape(c)).reshape(shape)
            for k, b in zip(kernel, bias, strict=True)
        )


class Pointwise(nn.Module):
    """A 1x1 convolution, with its weights, computed as a matrix product.

    On a CPU, XLA's convolution takes 1.2 to 1.6 times as long.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h w c_out"]:
        """Returns the new features of each pixel."""
        shape = (1, 1, h.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _with_bias(h.astype(self.dtype) @ kernel[0, 0].astype(self.dtype), bias)


def upsample(h: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles the size by repeating pixels."""
    b, height, width, c = h.shape
    h = jnp.broadcast_to(h[:, :, None, :, None], (b, height, 2, width, 2, c))
    return h.reshape(b, 2 * height, 2 * width, c)


class Conv(nn.Module):
    """A two-dimensional convolution."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    kernel_dilation: int = 1
    upsample: bool = False  # First doubles the size, by repeating pixels.
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        """Returns the new features."""
        shape = (*self.kernel_size, h.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        h = h.astype(self.dtype)
        if self.upsample:
            h = jax.lax.platform_dependent(
                h, kernel, tpu=_convolve_between, default=_convolve_upsampled
            )
        else:
            h = _convolve(
                h,
                kernel,
                window_strides=(self.strides, self.strides),
                padding=self.padding,
                rhs_dilation=(self.kernel_dilation, self.kernel_dilation),
            )
        return _with_bias(h, bias)


def _convolve(h: Array, kernel: Array, **options: Any) -> Array:
    plain = {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (1, 1)}
    if kernel.shape[:2] == (3, 3) and plain | options == plain:
        return winograd.convolve(h, kernel.astype(h.dtype))
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        h, kernel.astype(h.dtype), dimension_numbers=dimensions, **options
    )


def _convolve_upsampled(h: Array, kernel: Array) -> Array:
    return _convolve(upsample(h), kernel, window_strides=(1, 1), padding="SAME")


def _convolve_between(h: Array, kernel: Array) -> Array:
    """Convolves the upsampled picture without making it, with 4 of the 9 products.

    Repeating pixels equals inserting zeros and then spreading each pixel over a square
    of four. This spreads the kernel instead, and a TPU skips the zeros.
    """
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = padded[:-1] + padded[1:]
    spread = rows[:, :-1] + rows[:, 1:]
    return _convolve(
        h, spread, window_strides=(1, 1), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2)
    )


def _with_bias(h: Array, bias: Array) -> Array:
    return add_bias(h, bias.reshape((1,) * (h.ndim - 1) + (-1,)))
