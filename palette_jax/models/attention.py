"""Attention with the best kernel of the device."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_16_BITS = (jnp.bfloat16, jnp.float16)
_BLOCK = 256  # Queries whose weights are in memory at once, on a CPU.


def attend(
    q: Float[Array, "b n heads c"],
    k: Float[Array, "b n heads c"],
    v: Float[Array, "b n heads c"],
) -> Float[Array, "b n heads c"]:
    """Returns softmax(q k^T / sqrt(c)) v of each head.

    GPUs use cuDNN's fused kernel in 16 bits, which never writes the n x n weights. CPUs
    use blocks of queries in float32 if there are several blocks. Otherwise XLA computes
    it. TPUs do not use a Pallas kernel: `jax.jit` cannot split one over the devices of
    a mesh, and the flash kernel does not support 8 x 8 pixels.
    """
    if q.dtype == jnp.float32 and q.shape[1] > _BLOCK:
        return jax.lax.platform_dependent(q, k, v, cpu=_by_blocks, default=_by_xla)
    fused = (
        q.dtype in _16_BITS
        and q.shape[-1] % 8 == 0  # cuDNN's requirement.
        and q.shape[-1] <= 128
        and _has_fused_kernel(jax.local_devices()[0])
    )
    implementation = "cudnn" if fused else "xla"
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def _has_fused_kernel(device: Any) -> bool:
    """Returns whether the device is an NVIDIA GPU of the Ampere generation or later."""
    if "cuda" not in device.client.platform_version.lower():
        return False
    return float(device.compute_capability) >= 8.0


def _by_xla(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


@jax.custom_vjp
def _by_blocks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns attention without the n x n weights in memory, as flash attention does.

    A block's weights have the shape (b, heads, keys, queries): so XLA's CPU backend
    multiplies without a transposed copy, and reduces over keys with full vectors.
    """
    return _forward(q, k, v)[0]


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    scale = q.shape[-1] ** -0.5
    outs, log_sums = [], []
    for start in range(0, q.shape[1], _BLOCK):
        logits = jnp.einsum("bkhc,bqhc->bhkq", k, scale * q[:, start : start + _BLOCK])
        largest = logits.max(2, keepdims=True)
        weights = jnp.exp(logits - largest)
        sums = weights.sum(2, keepdims=True)
        outs.append(jnp.einsum("bkhc,bhkq->bhcq", v, weights) / sums)
        log_sums.append(largest + jnp.log(sums))
    out = jnp.concatenate(outs, -1).transpose(0, 3, 1, 2)
    return out, (q, k, v, out, jnp.concatenate(log_sums, -1))


def _backward(
    saved: tuple[jax.Array, ...], d_out: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients; recomputes the weights from the sums of the rows."""
    q, k, v, out, log_sums = saved
    scale = q.shape[-1] ** -0.5
    # The softmax's gradient subtracts each row's mean of d_weights under the weights.
    means = (d_out * out).sum(-1).transpose(0, 2, 1)[:, :, None]
    d_q, d_k, d_v = [], jnp.zeros_like(k), jnp.zeros_like(v)
    for start in range(0, q.shape[1], _BLOCK):
        rows = slice(start, start + _BLOCK)
        block, d_block = scale * q[:, rows], d_out[:, rows]
        logits = jnp.einsum("bkhc,bqhc->bhkq", k, block)
        weights = jnp.exp(logits - log_sums[..., rows])
        d_weights = jnp.einsum("bkhc,bqhc->bhkq", v, d_block)
        d_logits = weights * (d_weights - means[..., rows])
        d_v += jnp.einsum("bhkq,bqhc->bkhc", weights, d_block)
        d_k += jnp.einsum("bhkq,bqhc->bkhc", d_logits, block)
        d_q.append(jnp.einsum("bkhc,bhkq->bhcq", k, d_logits))
    return scale * jnp.concatenate(d_q, -1).transpose(0, 3, 1, 2), d_k, d_v


_by_blocks.defvjp(_forward, _backward)
