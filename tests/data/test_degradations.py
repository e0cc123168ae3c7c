"""What time does to a photograph, step by step: each step's own law."""

import numpy as np
import pytest
import tensorflow as tf

from palette_jax.data import degradations

SIZE = 32


def _seeds(count: int) -> list[tf.Tensor]:
    return [tf.constant([i, 7]) for i in range(count)]


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(60, 200, (SIZE, SIZE, 3)).astype(np.float32)


def _flat(value: float = 120.0) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), value, np.float32)


def test_a_blur_keeps_flat_pictures_and_means_and_knows_no_direction() -> None:
    picture = _picture()
    for seed in _seeds(6):
        flat = degradations._blur(seed, tf.constant(_flat())).numpy()
        np.testing.assert_allclose(flat, 120, atol=1e-3)
        blurred = degradations._blur(seed, tf.constant(picture)).numpy()
        turned = degradations._blur(seed, tf.constant(picture.swapaxes(0, 1)))
        np.testing.assert_allclose(turned.numpy().swapaxes(0, 1), blurred, atol=1e-3)
        assert abs(blurred.mean() - picture.mean()) < 1
        for axis in (0, 1):
            rough = np.abs(np.diff(picture, axis=axis)).mean()
            assert np.abs(np.diff(blurred, axis=axis)).mean() < 0.95 * rough


def test_grain_has_no_mean_and_is_in_part_the_same_in_all_channels() -> None:
    alike = []
    for seed in _seeds(12):
        noise = degradations._grain(seed, tf.constant(_flat())).numpy() - 120
        flat = noise.reshape(-1, 3)
        deviation = flat.std()
        assert 0 < deviation < 40
        assert abs(flat.mean()) < 5 * deviation / np.sqrt(len(flat))
        alike.append(np.corrcoef(flat.T)[0, 1])
    # From noise that is gray to noise of each channel's own.
    assert max(alike) > 0.9 and min(alike) < 0.4


def test_fading_takes_contrast_and_keeps_the_order_of_grays() -> None:
    grays = np.repeat(np.linspace(0, 255, SIZE)[:, None, None], 3, -1)
    picture = np.broadcast_to(grays, (SIZE, SIZE, 3)).astype(np.float32)
    for seed in _seeds(12):
        faded = degradations._fade(seed, tf.constant(picture)).numpy()
        steps = np.diff(faded[:, 0], axis=0)
        assert (steps > 0).all() and (steps <= 255 / (SIZE - 1) + 1e-3).all()
        red, _, blue = faded.mean((0, 1))
        assert red >= blue  # Old paper is warm.


def test_fading_takes_colour_apart_from_contrast() -> None:
    # Two grays, and a colour around the first of them.
    picture = np.full((SIZE, SIZE, 3), 90.0, np.float32)
    picture[1], picture[2] = 150.0, [110.0, 90.0, 70.0]
    kept = []
    for seed in _seeds(60):
        faded = degradations._fade(seed, tf.constant(picture)).numpy()[:, 0]
        contrast = (faded[1] - faded[0]).mean() / 60
        kept.append((contrast, (faded[2] - faded[0])[0] / 20 / contrast))
    contrast, colour = np.transpose(kept)
    assert 0.4 <= contrast.min() < 0.5 and 0.9 < contrast.max() <= 1
    assert 0 <= colour.min() < 0.1 and 0.9 < colour.max() <= 1.001
    assert abs(np.corrcoef(contrast, colour)[0, 1]) < 0.5  # Four deviations.


def test_scratches_are_thin_and_lie_between_the_picture_and_their_shade() -> None:
    shares, extremes = [], []
    for seed in _seeds(12):
        scratched = degradations._scratch(seed, tf.constant(_flat())).numpy()
        extremes += [scratched.min(), scratched.max()]
        assert scratched.min() >= 30 and scratched.max() <= 235
        shares.append(np.mean(np.abs(scratched - 120).max(-1) > 1))
    assert 0 < np.mean(shares) < 0.3 and max(shares) < 0.5
    assert min(extremes) < 80 and max(extremes) > 180  # Dark ones and bright ones.


def test_whether_a_step_is_used_says_nothing_of_its_strength(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one seed for both, all strengths would be the lower three quarters."""

    def unchanged(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return image

    def drawn(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        strength = tf.random.stateless_uniform([], seed)
        return tf.zeros_like(image) + 20 + 200 * strength

    picture = tf.constant(np.zeros((8, 8, 3), np.uint8))
    steps = ("_fade", "_blur", "_grain", "_scratch")
    for name in steps:
        for other in steps:
            replaced = drawn if other == name else unchanged
            monkeypatch.setattr(degradations, other, replaced)
        made = [degradations.old_photo(seed, picture) for seed in _seeds(60)]
        means = np.array([image.numpy().mean() for image in made])
        used = means > 10
        assert 0.55 < used.mean() < 0.92  # Three in four, and four deviations.
        assert means[used].max() > 190 and means[used].min() < 60
