"""The tasks for a user's own picture, and that they are those of the training."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from palette_jax.data import masks as data_masks
from palette_jax.data import tasks as data_tasks
from palette_jax.errors import UserError
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides, UserInputs, colorize, inpaint, uncrop


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def _twin(task: data_tasks.Task, picture: np.ndarray) -> dict[str, np.ndarray]:
    example = task(tf.constant([0, 1]), {"y": tf.constant(picture)})
    return {key: value.numpy() for key, value in example.items()}


@pytest.mark.parametrize("gray", ["luma", "lightness"])
def test_colorize_is_the_twin_of_the_training_task(picture, gray) -> None:
    degraded = colorize.degrade(picture, UserInputs(gray=gray))
    twin = _twin(functools.partial(data_tasks.colorize, gray=gray), picture)
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_inpaint_is_the_twin_of_the_training_task(picture) -> None:
    twin = _twin(data_tasks.inpaint, picture)
    degraded = inpaint.degrade(picture, UserInputs(twin["hole"]))
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


@pytest.mark.parametrize("side", data_masks.SIDES)
def test_uncrop_is_the_twin_of_the_training_task(picture, side: str) -> None:
    twin = _twin(functools.partial(data_tasks.uncrop, side=side), picture)
    rows, columns = np.nonzero(twin["hole"][..., 0] == 0)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns.min(), columns.max() + 1
    known = picture[top:bottom, left:right]
    height, width = known.shape[:2]
    extend = Sides(
        left=left / width,
        right=(48 - right) / width,
        top=top / height,
        bottom=(48 - bottom) / height,
    )
    degraded = uncrop.degrade(known, UserInputs(extend=extend))
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_jpeg_is_given_the_bytes_that_a_file_was_decoded_to(picture) -> None:
    twin = _twin(
        functools.partial(data_tasks.jpeg, min_quality=10, max_quality=10), picture
    )
    degraded = TASKS["jpeg"].degrade(twin["x"], UserInputs())
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_a_share_is_of_the_side_that_grows() -> None:
    degraded = uncrop.degrade(
        np.zeros((10, 20, 3), np.uint8), UserInputs(extend=Sides.of("all", 0.5))
    )
    assert degraded.x.shape == (20, 40, 3)
    assert degraded.hole.sum() == 20 * 40 - 10 * 20


def test_the_luma_wanted_is_given_to_within_rounding(picture) -> None:
    wanted = np.random.default_rng(1).integers(0, 256, (48, 48, 1), dtype=np.uint8)
    result = colorize.with_luma(picture, wanted)
    luma = np.asarray(Image.fromarray(result).convert("L")).astype(int)
    assert np.abs(luma - wanted[..., 0]).max() <= 1
    # A picture that has that luma already stays as it is.
    same = colorize.with_luma(picture, colorize.luma(picture)).astype(int)
    assert np.abs(same - picture).max() <= 1


def test_inpainting_needs_a_mask(picture) -> None:
    with pytest.raises(UserError, match="expected a mask"):
        inpaint.degrade(picture, UserInputs())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "colourize"}, "expected task out of"),
        ({"task": "uncrop"}, "expected a side to extend"),
        ({"task": "jpeg", "num_samples": 0}, "num_samples >= 1"),
        ({"task": "jpeg", "seed": -1}, "expected a seed"),
        ({"task": "jpeg", "num_steps": 0}, "num_steps >= 1"),
        ({"task": "uncrop", "extend": Sides(left=50)}, "0 to 16 times"),
        ({"task": "jpeg", "num_steps": 10**11}, "num_steps >= 1 and <= 1,000,000"),
        ({"task": "jpeg", "num_samples": 10**9}, "num_samples >= 1 and <= 10,000"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words) -> None:
    with pytest.raises(UserError, match=words):
        Settings(**values)


def test_settings_survive_json() -> None:
    settings = Settings("uncrop", seed=4, extend=Sides(top=0.25), large="shrink")
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1},
        [],
        None,
        "jpeg",
        {"task": "jpeg", "seed": 1.5},
        {"task": "jpeg", "seed": "1"},
        {"task": "jpeg", "num_steps": "8"},
        {"task": "jpeg", "num_samples": float("nan")},
        {"task": ["jpeg"]},
        {"task": "jpeg", "quality": None},
        {"task": "uncrop", "extend": "abc"},
        {"task": "uncrop", "extend": [1, 1, 1, 1, 1]},
        {"task": "uncrop", "extend": {"left": 1}},
    ],
)
def test_forged_settings_are_refused(values: Any) -> None:
    with pytest.raises(UserError, match="expected "):
        Settings.from_json(values)


def test_superres_is_given_the_enlarged_picture_of_the_training_task(picture) -> None:
    from palette_jax.pictures import resize

    twin = _twin(data_tasks.superres, picture)
    small = resize.resize(picture, 12, 12)
    degraded = TASKS["superres"].degrade(small, UserInputs())
    difference = np.abs(degraded.x.astype(int) - twin["x"])
    assert degraded.x.shape == picture.shape
    # TensorFlow reads the bicubic curve from a table of 1024 places.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05


def test_an_extension_of_less_than_a_pixel_is_refused(picture) -> None:
    with pytest.raises(UserError, match=r"left 0\.10%; extend it further"):
        uncrop.degrade(picture, UserInputs(extend=Sides(left=0.001)))
