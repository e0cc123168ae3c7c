"""PSNR against scikit-image's, and the estimate that needs no model."""

import numpy as np
import pytest
import skimage.data
from skimage.metrics import peak_signal_noise_ratio

from palette_jax.evaluation.metrics import distortion


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Three crops of a photograph, and what noise has made of them."""
    photo = skimage.data.astronaut()
    y = np.stack([photo[i : i + 24, i : i + 32] for i in (0, 60, 200)])
    rng = np.random.default_rng(0)
    noise = rng.normal(size=y.shape) * np.array([2, 10, 60]).reshape(3, 1, 1, 1)
    return np.clip(y + noise, 0, 255).astype(np.uint8), y


def test_without_a_hole_it_is_the_usual_one_of_each_picture(pictures) -> None:
    estimate, y = pictures
    got = distortion.psnr(estimate, y, np.ones((3, 24, 32, 1), np.uint8))
    expected = [
        peak_signal_noise_ratio(a, b, data_range=255)
        for a, b in zip(y, estimate, strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert got[0] > got[1] > got[2]


def test_only_the_mask_counts(pictures) -> None:
    estimate, y = pictures
    mask = np.zeros((3, 24, 32, 1), np.uint8)
    mask[:, 5:15, 7:30] = 1
    got = distortion.psnr(estimate, y, mask)
    expected = [
        peak_signal_noise_ratio(a[5:15, 7:30], b[5:15, 7:30], data_range=255)
        for a, b in zip(y, estimate, strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    outside = np.where(mask, estimate, 255 - estimate)
    np.testing.assert_array_equal(got, distortion.psnr(outside, y, mask))


def test_a_mean_of_samples_is_judged_before_it_is_rounded() -> None:
    y = np.full((1, 4, 4, 3), 100, np.uint8)
    mask = np.ones((1, 4, 4, 1), np.uint8)
    (got,) = distortion.psnr(np.full(y.shape, 100.25), y, mask)
    assert got == pytest.approx(20 * np.log10(255 / 0.25))


def test_one_equal_picture_does_not_make_the_mean_infinite(pictures) -> None:
    estimate, y = pictures
    got = distortion.psnr(np.stack([y[0], *estimate[1:]]), y, np.ones_like(y[..., :1]))
    assert got[0] == 100 and np.isfinite(got).all()


def test_the_trivial_estimate_is_the_mean_of_the_known_pixels(pictures) -> None:
    _, y = pictures
    hole = np.zeros((3, 24, 32, 1), np.uint8)
    hole[0, :, 16:] = 1
    hole[1, 3:9, 4:20] = 1
    x = np.where(hole, 77, y)  # What stands in the hole is nothing that is known.
    got = distortion.trivial_estimate(x, hole)
    for i in range(3):
        missing = hole[i, ..., 0] > 0
        np.testing.assert_array_equal(got[i][~missing], x[i][~missing])
        if missing.any():
            mean = y[i][~missing].mean(0)
            np.testing.assert_allclose(got[i][missing] - mean, 0, atol=1e-9)
