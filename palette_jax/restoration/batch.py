"""Restores a batch of degraded pictures with a trained network."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Key, UInt8, UInt32

from palette_jax.diffusion import process, samplers
from palette_jax.types import Params, PredictNoiseFn

ApplyFn = Callable[[Params, Array, Array, Array], Array]
"""`apply(params, x, y_t, gamma) -> eps`."""


def noise_predictor(
    apply: ApplyFn, params: Params, *, gamma_floor: float
) -> PredictNoiseFn:
    """Binds trained weights to a network.

    Args:
      apply: the network; keep one object for all calls, since the sampler is compiled
        anew for each.
      params: its weights.
      gamma_floor: the smallest gamma trained on. The paper's sampling schedule goes far
        below; the network is then asked about the floor.
    """
    # A Partial hands its arrays to the compiled sampler as arguments; in a closure
    # they would become constants of the program.
    return Partial(_bind(_above_floor, apply), params, gamma_floor)


@functools.cache
def _bind(function: Callable[..., Array], apply: ApplyFn) -> Partial:
    # Partials of functions are equal only to themselves: a new one in every call would
    # have the sampler compiled in every call.
    return Partial(function, apply)


def velocity_predictor(
    apply: ApplyFn, params: Params, *, gamma_floor: float
) -> PredictNoiseFn:
    """Binds the weights of a network that predicts the velocity; as `noise_predictor`.

    The velocity is sqrt(gamma) noise - sqrt(1 - gamma) y.
    """
    return Partial(_bind(_noise_of_velocity, apply), params, gamma_floor)


def _noise_of_velocity(
    apply: ApplyFn,
    params: Params,
    gamma_floor: Array | float,
    x: Array,
    y_t: Array,
    gamma: Array,
) -> Array:
    velocity = _above_floor(apply, params, gamma_floor, x, y_t, gamma)
    gamma = gamma[:, None, None, None]
    return jnp.sqrt(gamma) * velocity.astype(y_t.dtype) + jnp.sqrt(1 - gamma) * y_t


def regression_predictor(
    apply: ApplyFn, params: Params, *, gamma_floor: float
) -> PredictNoiseFn:
    """Binds the weights of a network that was trained to give the picture at once.

    It says which noise leads to that picture, so that a sampler of one step returns it.
    """
    return Partial(_bind(_noise_beside_picture, apply), params, gamma_floor)


def _noise_beside_picture(
    apply: ApplyFn,
    params: Params,
    gamma_floor: Array | float,
    x: Array,
    y_t: Array,
    gamma: Array,
) -> Array:
    floor = jnp.full_like(gamma, gamma_floor)
    picture = apply(params, x, jnp.zeros_like(y_t), floor).astype(y_t.dtype)
    gamma = gamma[:, None, None, None]
    return (y_t - jnp.sqrt(gamma) * picture) / jnp.sqrt(1 - gamma)


def _above_floor(
    apply: ApplyFn,
    params: Params,
    gamma_floor: Array | float,
    x: Array,
    y_t: Array,
    gamma: Array,
) -> Array:
    return apply(params, x, y_t, jnp.maximum(gamma, gamma_floor))


def image_keys(
    seed: int, ids: UInt32[Array, " b"], *, sample_index: int = 0
) -> Key[Array, " b"]:
    """Returns a key for each image, which follows from the seed and its id alone."""
    key = jax.random.fold_in(jax.random.key(seed), sample_index)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


def restore_batch(
    keys: Key[Array, " b"],
    predict_noise: PredictNoiseFn,
    x: UInt8[Array, "b h w 3"],
    hole: UInt8[Array, "b h w 1"],
    sampler: samplers.Sampler,
    *,
    clip: bool = False,
    callback: samplers.Callback | None = None,
    every: int = 0,
    compiler_options: Mapping[str, str] | None = None,
) -> UInt8[Array, "b h w 3"]:
    """Restores pictures; the known pixels come back as they are.

    Args:
      keys: one for each picture.
      predict_noise: as `noise_predictor` returns it.
      x: the degraded pictures.
      hole: 1 where they miss something.
      sampler: the steps to take.
      clip: keeps the estimates of the clean picture in [-1, 1].
      callback: see `samplers.sample`.
      every: the number of steps between two calls of it.
      compiler_options: see `samplers.sample`.
    """
    key_hole, key_sample = _split(keys)
    filled = process.fill_hole(key_hole, process.to_float(x), hole)
    mask = process.generation_mask(hole)
    y = samplers.sample(
        key_sample,
        predict_noise,
        filled,
        mask,
        sampler,
        clip=clip,
        callback=callback,
        every=every,
        compiler_options=compiler_options,
    )
    return jnp.where(mask > 0, process.to_bytes(y), x)


@jax.jit
def _split(keys: Key[Array, " b"]) -> tuple[Key[Array, " b"], Key[Array, " b"]]:
    # Compiled: an array that lies on several hosts cannot be unpacked by one of them.
    both = jax.vmap(jax.random.split, out_axes=1)(keys)
    return both[0], both[1]
