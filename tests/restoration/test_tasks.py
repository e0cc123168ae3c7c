"""The tasks for a user's own picture, and that they are those of the training."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from palette_jax.data import masks as data_masks
from palette_jax.data import tasks as data_tasks
from palette_jax.errors import UserError
from palette_jax.restoration import tasks
from palette_jax.restoration.settings import Settings, Sides


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def _twin(task: data_tasks.Task, picture: np.ndarray) -> dict[str, np.ndarray]:
    example = task(tf.constant([0, 1]), {"y": tf.constant(picture)})
    return {key: value.numpy() for key, value in example.items()}


def test_colorize_is_the_twin_of_the_training_task(picture) -> None:
    degraded = tasks.degrade(picture, Settings("colorize"))
    twin = _twin(data_tasks.colorize(), picture)
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_inpaint_is_the_twin_of_the_training_task(picture) -> None:
    twin = _twin(data_tasks.inpaint(), picture)
    degraded = tasks.degrade(picture, Settings("inpaint"), hole=twin["hole"])
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


@pytest.mark.parametrize("side", data_masks.SIDES)
def test_uncrop_is_the_twin_of_the_training_task(picture, side: str) -> None:
    twin = _twin(data_tasks.uncrop(side=side), picture)
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
    degraded = tasks.degrade(known, Settings("uncrop", extend=extend))
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_jpeg_is_given_the_bytes_that_a_file_was_decoded_to(picture) -> None:
    twin = _twin(data_tasks.jpeg(min_quality=10, max_quality=10), picture)
    degraded = tasks.degrade(twin["x"], Settings("jpeg"))
    np.testing.assert_array_equal(degraded.x, twin["x"])
    np.testing.assert_array_equal(degraded.hole, twin["hole"])


def test_a_share_is_of_the_side_that_grows() -> None:
    degraded = tasks.uncrop(np.zeros((10, 20, 3), np.uint8), Sides.of("all", 0.5))
    assert degraded.x.shape == (20, 40, 3)
    assert degraded.hole.sum() == 20 * 40 - 10 * 20


def test_the_luma_wanted_is_given_to_within_rounding(picture) -> None:
    wanted = np.random.default_rng(1).integers(0, 256, (48, 48, 1), dtype=np.uint8)
    result = tasks.with_luma(picture, wanted)
    luma = np.asarray(Image.fromarray(result).convert("L")).astype(int)
    assert np.abs(luma - wanted[..., 0]).max() <= 1
    # A picture that has that luma already stays as it is.
    same = tasks.with_luma(picture, tasks.luma(picture)).astype(int)
    assert np.abs(same - picture).max() <= 1


@pytest.mark.parametrize(
    ("settings", "hole", "words"),
    [
        (Settings("inpaint"), False, "expected a mask"),
        (Settings("colorize"), True, "expected a mask with task inpaint alone"),
    ],
)
def test_a_mask_goes_with_inpainting_only(picture, settings, hole, words) -> None:
    mask = np.ones((48, 48, 1), np.uint8) if hole else None
    with pytest.raises(UserError, match=words):
        tasks.degrade(picture, settings, hole=mask)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "colourize"}, "expected task out of"),
        ({"task": "uncrop"}, "expected a side to extend"),
        ({"task": "jpeg", "num_samples": 0}, "num_samples >= 1"),
        ({"task": "jpeg", "seed": -1}, "expected a seed"),
        ({"task": "jpeg", "num_steps": 0}, "num_steps >= 1"),
        ({"task": "uncrop", "extend": Sides(left=50)}, "0 to 16 times"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words) -> None:
    with pytest.raises(UserError, match=words):
        Settings(**values)


def test_settings_survive_json() -> None:
    settings = Settings("uncrop", seed=4, extend=Sides(top=0.25), large="shrink")
    assert Settings.from_json(settings.to_json()) == settings
    with pytest.raises(UserError, match="expected settings"):
        Settings.from_json({"seed": 1})
