"""Tiles for pictures larger than the network, which are denoised together.

At every step the network estimates the clean picture of each tile, and the whole
picture takes the weighted mean. So overlapping tiles agree, and there are no seams.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32, UInt8

from palette_jax import parallel
from palette_jax.types import PredictFn


class Plan(NamedTuple):
    """The tiles of a batch of canvases.

    Attributes:
      starts: canvas, top and left of each tile, in groups that are computed together;
        a canvas of -1 is padding of a group.
      window: the weight of each pixel of a tile.
      total: the sum of the weights at each pixel of the canvases, 0 without a tile.
    """

    starts: Int32[np.ndarray, "groups tiles 3"]
    window: Float32[np.ndarray, "1 size size 1"]
    total: Float32[np.ndarray, "b h w 1"]


def cover(length: int, size: int, *, overlap: int) -> list[int]:
    """Returns the starts of evenly spaced tiles on an axis, from end to end.

    Neighbours share at least `overlap` pixels. An axis shorter than a tile has one
    tile.
    """
    if length <= size:
        return [0]
    count = -(-(length - size) // max(size - overlap, 1)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def positions(painted: UInt8[np.ndarray, "h w 1"], size: int) -> list[tuple[int, int]]:
    """Returns top and left of all tiles with painted pixels."""
    height, width = painted.shape[:2]
    return [
        (top, left)
        for top in cover(height, size, overlap=size // 4)
        for left in cover(width, size, overlap=size // 4)
        if painted[top : top + size, left : left + size].any()
    ]


def plan(
    tiles: Sequence[Sequence[tuple[int, int]]],
    shape: tuple[int, int],
    size: int,
    *,
    together: int,
) -> Plan:
    """Returns the plan for canvases of one shape.

    Args:
      tiles: of each canvas, from `positions`.
      shape: height and width of the canvases.
      size: of a tile.
      together: number of tiles in a group.
    """
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1))
    ramp = np.minimum(ramp / max(size // 4, 1), 1).astype(np.float32)
    window = (ramp[:, None] * ramp)[None, ..., None]
    rows = [
        (index, top, left)
        for index, corners in enumerate(tiles)
        for top, left in corners
    ]
    total = np.zeros((len(tiles), *shape, 1), np.float32)
    for index, top, left in rows:
        total[index, top : top + size, left : left + size] += window[0]
    rows += [(-1, 0, 0)] * (-len(rows) % together)
    return Plan(np.array(rows, np.int32).reshape(-1, together, 3), window, total)


OnGroup = Callable[[float], None]
"""Called after each group of tiles with the finished share; may raise."""

TiledPredictor = Callable[[PredictFn, Plan, OnGroup | None], PredictFn]


def make_tiled_predictor(mesh: Mesh) -> TiledPredictor:
    """Returns `bind(predict, plan, on_group) -> predict` of whole canvases.

    The host computes group by group, so that a large picture can be stopped at any
    time. The tiles of a group are split over the devices of the mesh. Tiles are added
    one by one in their order, so the sum does not depend on the number of devices. Keep
    the returned function: it caches its compiled programs.
    """
    whole = parallel.replicated(mesh)

    def add_group(
        predict: PredictFn,
        window: Float32[Array, "1 size size 1"],
        total: Float32[Array, "b h w 1"],
        starts: Int32[Array, "tiles 3"],
        x: Float[Array, "b h w c"],
        y_t: Float[Array, "b h w c"],
        gamma: Float[Array, " b"],
        y_0: Float[Array, "b h w c"],
    ) -> Float[Array, "b h w c"]:
        size = window.shape[1]

        def cut(image: Array, start: Array) -> Array:
            index = (jnp.maximum(start[0], 0), start[1], start[2], 0)
            return jax.lax.dynamic_slice(image, index, (1, size, size, image.shape[-1]))

        def add(y_0: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
            estimate, start = tile
            share = window / cut(total, start)
            share = jnp.where(start[0] >= 0, share, 0)
            index = (jnp.maximum(start[0], 0), start[1], start[2], 0)
            sum_here = cut(y_0, start) + share * estimate
            return jax.lax.dynamic_update_slice(y_0, sum_here, index), None

        x_tiles, y_tiles = (
            jax.vmap(cut, (None, 0))(image, starts)[:, 0] for image in (x, y_t)
        )
        levels = gamma[jnp.maximum(starts[:, 0], 0)]
        # Only the network is split over the devices; the rest is replicated.
        tiles = jax.lax.with_sharding_constraint(
            (x_tiles, y_tiles, levels), parallel.batch_sharding(mesh)
        )
        estimates = predict(*tiles).astype(y_0.dtype)
        estimates = jax.lax.with_sharding_constraint(estimates, whole)
        return jax.lax.scan(add, y_0, (estimates[:, None], starts))[0]

    compiled = jax.jit(
        add_group,
        donate_argnames="y_0",
        out_shardings=whole,
        compiler_options=parallel.compiler_options(mesh),
    )

    def bind(
        predict: PredictFn, plan: Plan, on_group: OnGroup | None = None
    ) -> PredictFn:
        window, total, starts = jax.device_put(
            (plan.window, plan.total, list(plan.starts)), whole
        )

        def predict_canvases(x: Array, y_t: Array, gamma: Array) -> Array:
            y_0 = jax.device_put(jnp.zeros_like(y_t), whole)
            for i, group in enumerate(starts):
                y_0 = compiled(predict, window, total, group, x, y_t, gamma, y_0)
                if on_group is not None and i + 1 < len(starts):
                    jax.block_until_ready(y_0)  # Else groups would only be enqueued.
                    on_group((i + 1) / len(starts))
            return y_0

        return predict_canvases

    return bind
