"""Attention itself, by the kernel that the device has for it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_16_BITS = (jnp.bfloat16, jnp.float16)


def attend(
    q: Float[Array, "b n heads c"],
    k: Float[Array, "b n heads c"],
    v: Float[Array, "b n heads c"],
) -> Float[Array, "b n heads c"]:
    """Returns softmax(q k^T / sqrt(c)) v of each head.

    On a GPU, in 16 bits, by cuDNN's fused kernel, which never writes the n x n weights.
    Elsewhere XLA's. No kernel of Pallas is used on a TPU: `jax.jit` cannot split one
    over the devices of a mesh, and the flash kernel takes no 8 x 8 pixels.
    """
    fused = (
        q.dtype in _16_BITS
        and q.shape[-1] % 8 == 0  # What cuDNN asks for.
        and q.shape[-1] <= 128
        and _has_fused_kernel(jax.local_devices()[0])
    )
    implementation = "cudnn" if fused else "xla"
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def _has_fused_kernel(device: Any) -> bool:
    """Returns whether it is an NVIDIA GPU of the Ampere generation or later."""
    if "cuda" not in device.client.platform_version.lower():
        return False
    return float(device.compute_capability) >= 8.0
