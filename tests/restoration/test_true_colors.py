"""Colour hints: what the network is given of them, and how its result follows."""

import numpy as np
import pytest

from palette_jax.restoration import true_colors
from palette_jax.tasks.colorize import luma

SIZE = 64


def _gray(height: int, width: int) -> np.ndarray:
    """Two halves of different grays."""
    gray = np.full((height, width, 3), 180, np.uint8)
    gray[:, width // 2 :] = 60
    return gray


def _hint(height: int, width: int, *places: tuple) -> np.ndarray:
    is_hint = np.zeros((height, width, 1), np.uint8)
    for place in places:
        is_hint[place] = 1
    return is_hint


def test_a_color_spreads_over_its_own_gray_and_not_over_another() -> None:
    picture = _gray(64, 96)
    x, is_hint = picture.copy(), _hint(64, 96, np.s_[30:33, 20:23])
    x[is_hint[..., 0] > 0] = (220, 165, 150)  # Warm, of about the same luma.
    found = true_colors.spread(picture, x, is_hint, SIZE).astype(int)
    warmth = found[..., 0] - found[..., 2]
    assert warmth[31, 21] == pytest.approx(70, abs=3)
    assert (warmth[:, :48] > 60).all()  # Everywhere in its half.
    assert (warmth[:, 48:] < 3).all()
    assert np.abs(luma(found.astype(np.uint8)).astype(int) - luma(picture)).max() <= 1


def test_a_true_guess_is_not_changed() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)
    is_hint = _hint(70, 70, np.s_[3:6, 60:63], np.s_[40:43, 9:12])
    found = true_colors.spread(picture, picture, is_hint, SIZE)
    np.testing.assert_array_equal(found, picture)
    none = _hint(70, 70)
    np.testing.assert_array_equal(
        true_colors.spread(picture, 255 - picture, none, SIZE), picture
    )


def test_two_hints_meet_in_between_and_blocks_leave_no_seam() -> None:
    """On an even gray, seen along a line far longer than a block."""
    picture = np.full((5, 4 * SIZE, 3), 128, np.uint8)
    x, is_hint = picture.copy(), _hint(5, 4 * SIZE, np.s_[:, 30:33], np.s_[:, -33:-30])
    x[:, :128] = (188, 108, 88)
    x[:, 128:] = (68, 148, 168)
    row = true_colors.spread(picture, x, is_hint, SIZE)[2].astype(int)
    assert (row[:50, 0] > 180).all() and (row[-50:, 0] < 75).all()
    assert np.abs(np.diff(row, axis=0)).max() <= 5
    np.testing.assert_allclose(row + row[::-1], 256, atol=2)  # Opposite hints.


@pytest.mark.parametrize("size", [32, 64, 256])
def test_squares_are_those_of_training(size: int) -> None:
    opacity = np.zeros((size, 2 * size), np.uint8)
    opacity[size // 3 :, : size // 2] = 255  # Half of the height is painted over.
    opacity[2, 3:9] = 40  # A line thinner than a pixel of a small copy.
    kept = true_colors.squares(opacity, size)[..., 0]
    assert not kept[opacity == 0].any() and kept[2, 3:9].any()
    side = round(size / 20)
    wider = sum(
        kept[i : size - side + i, j : 2 * size - side + j].astype(int)
        for i in range(side + 1)
        for j in range(side + 1)
    )
    assert wider.max() <= side**2  # No square of another pixel on each side.
    assert kept.sum() <= (1 + 64 * 2 / 2) * side**2


def test_a_square_lies_around_the_most_opaque_pixel_of_its_cell() -> None:
    opacity = np.zeros((SIZE, SIZE), np.uint8)
    opacity[:8, :8] = 200  # A cell of a network of 64 pixels, whose squares have 3.
    opacity[4, 2] = 255
    kept = true_colors.squares(opacity, SIZE)[..., 0]
    wanted = np.zeros_like(kept)
    wanted[3:6, 1:4] = 1
    np.testing.assert_array_equal(kept, wanted)
