"""Contact sheets: what lies where, and files that are whole or not there."""

import pathlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from palette_jax.pictures import sheets


def _batch(count: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, count, side, side, 3), dtype=np.uint8)
    hole = np.zeros((count, side, side, 1), np.uint8)
    hole[:, :, side // 2 :] = 1
    return {"x": x, "y": y, "hole": hole}


@pytest.mark.parametrize(
    ("side", "enlarged"), [(8, 96), (40, 120), (96, 96), (128, 128)]
)
def test_every_picture_is_where_the_titles_say(side: int, enlarged: int) -> None:
    batch = _batch(3, side)
    samples = np.random.default_rng(1).integers(0, 256, (2, 3, side, side, 3), np.uint8)
    sheet = sheets.contact_sheet(sheets.rows(batch, samples))
    assert sheet.dtype == np.uint8
    assert sheet.shape == (sheets.HEAD + 3 * enlarged + 4, 4 * enlarged + 6, 3)
    scale = enlarged // side
    given = np.where(batch["hole"], 128, batch["x"])
    for row in range(3):
        for column, picture in enumerate((given, *samples, batch["y"])):
            top, left = sheets.HEAD + row * (enlarged + 2), column * (enlarged + 2)
            found = sheet[top : top + enlarged, left : left + enlarged]
            np.testing.assert_array_equal(found[::scale, ::scale], picture[row])
            # Enlarged without smoothing: each pixel is a square of one colour.
            squares = picture[row].repeat(scale, 0).repeat(scale, 1)
            np.testing.assert_array_equal(found, squares)


def test_the_deviation_of_samples_stands_before_the_original() -> None:
    batch, rng = _batch(2, 96), np.random.default_rng(1)
    samples = rng.integers(0, 256, (3, 2, 96, 96, 3), np.uint8)
    samples[:, 0, :, 48:] = samples[0, 0, :, 48:]  # One half is the same in all.
    rows = sheets.rows(batch, samples, with_deviation=True)
    sheet = sheets.contact_sheet(rows, with_deviation=True)
    assert sheet.shape[1] == 6 * 96 + 5 * 2
    pixels = np.float64(samples[:, 1])
    spread = np.sqrt(((pixels - pixels.mean(0)) ** 2).mean(0)).mean(-1)
    drawn = sheet[sheets.HEAD + 98 :, 4 * 98 : 4 * 98 + 96]
    expected = np.minimum(4 * spread, 255)[..., None].repeat(3, -1)
    np.testing.assert_allclose(drawn, expected, atol=0.51)
    first = sheet[sheets.HEAD : sheets.HEAD + 96, 4 * 98 : 4 * 98 + 96]
    assert not first[:, 48:].any() and first[:, :48].mean() > 100
    np.testing.assert_array_equal(sheet[sheets.HEAD + 98 :, -96:], batch["y"][1])


def test_each_column_has_a_title_of_its_own() -> None:
    batch = _batch(1, 96)
    for count in (1, 3):
        samples = np.zeros((count, 1, 96, 96, 3), np.uint8)
        head = sheets.contact_sheet(sheets.rows(batch, samples))[: sheets.HEAD]
        titles = [head[:, i * 98 : i * 98 + 96] for i in range(count + 2)]
        for title in titles:
            dark = np.flatnonzero((title < 128).any((0, 2)))
            assert len(dark) and abs(dark.mean() - 48) < 8, "not in the middle"
            assert not (title[[0, -1]] < 128).any(), "cut off"
        assert len({title.tobytes() for title in titles}) == count + 2


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    tmp_path: pathlib.Path,
) -> None:
    path = epath.Path(tmp_path) / "deep" / "a.png"
    image = np.full((4, 5, 3), 7, np.uint8)
    sheets.save_png(path, image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    with pytest.raises((TypeError, ValueError)):
        sheets.save_png(path, np.zeros((4, 5, 7), np.float64))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
