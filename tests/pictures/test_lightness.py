"""L* of Lab is that of other implementations, to rounding."""

import numpy as np
import pytest

from palette_jax.pictures.lightness import lightness


def _colours() -> np.ndarray:
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, -1)
    drawn = np.random.default_rng(0).integers(0, 256, (20_000, 3), np.uint8)
    return np.concatenate([grays, drawn])[None]


def test_it_is_that_of_scikit_image_as_a_byte() -> None:
    color = pytest.importorskip("skimage.color", reason="expected scikit-image")
    exact = color.rgb2lab(_colours())[..., 0] * 255 / 100
    ours = lightness(_colours())[..., 0]
    # Half a byte of rounding, and the digits of the white point.
    assert np.abs(ours - exact).max() < 0.53


def test_black_white_and_the_middle_gray() -> None:
    picture = np.array([[[0] * 3, [128] * 3, [255] * 3]], np.uint8)
    assert lightness(picture).ravel().tolist() == [0, 137, 255]
