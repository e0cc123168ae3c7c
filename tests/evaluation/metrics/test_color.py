"""Measures of colour on pictures whose colour is known."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from palette_jax.evaluation.metrics import color
from palette_jax.evaluation.metrics.pictures import is_gray


def filled(*rgb: int) -> np.ndarray:
    return np.tile(np.array(rgb, np.uint8), (1, 4, 4, 1))


def test_gray_pictures_have_no_colour() -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) * 17
    gray = np.concatenate([np.tile(ramp, (1, 1, 1, 3)), filled(0, 0, 0)])
    np.testing.assert_array_equal(color.colorfulness(gray), 0)
    np.testing.assert_allclose(color.mean_ab(gray), 0, atol=0.01)
    np.testing.assert_array_equal(is_gray(gray), True)
    almost = gray.copy()
    almost[:, 2, 3, 1] ^= 1
    np.testing.assert_array_equal(is_gray(almost), False)


def test_colorfulness_is_that_of_the_publication() -> None:
    # One colour has no deviation: red is 255 and 127.5 along both axes.
    (got,) = color.colorfulness(filled(255, 0, 0))
    assert got == pytest.approx(0.3 * np.hypot(255, 127.5))
    # Half of the pixels are red, half blue: rg is 255 or 0, yb 127.5 or -255.
    half = np.concatenate([filled(255, 0, 0), filled(0, 0, 255)], 1)
    (got,) = color.colorfulness(half)
    expected = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75)
    assert got == pytest.approx(expected)


def test_casts_show_in_lab() -> None:
    pictures = [(200, 100, 100), (100, 200, 100), (200, 200, 100), (100, 100, 200)]
    ab = color.mean_ab(np.concatenate([filled(*rgb) for rgb in pictures]))
    assert ab[0, 0] > 20 and ab[1, 0] < -20 and ab[2, 1] > 20 and ab[3, 1] < -20
    # The known values of the primary colour of sRGB under D65.
    np.testing.assert_allclose(
        color.mean_ab(filled(255, 0, 0)), [[80.1, 67.2]], atol=0.1
    )


def test_a_faded_photograph_has_less_colour() -> None:
    photo = Image.fromarray(skimage.data.coffee()).resize((60, 40))
    gray = np.asarray(photo.convert("L").convert("RGB"), np.float64)
    shares = (0, 0.3, 0.6, 1)
    faded = np.stack([gray + share * (np.asarray(photo) - gray) for share in shares])
    colorfulness = color.colorfulness(faded.round().astype(np.uint8))
    assert (np.diff(colorfulness) > 0).all()
