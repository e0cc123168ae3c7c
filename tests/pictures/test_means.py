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


def test_what_leaves_the_range_of_bytes_is_clipped_and_the_rest_rounded() -> None:
    details = np.tile(np.array([[60, -60], [-60, 60]])[..., None], (16, 24, 3))
    picture, given = (128 + details).astype(np.uint8), np.full((32, 48, 3), 250)
    wanted = np.clip(250 + details, 0, 255)
    np.testing.assert_array_equal(
        with_means(picture, given.astype(np.uint8), 16), wanted
    )
    # Brighter by 1 but for a pixel of each square: by 0.94 in the mean.
    brighter = np.where(np.arange(32)[:, None, None] % 4 > 0, 129, 128)
    given = np.where(np.arange(48)[None, :, None] % 4 > 0, 129, brighter)
    given = np.repeat(given, 3, -1).astype(np.uint8)
    even = np.full_like(given, 128)
    np.testing.assert_array_equal(with_means(even, given, 4), even + 1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (37, 3)])
def test_pictures_smaller_than_a_square_keep_their_mean(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    given, picture = rng.integers(100, 150, (2, *shape, 3), np.uint8)
    found = with_means(picture, given, 16)
    assert found.shape == picture.shape
    means = (a.mean((0, 1)) for a in (found, given))
    np.testing.assert_allclose(*means, atol=2.5)
