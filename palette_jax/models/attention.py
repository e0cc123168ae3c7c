"""Attention with the best kernel of the device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

_16_BITS = (jnp.bfloat16, jnp.float16)
_BLOCK = 256  # Queries whose weights are in memory at once, on a CPU.
_TPU_BLOCKS = (512, 256, 128)  # Queries, or keys, of the flash kernel at once.


def attend(
    q: Float[Array, "b n heads c"],
    k: Float[Array, "b n heads c"],
    v: Float[Array, "b n heads c"],
) -> Float[Array, "b n heads c"]:
    """Returns softmax(q k^T / sqrt(c)) v of each head.

    GPUs use cuDNN's fused kernel in 16 bits, and TPUs a flash kernel, if the mesh is
    known (`parallel.in_mesh`): neither writes the n x n weights. With few tokens the
    flash kernel moves as many bytes as XLA's attention. CPUs use blocks of queries in
    float32 if there are several blocks. Otherwise XLA computes it.
    """
    tokens, features = q.shape[1], q.shape[-1]
    if q.dtype == jnp.float32 and tokens > _BLOCK:
        return jax.lax.platform_dependent(q, k, v, cpu=_by_blocks, default=_by_xla)
    # What both kernels require.
    fits = q.dtype in _16_BITS and features % 8 == 0 and features <= 128
    if fits and _has_fused_kernel(jax.local_devices()[0]):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    if fits and tokens > _BLOCK and tokens % _TPU_BLOCKS[-1] == 0 and _splits(len(q)):
        return jax.lax.platform_dependent(q, k, v, tpu=_by_flash, default=_by_xla)
    return _by_xla(q, k, v)


def _has_fused_kernel(device: Any) -> bool:
    """Returns whether the device is an NVIDIA GPU of the Ampere generation or later."""
    if "cuda" not in device.client.platform_version.lower():
        return False
    return float(device.compute_capability) >= 8.0


def _by_xla(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def _splits(batch: int) -> bool:
    """Returns whether the mesh of the program is known and splits a batch."""
    mesh = jax.sharding.get_abstract_mesh()
    split_by_xla = all(kind == AxisType.Auto for kind in mesh.axis_types)
    return not mesh.empty and split_by_xla and batch % mesh.size == 0


def _by_flash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns attention by the Pallas kernel for TPUs, on each device's pictures."""
    # Imports the compiler of the kernels.
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    size = next(size for size in _TPU_BLOCKS if q.shape[1] % size == 0)
    names = [field.name for field in dataclasses.fields(flash.BlockSizes)]
    sizes = flash.BlockSizes(**{name: size for name in names} | {"block_b": 1})

    def attend_here(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        heads_first = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        scale = q.shape[-1] ** -0.5
        out = flash.flash_attention(*heads_first, sm_scale=scale, block_sizes=sizes)
        return out.transpose(0, 2, 1, 3)

    # XLA cannot split a kernel over devices.
    batch = PartitionSpec(jax.sharding.get_abstract_mesh().axis_names)
    return jax.shard_map(
        attend_here, in_specs=(batch,) * 3, out_specs=batch, check_vma=False
    )(q, k, v)


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
