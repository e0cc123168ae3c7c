"""SSIM against scikit-image's, MS-SSIM against TensorFlow's, and what it means."""

import numpy as np
import pytest
import skimage.data
from skimage.metrics import structural_similarity

from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics import lpips, structure
from palette_jax.evaluation.metrics.extractor import Extractor


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Three crops of a photograph, and what noise has made of them."""
    photo = skimage.data.astronaut()
    y = np.stack([photo[i : i + height, i : i + width] for i in (0, 60, 200)])
    rng = np.random.default_rng(0)
    noise = rng.normal(size=y.shape) * np.array([3, 20, 80]).reshape(3, 1, 1, 1)
    return np.clip(y + noise, 0, 255).astype(np.uint8), y


@pytest.mark.parametrize("size", [(64, 41), (11, 12)])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    x, y = pair(*size)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(a, b, data_range=255, channel_axis=-1, **options)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(structure.ssim(x, y), expected, rtol=1e-4)


@pytest.mark.parametrize("size", [(176, 176), (165, 163)])
def test_ms_ssim_is_that_of_tensorflow(size: tuple[int, int]) -> None:
    import tensorflow as tf

    x, y = pair(*size)
    expected = tf.image.ssim_multiscale(x, y, 255).numpy()
    assert structure.num_scales(*size) == 5
    np.testing.assert_allclose(structure.ms_ssim(x, y), expected, rtol=1e-4)


def test_with_fewer_scales_it_is_tensorflows_with_their_weights() -> None:
    import tensorflow as tf

    x, y = pair(64, 64)
    weights = np.array([0.0448, 0.2856, 0.3001])
    weights = weights / weights.sum()
    expected = tf.image.ssim_multiscale(x, y, 255, power_factors=weights).numpy()
    assert structure.num_scales(64, 64) == 3
    np.testing.assert_allclose(structure.ms_ssim(x, y), expected, rtol=1e-4)


def test_one_scale_is_ssim_and_smaller_pictures_are_refused() -> None:
    x, y = pair(20, 30)
    np.testing.assert_allclose(structure.ms_ssim(x, y), structure.ssim(x, y), rtol=1e-6)
    sizes = {11: 1, 20: 1, 21: 2, 41: 3, 81: 4, 160: 4, 161: 5, 4096: 5}
    assert {s: structure.num_scales(s, 5000) for s in sizes} == sizes
    with pytest.raises(MetricError, match=r"11 pixels or more.*got 10 x 30"):
        structure.num_scales(10, 30)


def test_equal_pictures_have_a_similarity_of_one_in_any_light() -> None:
    _, y = pair(64, 41)
    dark, light = y // 16, 255 - y // 16
    for picture in (y, dark, light, np.zeros_like(y), np.full_like(y, 255)):
        np.testing.assert_allclose(structure.ssim(picture, picture), 1, rtol=1e-6)
        np.testing.assert_allclose(structure.ms_ssim(picture, picture), 1, rtol=1e-6)


def _distance_of_means() -> Extractor:
    return Extractor(
        lambda pictures: pictures.astype(np.float32),
        lambda _, x, y: {"lpips": abs(x.mean((1, 2, 3)) - y.mean((1, 2, 3)))},
        {},
        sha256="",
        outputs=("lpips",),
        batch_size=3,
    )


def test_diversity_compares_the_pairs_that_the_paper_compares() -> None:
    levels = np.array([[10, 50], [20, 50], [60, 50], [61, 90]], np.uint8)
    samples = np.tile(levels[:, :, None, None, None], (1, 1, 16, 16, 3))
    got = lpips.of_consecutive(samples, _distance_of_means())
    np.testing.assert_allclose(got, [(10 + 40 + 1) / 3, 40 / 3], rtol=1e-6)
    x, y = pair(32, 32)
    got = structure.ms_ssim_to_first(np.stack([x, y, x]))
    np.testing.assert_allclose(got, (structure.ms_ssim(x, y) + 1) / 2, rtol=1e-6)
