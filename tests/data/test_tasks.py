"""Tests that each task degrades a picture as Pillow or the paper would."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from palette_jax.data import masks, tasks

TASKS = {
    "colorize": tasks.colorize,
    "colorize lightness": functools.partial(tasks.colorize, gray="lightness"),
    "inpaint": tasks.inpaint,
    "inpaint center": functools.partial(tasks.inpaint, mask="center"),
    "uncrop": tasks.uncrop,
    "uncrop right": functools.partial(tasks.uncrop, side="right"),
    "jpeg": tasks.jpeg,
    "paired": tasks.paired,
    "multitask": functools.partial(
        tasks.multitask, tasks=[tasks.colorize, tasks.inpaint], weights=[1.0, 2.0]
    ),
}


@pytest.fixture(scope="module")
def picture(make_photo) -> tasks.Picture:
    x, y = (np.asarray(make_photo(seed, 64, 64)) for seed in (1, 2))
    return {"x": tf.constant(x), "y": tf.constant(y)}


def examples(task: tasks.Task, picture: tasks.Picture, count: int) -> list[dict]:
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([3, i]))
    return list(seeds.map(lambda seed: task(seed, picture)).as_numpy_iterator())


@pytest.mark.parametrize("name", TASKS)
def test_all_tasks_give_bytes_of_the_same_shape(name, picture):
    for example in examples(TASKS[name], picture, 4):
        assert {k: (v.dtype, v.shape) for k, v in example.items()} == {
            "x": (np.uint8, (64, 64, 3)),
            "y": (np.uint8, (64, 64, 3)),
            "hole": (np.uint8, (64, 64, 1)),
        }
        np.testing.assert_array_equal(example["y"], picture["y"])


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_the_same_eagerly_and_in_a_graph(name, picture):
    for i, in_graph in enumerate(examples(TASKS[name], picture, 4)):
        eager = TASKS[name](tf.constant([3, i], tf.int64), picture)
        for key, value in in_graph.items():
            np.testing.assert_array_equal(eager[key], value)


@pytest.mark.parametrize("name", ["inpaint", "inpaint center", "uncrop"])
def test_x_is_y_outside_of_the_hole_and_black_in_it(name, picture):
    for example in examples(TASKS[name], picture, 20):
        expected = np.where(example["hole"] == 1, 0, example["y"])
        np.testing.assert_array_equal(example["x"], expected)


def test_gray_is_that_of_pillow(make_photo):
    colors = np.arange(256**2 * 3).reshape(256, 256, 3)
    colors = (colors * 2654435761 >> 7).astype(np.uint8)
    for image in (colors, np.asarray(make_photo(0, 256, 256))):
        example = tasks.colorize(tf.constant([0, 0]), {"y": tf.constant(image)})
        luma = np.asarray(Image.fromarray(image).convert("L"))
        np.testing.assert_array_equal(example["x"], np.stack([luma] * 3, -1))
        assert not example["hole"].numpy().any()


@pytest.mark.parametrize("size", [32, 64, 100, 256])
@pytest.mark.parametrize("quality", [5, 10, 20, 30])
def test_jpeg_has_the_bytes_of_pillow(make_photo, quality, size):
    photo, file = make_photo(quality, size, size), io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    task = functools.partial(tasks.jpeg, min_quality=quality, max_quality=quality)
    example = task(tf.constant([0, 1]), {"y": tf.constant(np.asarray(photo))})
    np.testing.assert_array_equal(example["x"], np.asarray(Image.open(file)))


def test_jpeg_qualities_fall_off_exponentially(make_photo):
    photo = make_photo(0, 16, 16)
    quality_of = {}
    for quality in range(5, 31):
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality)
        quality_of[np.asarray(Image.open(file)).tobytes()] = quality
    assert len(quality_of) == 26
    picture = {"y": tf.constant(np.asarray(photo))}
    drawn = [quality_of[e["x"].tobytes()] for e in examples(tasks.jpeg, picture, 6000)]
    expected = np.exp(-np.arange(5, 31) / 10)
    expected *= len(drawn) / expected.sum()
    counts = np.bincount(drawn, minlength=31)[5:]
    assert ((counts - expected) ** 2 / expected).sum() < 52.6  # p = 0.001 of chi² (25).


def test_six_tenths_of_the_holes_are_free_form(picture):
    def is_of_rectangles(hole: np.ndarray) -> bool:
        # Five have at most ten rows at which they begin or end; a stroke has many.
        return np.diff(hole.astype(int), axis=0).any(1).sum() <= 10

    holes = [e["hole"][..., 0] for e in examples(tasks.inpaint, picture, 1500)]
    are_rectangles = np.array([is_of_rectangles(hole) for hole in holes])
    assert abs(np.mean(~are_rectangles) - 0.6) < 4 * 0.0127
    # What kind is drawn says nothing of its area.
    for areas in (
        np.mean(holes, (1, 2))[is_kind] for is_kind in (are_rectangles, ~are_rectangles)
    ):
        assert areas.min() < 0.12 and areas.max() > 0.38


def test_one_half_of_the_uncroppings_is_all_around(picture):
    holes = {masks.uncrop(side, 64).tobytes(): side for side in masks.SIDES}
    drawn = [holes[e["hole"].tobytes()] for e in examples(tasks.uncrop, picture, 1600)]
    assert abs(drawn.count("all") - 800) < 4 * 20
    for side in masks.SIDES[:4]:
        assert abs(drawn.count(side) - 200) < 4 * 13.3


def test_paired_gives_the_pair(picture):
    (example,) = examples(tasks.paired, picture, 1)
    np.testing.assert_array_equal(example["x"], picture["x"])
    assert not example["hole"].any()


def test_multitask_mixes_by_weight(picture):
    several = [
        tasks.colorize,
        functools.partial(tasks.inpaint, mask="center"),
        tasks.paired,
    ]
    task = functools.partial(tasks.multitask, tasks=several, weights=[1.0, 2.0, 3.0])
    kinds = []
    for example in examples(task, picture, 1200):
        is_paired = np.array_equal(example["x"], picture["x"])
        kinds.append(1 if example["hole"].any() else 2 if is_paired else 0)
    counts = np.bincount(kinds, minlength=3)
    assert abs(counts - [200, 400, 600]).max() < 4 * 18


def test_which_task_is_drawn_says_nothing_of_what_the_task_draws(picture):
    """Of one seed for both, each task would see a part of its strengths alone."""

    def drawing(index):
        def task(seed, picture):
            share = tf.random.stateless_uniform([], seed)
            return {"x": share, "y": tf.constant(index)}

        return task

    task = functools.partial(
        tasks.multitask, tasks=[drawing(0), drawing(1)], weights=[1.0, 1.0]
    )
    made = examples(task, picture, 200)
    for index in (0, 1):
        shares = np.array([m["x"] for m in made if m["y"] == index])
        assert shares.min() < 0.2 and shares.max() > 0.8
        assert abs(shares.mean() - 0.5) < 0.15


def test_hints_are_a_few_true_colours_in_one_half_of_the_examples() -> None:
    y = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    plain, hinted = tasks.colorize, functools.partial(tasks.colorize, hints=True)
    shares = []
    for i in range(60):
        seed = tf.constant([i, 7])
        gray = plain(seed, {"y": tf.constant(y)})["x"].numpy()
        x = hinted(seed, {"y": tf.constant(y)})["x"].numpy()
        is_hint = (x != gray).any(-1)
        np.testing.assert_array_equal(x[is_hint], y[is_hint])
        shares.append(is_hint.mean())
    without = sum(share == 0 for share in shares)
    assert 15 <= without <= 45  # Five standard deviations of 60 coins, less a bit.
    assert 0 < max(shares) < 0.1


def test_old_photos_differ_by_seed_and_are_never_the_picture_itself() -> None:
    y = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    task = tasks.old_photo
    made = [
        task(tf.constant([i, 1]), {"y": tf.constant(y)})["x"].numpy() for i in range(8)
    ]
    again = task(tf.constant([3, 1]), {"y": tf.constant(y)})["x"].numpy()
    np.testing.assert_array_equal(again, made[3])
    assert len({x.tobytes() for x in (*made, y)}) == 9
    inside = tf.data.Dataset.range(8).map(
        lambda i: task(tf.stack([tf.cast(i, tf.int32), 1]), {"y": tf.constant(y)})["x"]
    )
    for x, expected in zip(inside.as_numpy_iterator(), made, strict=True):
        np.testing.assert_array_equal(x, expected)


def test_superres_takes_the_details_and_keeps_the_means() -> None:
    y = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = tasks.superres(tf.constant([0, 1]), {"y": tf.constant(y)})["x"].numpy()
    assert x.shape == y.shape and x.std() < 0.5 * y.std()
    assert abs(x.mean() - y.mean()) < 1
