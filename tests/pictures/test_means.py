"""A result's smooth part is the given picture's, its details are its own."""

import numpy as np
import pytest
import skimage.data

from palette_jax.pictures.means import with_means

PHOTO = skimage.data.astronaut()[:96, :128]


def test_what_is_given_stays() -> None:
    np.testing.assert_array_equal(with_means(PHOTO, PHOTO, 16), PHOTO)


def test_a_wrong_colour_goes() -> None:
    """However strong, if it is the same over the picture, and nothing is clipped."""
    gray = np.clip(PHOTO, 90, 160)
    blue = (gray.astype(int) + np.array([-40, 10, 80])).astype(np.uint8)
    np.testing.assert_array_equal(with_means(blue, gray, 16), gray)


@pytest.mark.parametrize("side", [4, 16])
def test_details_stay(side: int) -> None:
    """Those whose mean is 0 over each square."""
    rng = np.random.default_rng(0)
    given = np.full((64, 96, 3), 128, np.uint8)
    squares = rng.integers(-60, 60, (64 // side, side, 96 // side, side, 3))
    squares[:, 1::2] = -squares[:, ::2]
    picture = (128 + squares.reshape(given.shape)).astype(np.uint8)
    np.testing.assert_array_equal(with_means(picture, given, side), picture)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (37, 3)])
def test_pictures_smaller_than_a_square_keep_their_mean(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    given, picture = rng.integers(100, 150, (2, *shape, 3), np.uint8)
    found = with_means(picture, given, 16)
    assert found.shape == picture.shape
    means = (a.mean((0, 1)) for a in (found, given))
    np.testing.assert_allclose(*means, atol=2.5)
