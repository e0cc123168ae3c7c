"""Sampling: the loop that walks a sampler's table from noise to pictures."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from palette_jax.diffusion import process
from palette_jax.diffusion.samplers import Sampler
from palette_jax.types import PredictFn

Callback = Callable[[int, Float[Array, "b h w c"]], None]
"""`callback(steps_done, y_0)`, with the newest estimate; an error ends the sampling."""


def sample(
    keys: Key[Array, " b"],
    predict: PredictFn,
    x: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"],
    sampler: Sampler,
    *,
    clip: bool = False,
    callback: Callback | None = None,
    compiler_options: Mapping[str, str] | None = None,
) -> Float[Array, "b h w c"]:
    """Paints the mask, from pure noise, and keeps the rest of `x`.

    Args:
      keys: one per image, so that an image depends neither on the batch it is drawn
        with nor on the number of devices.
      predict: returns the clean picture by the trained network. As a
        `jax.tree_util.Partial` over its parameters it is compiled once, however often
        this is called.
      x: the source in [-1, 1], its hole already filled with noise of other keys.
      mask: 1 where to paint.
      sampler: the steps to take.
      clip: keeps every estimate of the clean picture in [-1, 1]. The paper does not.
      callback: called after each step. The host then calls `predict` between compiled
        steps, so `predict` may raise too.
      compiler_options: of XLA; not inside another compiled function.

    Returns:
      One picture for each row of `x`, not clipped to [-1, 1]; where the mask is 0 it
      equals `x` to the bit.
    """
    if not isinstance(predict, Partial):
        predict = Partial(predict)
    num_steps = sampler.num_steps
    # Columns of zeros are not computed, and without `std` no noise is drawn.
    used = tuple(
        tuple(np.flatnonzero(rule.any(0)).tolist())
        for rule in (sampler.step, sampler.correct)
    )
    table = {
        "gamma": sampler.gamma,
        "step": sampler.step[:, used[0]],
        "correct": sampler.correct[:, used[1]],
    }
    if sampler.std.any():
        table["std"] = sampler.std
    table = {name: jnp.asarray(rows, jnp.float32) for name, rows in table.items()}
    table["index"] = jnp.arange(num_steps)
    # As many estimates as the rules look back on; at least one for the callback.
    oldest = max((i for columns in used for i in columns), default=0)
    carry = _start(keys, x, mask, max(oldest - 2, 1))
    chunk = 1 if callback else num_steps
    advance = _compiled(tuple(sorted((compiler_options or {}).items())))
    for start in range(0, num_steps, chunk):
        rows = {name: column[start : start + chunk] for name, column in table.items()}
        asked = predict
        if callback:
            gamma = jnp.broadcast_to(rows["gamma"][0], x.shape[:1])
            asked = Partial(_asked_already, predict(x, carry.y_t, gamma))
        carry = advance(keys, asked, x, mask, carry, rows, clip, used)
        if callback:
            callback(start + 1, carry.estimates[0])
    return carry.y_t


def _asked_already(y_0: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """Returns what the host has asked for already."""
    del x, y_t, gamma
    return y_0


class _Carry(NamedTuple):
    y_t: Float[Array, "b h w c"]
    corrected: Float[Array, "b h w c"]
    estimates: tuple[Float[Array, "b h w c"], ...]  # The newest first.


@jax.jit(static_argnames="count")
def _start(keys: Array, x: Array, mask: Array, count: int) -> _Carry:
    noise = process.normal_like(_fold(keys, 0), x)
    y_t = jnp.where(mask > 0, noise, x)
    return _Carry(y_t, y_t, (jnp.zeros_like(x),) * count)


@functools.cache
def _compiled(options: tuple[tuple[str, str], ...]) -> Callable[..., _Carry]:
    # One object for each set of options, which remembers what it compiled.
    return jax.jit(
        _advance,
        static_argnames=("clip", "used"),
        compiler_options=dict(options) or None,
    )


def _advance(
    keys: Array,
    predict: Partial,
    x: Array,
    mask: Array,
    carry: _Carry,
    rows: dict[str, Array],
    clip: bool,
    used: tuple[tuple[int, ...], tuple[int, ...]],
) -> _Carry:
    def step(carry: _Carry, row: dict[str, Array]) -> tuple[_Carry, None]:
        gamma = jnp.broadcast_to(row["gamma"], carry.y_t.shape[:1])
        y_0 = predict(x, carry.y_t, gamma).astype(carry.y_t.dtype)
        y_0 = jnp.where(mask > 0, jnp.clip(y_0, -1, 1) if clip else y_0, x)
        estimates = (y_0, *carry.estimates)
        basis = (carry.y_t, carry.corrected, *estimates)

        def combine(weights: Array, columns: tuple[int, ...]) -> Array:
            terms = [weights[k] * basis[i] for k, i in enumerate(columns)]
            return functools.reduce(jnp.add, terms)

        y_t = combine(row["step"], used[0])
        if "std" in row:
            noise = process.normal_like(_fold(keys, row["index"] + 1), x)
            y_t = y_t + row["std"] * noise
        y_t = jnp.where(mask > 0, y_t, x)
        corrected = combine(row["correct"], used[1]) if used[1] else carry.corrected
        return _Carry(y_t, corrected, estimates[: len(carry.estimates)]), None

    return jax.lax.scan(step, carry, rows)[0]


def _fold(keys: Key[Array, " b"], data: int | Int[Array, ""]) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)
