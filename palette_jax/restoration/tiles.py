"""Pictures larger than the network's: overlapping tiles that are denoised together.

At every step each tile gets its own estimate of the clean picture, and the whole takes
their weighted mean. So the tiles agree where they overlap, and there is no seam.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float32, Int32, UInt8

from palette_jax import parallel
from palette_jax.types import PredictFn


class Plan(NamedTuple):
    """Where the network is asked, for one batch of canvases.

    Attributes:
      starts: canvas, top and left of each tile, in groups that are computed together;
        a canvas of -1 is a tile that only fills a group.
      num_groups: how many of the groups hold tiles; the others are not computed.
      window: the weight of each pixel of a tile.
      total: the sum of the weights at each pixel of the canvases, 0 where no tile is.
    """

    starts: Int32[np.ndarray, "groups tiles 3"]
    num_groups: Int32[np.ndarray, ""]
    window: Float32[np.ndarray, "1 size size 1"]
    total: Float32[np.ndarray, "b h w 1"]


def cover(length: int, size: int, *, overlap: int) -> list[int]:
    """Returns where tiles start on an axis, evenly spread, first and last at its ends.

    Neighbours share at least `overlap` pixels. An axis shorter than a tile has one.
    """
    if length <= size:
        return [0]
    count = -(-(length - size) // max(size - overlap, 1)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def positions(painted: UInt8[np.ndarray, "h w 1"], size: int) -> list[tuple[int, int]]:
    """Returns top and left of the tiles of a picture, of those that paint something."""
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
      tiles: of each canvas, as `positions` returns them.
      shape: height and width of the canvases.
      size: of a tile.
      together: how many tiles the network is given at once.
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
    num_groups = -(-len(rows) // together)
    # A program is compiled for each length, so there are few: the powers of two.
    groups = 1 << max(num_groups - 1, 0).bit_length()
    rows += [(-1, 0, 0)] * (groups * together - len(rows))
    starts = np.array(rows, np.int32).reshape(groups, together, 3)
    return Plan(starts, np.array(num_groups, np.int32), window, total)


TiledPredictor = Callable[[PredictFn, Plan], PredictFn]


def make_tiled_predictor(mesh: Mesh) -> TiledPredictor:
    """Returns `bind(predict, plan) -> predict` of whole canvases.

    The tiles of a group are split over the devices of the mesh. Tiles are added up in
    their order, one by one, so the sum does not depend on how many devices there are.
    Keep what is returned: samplers compile for each.
    """

    def predict_canvas(
        predict: Partial,
        plan: Plan,
        x: Float[Array, "b h w c"],
        y_t: Float[Array, "b h w c"],
        gamma: Float[Array, " b"],
    ) -> Float[Array, "b h w c"]:
        size, total = plan.window.shape[1], jnp.asarray(plan.total)

        def cut(image: Array, start: Array) -> Array:
            index = (jnp.maximum(start[0], 0), start[1], start[2], 0)
            return jax.lax.dynamic_slice(image, index, (1, size, size, image.shape[-1]))

        def add(y_0: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
            estimate, start = tile
            share = plan.window / cut(total, start)
            share = jnp.where(start[0] >= 0, share, 0)
            index = (jnp.maximum(start[0], 0), start[1], start[2], 0)
            sum_here = cut(y_0, start) + share * estimate
            return jax.lax.dynamic_update_slice(y_0, sum_here, index), None

        def group(i: Array, y_0: Array) -> Array:
            starts = plan.starts[i]
            x_tiles, y_tiles = (
                jax.vmap(cut, (None, 0))(image, starts)[:, 0] for image in (x, y_t)
            )
            levels = gamma[jnp.maximum(starts[:, 0], 0)]
            # The network runs split over the devices; all else is whole on each.
            tiles = jax.lax.with_sharding_constraint(
                (x_tiles, y_tiles, levels), parallel.batch_sharding(mesh)
            )
            estimates = predict(*tiles).astype(y_0.dtype)
            estimates = jax.lax.with_sharding_constraint(
                estimates, parallel.replicated(mesh)
            )
            return jax.lax.scan(add, y_0, (estimates[:, None], starts))[0]

        return jax.lax.fori_loop(0, plan.num_groups, group, jnp.zeros_like(y_t))

    return lambda predict, plan: Partial(predict_canvas, predict, plan)
