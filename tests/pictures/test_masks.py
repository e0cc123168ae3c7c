"""Masks that users draw: any size and mode, and what is said of doubtful ones."""

import io

import numpy as np
import pytest
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files, masks

DRAWN = np.zeros((20, 30), bool)
DRAWN[5:9, 10:25] = True


def _file(image: Image.Image, file_format: str = "PNG") -> files.Photo:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if image.mode in ("I", "F") else file_format)
    return files.read(buffer.getvalue(), name="m")


def _bytes(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def _palette(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(DRAWN.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


_WHITE = np.full((20, 30), 255)
_INK, _SEEN = _WHITE.copy(), DRAWN * 255  # What is not seen is white, too.
_INK[15:], _SEEN[15:] = 0, 255
MODES = {
    "L": _bytes(DRAWN * 255),
    "1": _bytes(DRAWN * 255).convert("1"),
    "P": _bytes(DRAWN * 255).convert("P"),
    "RGB": _bytes(DRAWN * 255).convert("RGB"),
    "LA": _bytes(DRAWN * 255).convert("LA"),
    "white strokes on nothing": _bytes(np.dstack([_WHITE] * 3 + [DRAWN * 255])),
    "white and black strokes on nothing": _bytes(np.dstack([_INK] * 3 + [_SEEN])),
    "I;16": Image.fromarray((DRAWN * 65535).astype(np.uint16)),
    "labels 0 and 1": _bytes(DRAWN * 1),
    "labels 0 and 2": _bytes(DRAWN * 2),
    "labels 1 and 2": _bytes(DRAWN + 1),
    "16 bits, 0 and 1": Image.fromarray(DRAWN.astype(np.uint16)),
    "16 bits, 0 and 300": Image.fromarray((DRAWN * 300).astype(np.uint16)),
    "32 bits, 0 and 1": Image.fromarray(DRAWN.astype(np.int32)),
    "floats, 0 and 1": Image.fromarray(DRAWN.astype(np.float32)),
    "a palette of labels": _palette([(0, 0, 0), (128, 0, 0)]),
    "a palette of two darks": _palette([(10, 10, 10), (0, 90, 0)]),
    "red on black": _bytes(DRAWN[..., None] * np.array([255, 0, 0])),
    "blue on black": _bytes(DRAWN[..., None] * np.array([0, 0, 255])),
    "black on nothing": _bytes(np.dstack([_WHITE * 0] * 3 + [DRAWN * 255])),
    "black on nothing, LA": _bytes(np.dstack([_WHITE * 0, DRAWN * 255])),
    "faint on nothing": _bytes(np.dstack([_WHITE] * 3 + [DRAWN * 100])),
    "faint": _bytes(DRAWN * 200 + 20),
}


@pytest.mark.parametrize("mode", MODES)
def test_white_is_painted_whatever_the_mode(mode: str) -> None:
    hole, _ = masks.to_hole(_file(MODES[mode]), (20, 30, 3))
    np.testing.assert_array_equal(hole[..., 0], DRAWN)
    inverted, _ = masks.to_hole(_file(MODES[mode]), (20, 30, 3), invert=True)
    np.testing.assert_array_equal(inverted, 1 - hole)


def test_a_clear_mask_is_not_commented_on() -> None:
    assert masks.to_hole(_file(MODES["L"]), (20, 30, 3))[1] == []


def test_another_size_is_brought_to_that_of_the_picture() -> None:
    hole, warnings = masks.to_hole(_file(MODES["L"]), (40, 90, 3))
    np.testing.assert_array_equal(hole[..., 0], DRAWN.repeat(2, 0).repeat(3, 1))
    assert len(warnings) == 1 and "got 30 x 20" in warnings[0]


@pytest.mark.parametrize(
    ("image", "invert", "words"),
    [
        (_bytes(DRAWN * 0), False, "covers nothing"),
        (_bytes(_WHITE), False, "covers everything"),
        (_bytes(_WHITE), True, "covers nothing"),
        (_bytes(255 - DRAWN * 255), False, "covers 90% of the picture"),
        (_bytes(np.arange(600).reshape(20, 30) % 256), False, "it has grays"),
    ],
)
def test_a_doubtful_mask_is_warned_of(image, invert: bool, words: str) -> None:
    _, warnings = masks.to_hole(_file(image), (20, 30, 3), invert=invert)
    assert any(words in warning for warning in warnings), warnings


def test_of_many_grays_those_from_the_middle_up_are_painted() -> None:
    grays = np.array([[0, 1, 127, 128, 200, 255]], np.uint8)
    hole, _ = masks.to_hole(_file(_bytes(grays)), (1, 6, 3))
    np.testing.assert_array_equal(hole[..., 0], [[0, 0, 0, 1, 1, 1]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("top", [1, 255])
def test_arrays_of_a_hole_become_0_and_1(dtype: type, top: int) -> None:
    for array in (DRAWN, DRAWN[..., None]):
        hole, warnings = masks.as_hole((array * top).astype(dtype), (20, 30, 3))
        assert hole.dtype == np.uint8 and not warnings
        np.testing.assert_array_equal(hole[..., 0], DRAWN)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (8, 16), (3, 17)])
def test_a_hole_survives_as_text(shape: tuple[int, int]) -> None:
    hole = np.random.default_rng(0).integers(0, 2, (*shape, 1), np.uint8)
    np.testing.assert_array_equal(masks.unpack(masks.pack(hole), shape), hole)
    with pytest.raises(UserError, match="another size"):
        masks.unpack(masks.pack(hole), (shape[0] + 8, shape[1]))


def test_hints_are_true_where_they_are_mostly_opaque() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1, 5, 3))
    alpha = np.array([[0, 1, 127, 128, 255]])
    photo = _file(_bytes(np.dstack([colours, alpha])))
    hints = masks.as_hints(photo, (2, 10, 3))  # Each twice as wide and high.
    np.testing.assert_array_equal(
        hints[..., 3], np.repeat([[0, 0, 0, 255, 255]], 2, 0).repeat(2, 1)
    )
    opaque = colours[:, 3:].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(hints[:, 6:, :3], opaque)


def test_a_jpeg_mask_is_thresholded_and_warned_of() -> None:
    hole, warnings = masks.to_hole(_file(MODES["L"], "JPEG"), (20, 30, 3))
    assert set(np.unique(hole)) == {0, 1}
    assert np.mean(hole[..., 0] != DRAWN) < 0.02
    assert any("JPEG" in warning for warning in warnings)
