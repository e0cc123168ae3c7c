"""Convolutions and products, with weights named and shaped as those of Flax.

Unlike Flax's, they sum the gradient of a bias in float32, whatever the type of the
computation: a sum over all pixels in bfloat16 stops at 256 of equal summands.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Uniform in +-1/sqrt(fan_in), as ADM's layers start in PyTorch.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def add_bias(h: Float[Array, "b *n c"], bias: Float[Array, "..."]) -> Array:
    """Adds a float32 bias to features of any type; its gradient is summed in float32.

    Args:
      h: the features.
      bias: of a shape that broadcasts to theirs.
    """
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
        return _with_bias(h.astype(self.dtype) @ kernel[0, 0].astype(self.dtype), bias)


class Conv(nn.Module):
    """A two-dimensional convolution."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    kernel_dilation: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, h: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        """Returns the new features."""
        shape = (*self.kernel_size, h.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        h = jax.lax.conv_general_dilated(
            h.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.strides, self.strides),
            self.padding,
            rhs_dilation=(self.kernel_dilation, self.kernel_dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return _with_bias(h, bias)


def _with_bias(h: Array, bias: Array) -> Array:
    return add_bias(h, bias.reshape((1,) * (h.ndim - 1) + (-1,)))
