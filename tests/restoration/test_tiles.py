"""Tiles: where they lie, and that they add up to one picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.tree_util import Partial

from palette_jax.restoration import tiles

SIZE = 16


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]).reshape(-1, 1), ("data", "fsdp"))


def _predict(function, x, y_t, *, painted=None, together=4, devices=4):
    """Asks a network of SIZE x SIZE about canvases, tile by tile."""
    painted = np.ones((*x.shape[:3], 1), np.uint8) if painted is None else painted
    plan = tiles.plan(
        [tiles.positions(p, SIZE) for p in painted],
        x.shape[1:3],
        SIZE,
        together=together,
    )
    bind = tiles.make_tiled_predictor(_mesh(devices))
    gamma = jnp.linspace(0.2, 0.9, len(x))
    ask = bind(Partial(function), plan)
    return np.asarray(ask(jnp.asarray(x), jnp.asarray(y_t), gamma))


def _canvases(*shape):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(*shape, 3)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 28, 29, 100, 4000])
def test_tiles_cover_an_axis_from_end_to_end(length: int) -> None:
    starts = tiles.cover(length, SIZE, overlap=4)
    assert starts[0] == 0 and starts[-1] == max(length - SIZE, 0)
    gaps = np.diff(starts)
    assert (gaps > 0).all() and (gaps <= SIZE - 4).all()
    assert len(starts) == max(-(-(length - 4) // (SIZE - 4)), 1)  # And no more.


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 16, 40), (3, 37, 50)])
def test_a_network_that_sees_one_pixel_gives_the_same_in_tiles(shape) -> None:
    x, y_t = _canvases(*shape)

    def local(x, y_t, gamma):
        return jnp.sin(x) * y_t + gamma[:, None, None, None]

    whole = local(x, y_t, jnp.linspace(0.2, 0.9, len(x)))
    np.testing.assert_allclose(_predict(local, x, y_t), whole, atol=1e-5)


def test_a_single_tile_is_what_the_network_says_to_the_bit() -> None:
    x, y_t = _canvases(1, 16, 16)
    said = _predict(lambda x, y_t, gamma: x.sum() * y_t, x, y_t, together=1, devices=1)
    np.testing.assert_array_equal(said, jax.jit(lambda x, y: x.sum() * y)(x, y_t))


def test_there_is_no_seam_between_tiles_that_disagree() -> None:
    x = np.repeat((np.arange(64) > 31).astype(np.float32), 3).reshape(1, 1, 64, 3)
    x = np.repeat(x, 16, 1)

    def mean(x, y_t, gamma):
        return jnp.broadcast_to(x.mean((1, 2, 3), keepdims=True), x.shape)

    said = _predict(mean, x, x)[0, 8, :, 0]
    assert said[0] == 0 and said[-1] == 1
    # Over 4 pixels at least; a hard border between two tiles would jump by 0.5 or more.
    assert np.abs(np.diff(said)).max() < 0.3


def test_a_tile_gives_way_to_the_next_pixel_by_pixel() -> None:
    """Of two that say 0 and 1: neither a border nor a plateau of their mean."""
    columns = np.arange(64, dtype=np.float32)[None, None, :, None]
    x = np.broadcast_to(columns, (1, 16, 64, 3))

    def right_of_the_middle(x, y_t, gamma):
        is_right = x.mean((1, 2, 3), keepdims=True) > 30
        return jnp.broadcast_to(is_right.astype(jnp.float32), x.shape)

    row = _predict(right_of_the_middle, x, x)[0, 8, :, 0]
    # A quarter of a tile is shared: weights of 1 to 4 against 4 to 1.
    between = row[(row > 0) & (row < 1)]
    np.testing.assert_allclose(between, [0.2, 0.4, 0.6, 0.8], atol=1e-6)


def test_the_sum_does_not_depend_on_devices() -> None:
    x, y_t = _canvases(2, 40, 50)

    def network(x, y_t, gamma):
        return y_t * x.mean((1, 2, 3), keepdims=True)

    results = [_predict(network, x, y_t, together=4, devices=d) for d in (1, 2, 4)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_only_tiles_that_paint_are_computed() -> None:
    x, y_t = _canvases(1, 64, 64)
    painted = np.zeros((1, 64, 64, 1), np.uint8)
    painted[:, 30:33, 50] = 1
    corners = tiles.positions(painted[0], SIZE)
    assert 0 < len(corners) <= 4
    said = _predict(lambda x, y_t, gamma: 0 * x + 7, x, y_t, painted=painted)
    np.testing.assert_allclose(said[0, 30:33, 50], 7, rtol=1e-6)
    reached = np.zeros((64, 64), bool)
    for top, left in corners:
        reached[top : top + SIZE, left : left + SIZE] = True
    np.testing.assert_array_equal(said[0, ..., 0] != 0, reached)
