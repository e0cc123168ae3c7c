"""Tests of the holes' areas, shapes and frequencies at all sizes."""

import functools
import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from palette_jax.data import masks, tasks

SIZES = [32, 64, 128, 256, 512]
DRAWS = {"free_form": masks.free_form, "rectangles": masks.rectangles}


@functools.cache
def many(kind: str, size: int) -> np.ndarray:
    count = 2000 if size < 512 else 200
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([5, i]))
    holes = seeds.map(lambda seed: DRAWS[kind](seed, size), tf.data.AUTOTUNE)
    return np.stack(list(holes.as_numpy_iterator()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", DRAWS)
def test_holes_are_binary_and_of_10_to_40_percent(kind, size):
    holes = many(kind, size)
    assert holes.dtype == np.uint8 and holes.shape[1:] == (size, size, 1)
    assert holes.max() == 1
    areas = holes.mean((1, 2, 3))
    assert areas.min() >= 0.10 and areas.max() <= 0.40


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize("share", [(10, 20), (20, 30), (30, 40)])
def test_holes_of_a_share_are_of_that_share(share, size):
    task = functools.partial(tasks.inpaint, mask=f"free_form_{share[0]}_{share[1]}")
    picture = {"y": tf.zeros([size, size, 3], tf.uint8)}
    seeds = tf.data.Dataset.range(300).map(lambda i: tf.stack([5, i]))
    holes = seeds.map(lambda seed: task(seed, picture)["hole"], tf.data.AUTOTUNE)
    areas = 100 * np.stack(list(holes.as_numpy_iterator())).mean((1, 2, 3))
    assert share[0] <= areas.min() and areas.max() <= share[1]
    assert areas.max() - areas.min() > 7  # All of it, less the margins.


@pytest.mark.parametrize("size", [32, 64, 256])
@pytest.mark.parametrize("kind", DRAWS)
def test_areas_are_uniform(kind, size):
    areas = many(kind, size).mean((1, 2, 3))
    counts, _ = np.histogram(areas, 3, (0.10, 0.40))
    # The margins of free_form take up to a tenth of the outer thirds.
    expected = len(areas) / 3
    slack = 0.1 * expected + 4 * math.sqrt(expected)
    assert abs(counts - expected).max() < slack


@pytest.mark.parametrize("kind", DRAWS)
def test_holes_are_everywhere_alike(kind):
    share = many(kind, 64).mean((0, 3))
    assert share[16:48, 16:48].min() > 0.2
    for mirrored in (share[::-1], share[:, ::-1], share.T):
        coarse = (share - mirrored).reshape(8, 8, 8, 8).mean((1, 3))
        assert abs(coarse).max() < 0.06


@pytest.mark.parametrize("kind", DRAWS)
def test_a_hole_has_the_same_shape_at_all_sizes(kind):
    for i in range(20):
        small, large = many(kind, 128)[i, ..., 0], many(kind, 256)[i, ..., 0]
        assert (np.kron(small, np.ones([2, 2])) != large).mean() < 0.03


def test_there_are_one_to_five_rectangles():
    rows_of_corners = []
    for hole in many("rectangles", 256)[..., 0]:
        # At a convex corner one pixel of a window of 2 x 2 is in the hole.
        padded = np.pad(hole, 1).astype(int)
        window = padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
        rows_of_corners.append((window == 1).sum())
    corners = np.array(rows_of_corners)
    assert corners.min() == 4 and 16 < corners.max() <= 20  # Four of each.
    # One rectangle in five draws, and a few more where one hides the others.
    assert 0.17 < (corners == 4).mean() < 0.32


def test_strokes_are_long_and_rectangles_are_not():
    def thickness(hole: np.ndarray) -> float:
        return scipy.ndimage.distance_transform_edt(hole).max() / math.sqrt(hole.sum())

    strokes = [thickness(hole[..., 0]) for hole in many("free_form", 64)[:300]]
    assert np.median(strokes) < 0.25  # A disc has 0.56, a square 0.5.
    assert np.quantile(strokes, 0.95) < 0.45


@pytest.mark.parametrize("kind", DRAWS)
def test_a_seed_gives_one_hole_and_others_another(kind, make_seed):
    holes = [DRAWS[kind](make_seed(i), 64).numpy().tobytes() for i in range(30)]
    again = [DRAWS[kind](make_seed(i), 64).numpy().tobytes() for i in range(30)]
    assert holes == again and len(set(holes)) == 30


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512, 50])
@pytest.mark.parametrize("side", masks.SIDES)
def test_uncropping_leaves_one_half(side, size):
    hole = masks.uncrop(side, size)[..., 0]
    edges = [hole[:, 0], hole[:, -1], hole[0], hole[-1]]
    missing = [edge.all() for edge in edges]
    if side == "all":
        assert all(missing) and abs(hole.mean() - 0.5) < 1.5 / size
        known = hole == 0
        assert known.any(0).sum() == known.any(1).sum()
        assert abs(np.flatnonzero(known.any(0)).mean() - (size - 1) / 2) <= 0.5
    else:
        assert hole.mean() == 0.5
        assert missing == [side == name for name in masks.SIDES[:4]]


@pytest.mark.parametrize("size", [256, 50, 33])
def test_the_central_hole_is_a_quarter_in_the_middle(size):
    hole = masks.center(size)[..., 0]
    side = size - 2 * (size // 4)
    assert hole.sum() == side**2 and abs(side - size / 2) <= 1
    np.testing.assert_array_equal(hole, hole[::-1])
    np.testing.assert_array_equal(hole, hole[:, ::-1])
    assert hole[size // 2, size // 4] == 1 and hole[size // 2, size // 4 - 1] == 0


@pytest.mark.parametrize("size", [20, 64, 200])
def test_hints_are_squares_of_up_to_a_twentieth_of_the_side(size: int) -> None:
    sides: set[int] = set()
    for i in range(60):
        hint = masks.hints(tf.constant([i, 3]), size).numpy()[..., 0]
        found, _ = scipy.ndimage.label(hint)
        for rows, columns in scipy.ndimage.find_objects(found):
            side = rows.stop - rows.start
            is_cut = max(rows.stop, columns.stop) == size
            is_square = side == columns.stop - columns.start
            # Where two meet, the rectangle around both has other pixels in it.
            if is_square and not is_cut and hint[rows, columns].all():
                sides.add(side)
    assert sides == set(range(1, round(size / 20) + 1))


def test_there_are_up_to_twelve_hints() -> None:
    # In a large picture few of them meet.
    counts = [
        scipy.ndimage.label(masks.hints(tf.constant([i, 5]), 512).numpy()[..., 0])[1]
        for i in range(120)
    ]
    assert set(counts) == set(range(13))
