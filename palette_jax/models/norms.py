"""Group normalisation with its own gradient."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_Affines = tuple[Array, Array, Array, Array]
"""Gain and bias of the layer, scale and shift of each picture; `1 c`, `b c` or None."""


class GroupNorm(nn.Module):
    """Normalises groups of channels; computes in float32 for any input type.

    If 32 does not divide the channels, as in very small networks, the number of groups
    is the largest smaller power of two that does.
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
        """Returns the normalised features times 1 + scale, plus shift; then SiLU."""
        groups = math.gcd(self.groups, h.shape[-1])
        gain, bias = _Affine(name="norm")(h.shape[-1])
        affine = jax.tree.map(jnp.float32, (gain, bias, scale, shift))
        return _norm(h, affine, groups, self.epsilon, silu)


# The whole operation on a channel of a picture is one factor and one summand: one pass
# over the features computes them and one applies them. Separate operations, with their
# gradients, take three to five times as long on a CPU.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _norm(h: Array, affine: _Affines, groups: int, epsilon: float, silu: bool) -> Array:
    return _norm_forward(h, affine, groups, epsilon, silu)[0]


def _norm_forward(
    h: Array, affine: _Affines, groups: int, epsilon: float, silu: bool
) -> tuple[Array, Any]:
    pixels = tuple(range(1, h.ndim - 1))
    # Squares of numbers around 0 lose no digits to a large mean. In 16 bits the numbers
    # have lost more digits themselves; without the pivot a TPU sums while it convolves.
    pivot = jnp.zeros((len(h), h.shape[-1]), jnp.float32)
    if h.dtype == jnp.float32:
        pivot = _first_of_groups(h, groups)
    centered = h.astype(jnp.float32) - jnp.expand_dims(pivot, pixels)
    moments = centered.mean(pixels), jnp.square(centered).mean(pixels)
    line = _line(moments, affine, groups, epsilon)
    out = _apply_line(centered, line)
    out = nn.silu(out) if silu else out
    return out.astype(h.dtype), (h, pivot, moments, affine)


def _norm_backward(
    groups: int, epsilon: float, silu: bool, residuals: Any, cotangent: Array
) -> tuple[Array, _Affines]:
    h, pivot, moments, affine = residuals
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
    # Recomputed from the residuals in the type of `h`: stored, it would be written and
    # read in float32. Without the barrier XLA would merge both computations.
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
