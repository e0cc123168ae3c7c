"""Restores a batch of degraded pictures with a trained network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt8, UInt32

from palette_jax.diffusion import objective, process, sampling
from palette_jax.diffusion.samplers import Sampler
from palette_jax.types import Params, PredictFn

ApplyFn = Callable[[Params, Array, Array, Array], Array]
"""`apply(params, x, y_t, gamma)` returns the network's output for its objective."""


def predictor(
    apply: ApplyFn,
    params: Params,
    *,
    objective: str,
    gamma_floor: float,
    patch_size: int = 1,
) -> PredictFn:
    """Returns a function from noisy to clean pictures, with the trained weights.

    Args:
      apply: the network; use the same object for all calls, because each object
        compiles its own sampler.
      params: its weights.
      objective: the prediction of the network: `denoise`, the noise; `velocity`; or
        `regress`, the picture without a noisy input.
      gamma_floor: the smallest trained gamma. The paper's sampling schedule goes far
        below it; the network then gets the floor.
      patch_size: of the network; above 1, `without_lattice` corrects its output.
    """
    # A Partial passes its arrays to the compiled sampler as arguments; in a closure
    # they would become constants of the program.
    return Partial(_bind(_PREDICT[objective], apply, patch_size), params, gamma_floor)


@functools.cache
def _bind(function: Callable[..., Array], apply: ApplyFn, patch_size: int) -> Partial:
    # Partials of functions are equal only to themselves: a new Partial in every call
    # would recompile the sampler in every call.
    if patch_size == 1:
        return Partial(function, apply)
    return Partial(lambda *args: without_lattice(function(apply, *args), patch_size))


def without_lattice(y_0: Float[Array, "b h w c"], size: int) -> Float[Array, "b h w c"]:
    """Equalizes the means of the positions in squares of size x size pixels.

    For a network that packs squares into pixels, a mean difference between the
    positions of a square is the mean of a channel, a single number of a picture. The
    network hardly learns to remove that part of the noise, so a regular pattern of dots
    would stay in even areas; photographs have none.
    """
    b, h, w, c = y_0.shape
    squares = y_0.reshape(b, h // size, size, w // size, size, c)
    places = squares.mean((1, 3), keepdims=True)
    level = places.mean((2, 4), keepdims=True)
    return (squares - (places - level)).reshape(y_0.shape)


def _by_output(
    picture_from: Callable[[Array, Array, Array], Array],
    apply: ApplyFn,
    params: Params,
    gamma_floor: Array | float,
    x: Array,
    y_t: Array,
    gamma: Array,
) -> Array:
    output = apply(params, x, y_t, jnp.maximum(gamma, gamma_floor)).astype(y_t.dtype)
    return picture_from(output, y_t, gamma)


def _by_picture(
    apply: ApplyFn,
    params: Params,
    gamma_floor: Array | float,
    x: Array,
    y_t: Array,
    gamma: Array,
) -> Array:
    floor = jnp.full_like(gamma, gamma_floor)
    return apply(params, x, jnp.zeros_like(y_t), floor).astype(y_t.dtype)


_PREDICT = {
    "denoise": functools.partial(_by_output, objective.picture_from_noise),
    "velocity": functools.partial(_by_output, objective.picture_from_velocity),
    "regress": _by_picture,
}


def image_keys(
    seed: int, ids: UInt32[Array, " b"], *, sample_index: int = 0
) -> Key[Array, " b"]:
    """Returns a key for each image, which depends only on the seed and its id."""
    key = jax.random.fold_in(jax.random.key(seed), sample_index)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


def restore_batch(
    keys: Key[Array, " b"],
    predict: PredictFn,
    x: UInt8[Array, "b h w 3"],
    hole: UInt8[Array, "b h w 1"],
    sampler: Sampler,
    **options: Any,
) -> UInt8[Array, "b h w 3"]:
    """Restores pictures with the options of `sampling.sample`.

    Known pixels do not change.
    """
    key_hole, key_sample = _split(keys)
    filled = process.fill_hole(key_hole, process.to_float(x), hole)
    mask = process.generation_mask(hole)
    y = sampling.sample(key_sample, predict, filled, mask, sampler, **options)
    return jnp.where(mask > 0, process.to_bytes(y), x)


@jax.jit
def _split(keys: Key[Array, " b"]) -> tuple[Key[Array, " b"], Key[Array, " b"]]:
    # Compiled, because one host cannot unpack an array of several hosts.
    both = jax.vmap(jax.random.split, out_axes=1)(keys)
    return both[0], both[1]
