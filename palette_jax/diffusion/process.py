"""The forward process: bytes to floats, noise into holes, noise onto the target."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8


def to_float(image: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Maps bytes to [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def to_bytes(image: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Maps [-1, 1] to bytes with clipping; the inverse of `to_float`."""
    return jnp.clip(jnp.round((image + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def normal_like(
    keys: Key[Array, " b"], like: Float[Array, "b ..."]
) -> Float[Array, "b ..."]:
    """Draws standard normal noise, each image from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:]))(keys)


def fill_hole(
    keys: Key[Array, " b"], x: Float[Array, "b h w c"], hole: UInt8[Array, "b h w 1"]
) -> Float[Array, "b h w c"]:
    """Fills the missing pixels of the source with N(0, 1) noise (paper, section 3)."""
    return jnp.where(hole > 0, normal_like(keys, x), x)


def generation_mask(hole: UInt8[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
    """Returns 1 where the model paints: the hole, or everywhere if there is none."""
    has_hole = jnp.any(hole > 0, axis=(1, 2, 3), keepdims=True)
    return jnp.where(has_hole, hole > 0, True).astype(jnp.float32)


def add_noise(
    y: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    gamma: Float[Array, " b"],
    var: Float[Array, " b"],
    mask: Float[Array, "b h w 1"],
) -> Float[Array, "b h w c"]:
    """Returns y_t: noisy where the mask is 1, clean pixels elsewhere.

    `var` is 1 - gamma, passed along because float32 cannot subtract it exactly.
    """
    y_t = per_image(jnp.sqrt(gamma)) * y + per_image(jnp.sqrt(var)) * noise
    return jnp.where(mask > 0, y_t, y)


def per_image(level: Float[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    """Returns a number for each image, to multiply the images by."""
    return level[:, None, None, None]
