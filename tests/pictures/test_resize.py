"""Resizing in numpy, which restoring and judging use, equals that of the graph."""

import numpy as np
import pytest
from PIL import Image

from palette_jax.pictures import resize


@pytest.mark.parametrize(
    "shape",
    [(300, 300), (301, 301), (375, 640), (257, 256), (1000, 999), (40, 60), (255, 300)],
)
def test_both_resizers_agree_to_rounding_at_any_ratio(shape: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow's resizing")
    from palette_jax.data import images

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = images.center_square(tf.constant(picture), 256).numpy()
    got = resize.center_square(picture, 256)
    difference = np.abs(got.astype(int) - expected)
    # TensorFlow reads the bicubic curve from a table of 1024 places.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (30, 60), (60, 30)])
def test_one_side_may_shrink_and_the_other_grow(shape: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow's resizing")
    from palette_jax.data import images

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = images.resize(tf.constant(picture), 30, 30).numpy()
    difference = np.abs(resize.resize(picture, 30, 30).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.1


def test_area_is_the_integral_over_each_new_pixel() -> None:
    # A ramp is the same after averaging: the mean over a new pixel is its middle.
    ramp = np.repeat(np.arange(0, 250, dtype=np.uint8)[:, None, None], 3, 2)
    small = resize.resize(np.repeat(ramp, 250, 1), 101, 101)[:, 0, 0]
    middles = (np.arange(101) + 0.5) * 250 / 101 - 0.5
    np.testing.assert_allclose(small, middles, atol=0.5)


def test_a_picture_of_the_right_size_is_kept_to_the_bit() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize.resize(picture, 8, 9), picture)


@pytest.mark.parametrize("shape", [(300, 300), (375, 641), (500, 257), (100, 140)])
def test_torchvisions_square_is_pillows_and_the_graphs(shape: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow's resizing")
    from palette_jax.data import images

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    got = resize.torchvision_square(picture, 128)
    assert got.shape == (128, 128, 3)
    graph = images.torchvision_square(tf.constant(picture), 128).numpy()
    # Pillow rounds between the axes too.
    difference = np.abs(got.astype(int) - graph)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.2
    # The long side grows with the short one, and its middle is kept.
    height, width = shape
    scale = 128 / min(shape)
    whole = Image.fromarray(picture).resize(
        (int(width * scale), int(height * scale)), Image.Resampling.BILINEAR
    )
    top, left = round((whole.height - 128) / 2), round((whole.width - 128) / 2)
    expected = whole.crop((left, top, left + 128, top + 128))
    np.testing.assert_array_equal(got, expected)
