"""Which part of a picture is worked on, and that it is pasted back where it was."""

import numpy as np
import pytest

from palette_jax.errors import UserError
from palette_jax.restoration import canvas
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Degraded, UserInputs, inpaint

SIZE = 16


def _degraded(height: int, width: int, hole: tuple[slice, slice]) -> Degraded:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width, 1), np.uint8)
    mask[hole] = 1
    return inpaint.degrade(picture, UserInputs(mask))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (200, 300), (393, 593), (5, 400)])
def test_only_the_surroundings_of_a_hole_are_worked_on(top: int, left: int) -> None:
    degraded = _degraded(400, 600, np.s_[top : top + 7, left : left + 6])
    prepared = canvas.prepare(degraded, SIZE)
    assert prepared.x.shape == (SIZE, SIZE, 3) and len(prepared.tiles) == 1
    first_row, last_row, first_column, last_column = prepared.box
    margins = (top - first_row, left - first_column)
    margins += (last_row - top - 7, last_column - left - 6)
    # A margin at every side, but for those where the picture ends.
    assert min(margins) >= 4 or not (0 < top < 393 and 0 < left < 593)
    sampled = np.full_like(prepared.x, 9)
    wanted = np.where(degraded.hole > 0, 9, degraded.x)
    np.testing.assert_array_equal(canvas.paste(prepared, sampled), wanted)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (200, 300), (393, 594), (5, 400)])
def test_what_surrounds_a_small_hole_is_the_picture_and_no_mirror(top, left) -> None:
    degraded = _degraded(400, 600, np.s_[top : top + 7, left : left + 6])
    prepared = canvas.prepare(degraded, SIZE)
    first_row, last_row, first_column, last_column = prepared.box
    assert prepared.offset == (0, 0) and prepared.small == (SIZE, SIZE)
    here = np.s_[first_row:last_row, first_column:last_column]
    np.testing.assert_array_equal(prepared.x, degraded.x[here])
    np.testing.assert_array_equal(prepared.hole, degraded.hole[here])


def test_a_large_hole_keeps_a_quarter_of_a_tile_on_each_side() -> None:
    degraded = _degraded(400, 600, np.s_[100:150, 200:290])
    prepared = canvas.prepare(degraded, SIZE)
    assert prepared.box == (100 - 4, 150 + 4, 200 - 4, 290 + 4)


def test_a_hole_is_wide_if_it_holds_a_square_wider_than_half_of_the_network() -> None:
    """By looking at each square, of holes of many forms."""
    rng = np.random.default_rng(0)
    side, found = SIZE // 2 + 1, []
    for height, width in rng.integers(5, 40, (60, 2)):
        hole = np.zeros((height, width, 1), np.uint8)
        for _ in range(2):
            top, left = rng.integers(0, (height, width))
            rows, columns = rng.integers(4, 20, 2)
            hole[top : top + rows, left : left + columns] = 1
        squares = [
            hole[top : top + side, left : left + side].all()
            for top in range(height - side + 1)
            for left in range(width - side + 1)
        ]
        x = np.zeros((height, width, 3), np.uint8)
        large, _ = canvas.choose(Degraded(x, hole), Settings("inpaint"), SIZE)
        assert large == ("shrink" if any(squares) else "tiles")
        found.append(large)
    assert 10 < found.count("shrink") < 50


def test_the_part_is_enlarged_smoothly() -> None:
    degraded = _degraded(96, 64, np.s_[0:0, 0:0])
    prepared = canvas.prepare(degraded, SIZE, large="shrink")
    assert prepared.small == (24, 16)
    ramp = np.zeros_like(prepared.x)
    ramp[:24] = 8 * np.arange(24, dtype=np.uint8)[:, None, None]
    picture = canvas.paste(prepared, ramp)[:, 5, 0]
    # Four rows for each; a curve through them is the line, but for its ends.
    middles = 8 * ((np.arange(96) + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(picture[8:-8], middles[8:-8], atol=1)


def test_a_wide_hole_is_shrunk_with_as_much_around_it() -> None:
    degraded = _degraded(400, 600, np.s_[100:180, 200:280])
    prepared = canvas.prepare(degraded, SIZE, large="shrink")
    top, bottom, left, right = prepared.box
    assert (top, bottom, left, right) == (60, 220, 160, 320)
    assert prepared.is_shrunk and prepared.small == (SIZE, SIZE)
    # Half of each side: a quarter of the small picture is painted.
    assert prepared.hole.mean() == pytest.approx(1 / 4)
    sampled = np.full_like(prepared.x, 9)
    picture = canvas.paste(prepared, sampled)
    known = degraded.hole[..., 0] == 0
    np.testing.assert_array_equal(picture[known], degraded.x[known])
    assert (picture[~known] == 9).all()


def test_single_pixels_of_a_hole_are_painted_though_the_picture_is_shrunk() -> None:
    """A small pixel with any share of the hole has no colour of its own."""
    degraded = _degraded(64, 64, np.s_[3:60:9, 3:60:7])
    prepared = canvas.prepare(degraded, SIZE, large="shrink")
    top, bottom, left, right = prepared.box
    small = prepared.hole[: prepared.small[0], : prepared.small[1], 0]
    rows, columns = np.nonzero(degraded.hole[top:bottom, left:right, 0])
    across = rows * small.shape[0] // (bottom - top)
    down = columns * small.shape[1] // (right - left)
    assert prepared.is_shrunk and small[across, down].all()


def test_a_picture_smaller_than_the_network_is_mirrored_at_its_ends() -> None:
    degraded = _degraded(6, 9, np.s_[0:0, 0:0])
    prepared = canvas.prepare(degraded, SIZE)
    top, left = prepared.offset
    wanted = np.pad(
        degraded.x,
        ((top, SIZE - 6 - top), (left, SIZE - 9 - left), (0, 0)),
        mode="symmetric",
    )
    np.testing.assert_array_equal(prepared.x, wanted)


def test_the_mirror_image_of_a_hole_is_a_hole() -> None:
    """Otherwise its black would be a known colour."""
    degraded = _degraded(6, 9, np.s_[0:3, 7:9])
    prepared = canvas.prepare(degraded, SIZE)
    black = ~prepared.x.any(-1)
    assert black.sum() > 6 and degraded.x[degraded.hole[..., 0] == 0].any(-1).all()
    np.testing.assert_array_equal(prepared.hole[..., 0] > 0, black)


def test_whole_pictures_are_worked_on_as_a_whole() -> None:
    picture = np.zeros((40, 50, 3), np.uint8)
    degraded = Degraded(picture, np.zeros((40, 50, 1), np.uint8))
    prepared = canvas.prepare(degraded, SIZE)
    assert prepared.box == (0, 40, 0, 50) and not prepared.is_shrunk
    assert len(prepared.tiles) == 3 * 4  # Every 12 pixels at most: a quarter shared.


def test_strips_and_tiles_are_limited() -> None:
    # A row of 10 million pixels has as many as a square, and needs 16 times as many.
    strip = Degraded(
        np.zeros((1, 10_000_000, 3), np.uint8), np.zeros((1, 10_000_000, 1), np.uint8)
    )
    for large in ("tiles", "shrink"):
        with pytest.raises(
            UserError, match=r"at most 100,000,000 pixels .* got 160,000"
        ):
            canvas.prepare(strip, SIZE, large=large)
    # A hole in it is worked on alone.
    hole = strip.hole.copy()
    hole[:, 5_000_000:5_000_009] = 1
    assert canvas.prepare(strip._replace(hole=hole), SIZE).x.shape[0] == SIZE
    # Every 12 pixels: 4 x 9 tiles.
    whole = Degraded(np.zeros((52, 112, 3), np.uint8), np.zeros((52, 112, 1), np.uint8))
    assert len(canvas.prepare(whole, SIZE, max_tiles=36).tiles) == 36
    with pytest.raises(UserError, match=r"at most 35 tiles .* got 36 .*--large=shrink"):
        canvas.prepare(whole, SIZE, max_tiles=35)
    assert canvas.prepare(whole, SIZE, max_tiles=35, large="shrink").is_shrunk


def test_a_shrunk_picture_is_the_mean_of_its_squares_in_its_own_shape() -> None:
    degraded = _degraded(64, 96, np.s_[0:0, 0:0])
    prepared = canvas.prepare(degraded, SIZE, large="shrink")
    assert prepared.small == (16, 24)
    means = degraded.x.reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(prepared.x[:16, :24] - means).max() <= 1  # Rounded along each axis.


@pytest.mark.parametrize(("stroke", "large"), [(0.5, "tiles"), (0.1, "shrink")])
def test_wide_strokes_of_hints_become_small_squares(stroke: float, large) -> None:
    """As those of training: a network of 64 knows squares of up to 3 pixels."""
    size, height, width = 64, 200, 260
    degraded = _degraded(height, width, np.s_[0:0, 0:0])
    hints = np.zeros((height, width, 4), np.uint8)
    side = round(stroke * height)
    hints[5 : 5 + side, 9 : 9 + side] = (200, 30, 40, 255)
    hints[150, 100:240] = (20, 60, 200, 255)  # Thinner than a pixel of a small copy.
    prepared = canvas.prepare(degraded, size, hints=hints, large=large)
    is_hint = prepared.hints[..., 0] > 0
    inside = sum(
        is_hint[i : len(is_hint) - 3 + i, j : is_hint.shape[1] - 3 + j].astype(int)
        for i in range(4)
        for j in range(4)
    )
    assert inside.max() <= 9 and is_hint.mean() < 9 / 64 + 0.02
    strokes = np.array([(200, 30, 40), (20, 60, 200)])
    off = np.abs(prepared.x[is_hint][:, None].astype(int) - strokes).max(-1)
    assert (off.min(1) <= 2).all() and (off.min(0) <= 2).all()  # By their opacity.
    factor = prepared.small[0] / height
    columns = np.nonzero(is_hint)[1]
    for left in range(100, 240 - 8, 8):  # All along both.
        assert (abs(columns - left * factor) <= 8).any()
    without = canvas.prepare(degraded, size, large=large)
    np.testing.assert_array_equal(prepared.x[~is_hint], without.x[~is_hint])
    assert not without.hints.any()
