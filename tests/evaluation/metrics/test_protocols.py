"""What the networks see under each protocol, against independent resizers."""

import jax
import numpy as np
import pytest
from PIL import Image

from palette_jax.evaluation.metrics import inception, resnet

_MEAN = np.array([0.485, 0.456, 0.406])
_DEVIATION = np.array([0.229, 0.224, 0.225])


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_clean_fid_sees_pillows_bicubic_in_floats(side: int) -> None:
    pixels = picture(side, side + 30)
    channels = [
        np.asarray(
            Image.fromarray(pixels[..., c].astype(np.float32)).resize(
                (299, 299), Image.Resampling.BICUBIC
            )
        )
        for c in range(3)
    ]
    expected = (np.stack(channels, -1) - 128) / 128
    got = jax.jit(inception.prepare_clean)(pixels[None])[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_classifier_of_i2sb_sees_the_whole_picture() -> None:
    pixels = picture(256, 240)
    got = np.asarray(jax.jit(resnet.prepare_whole)(pixels[None])[0])
    got = got * _DEVIATION + _MEAN
    rng = np.random.default_rng(1)
    for row, column in [*rng.integers(0, 224, (20, 2)).tolist(), [0, 0], [223, 223]]:
        expected = _cubic_at(
            pixels / 255, (row + 0.5) * 256 / 224, (column + 0.5) * 240 / 224
        )
        np.testing.assert_allclose(got[row, column], expected, atol=1e-4)


def _cubic_at(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """PyTorch's definition, one pixel at a time: 16 neighbours, the border repeats."""

    def weight(distance: float) -> float:
        t, a = abs(distance), -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    total = np.zeros(3)
    y, x = down - 0.5, right - 0.5
    for i in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            inside = (
                min(max(i, 0), image.shape[0] - 1),
                min(max(j, 0), image.shape[1] - 1),
            )
            total += weight(y - i) * weight(x - j) * image[inside]
    return total


def test_a_border_is_seen_by_i2sbs_classifier_and_not_by_torchvisions() -> None:
    inner = np.full((1, 256, 256, 3), 100, np.uint8)
    framed = inner.copy()
    framed[:, :8] = 255
    central, whole = jax.jit(resnet.prepare), jax.jit(resnet.prepare_whole)
    assert np.array_equal(central(framed), central(inner))
    assert not np.allclose(whole(framed), whole(inner))
