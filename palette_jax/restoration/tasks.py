"""The tasks for a user's own picture; twins of those in `palette_jax.data.tasks`.

Each makes `x` and `hole` from a picture that has no clean version to compare with.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError
from palette_jax.pictures.files import MAX_PIXELS
from palette_jax.restoration.settings import Settings, Sides


class Degraded(NamedTuple):
    """What the model is given, and where it paints."""

    x: UInt8[np.ndarray, "h w 3"]
    hole: UInt8[np.ndarray, "h w 1"]  # 1 where `x` has no picture.


def degrade(
    picture: UInt8[np.ndarray, "h w 3"],
    settings: Settings,
    *,
    hole: UInt8[np.ndarray, "h w 1"] | None = None,
) -> Degraded:
    """Returns what the model is given to carry out the settings.

    Raises:
      UserError: if `inpaint` has no hole, or another task has one, or an extended
        picture would be too large.
    """
    check_size(picture.shape, settings)
    if settings.task == "inpaint":
        if hole is None:
            raise UserError("expected a mask with task inpaint, got none")
        return inpaint(picture, hole)
    if hole is not None:
        raise UserError(
            f"expected a mask with task inpaint alone, got one with {settings.task};"
            " leave it out"
        )
    if settings.task == "colorize":
        return _whole(np.repeat(luma(picture), 3, -1))
    if settings.task == "uncrop":
        return uncrop(picture, settings.extend)
    return _whole(picture)  # jpeg and paired: the picture as it is.


def check_size(shape: tuple[int, ...], settings: Settings) -> None:
    """Raises `UserError` if a picture would be too large after its extension."""
    if settings.task != "uncrop":
        return
    rows, columns = margins(shape, settings.extend)
    height, width = shape[0] + sum(rows), shape[1] + sum(columns)
    if height * width > MAX_PIXELS:
        raise UserError(
            f"expected at most {MAX_PIXELS:,} pixels with what is added, got {width} x"
            f" {height} = {width * height:,}; extend it less, or make it smaller"
        )


def luma(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
    """Returns the luma, in the fixed-point numbers of Pillow's convert("L")."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    total = 19595 * red + 38470 * green + 7471 * blue + 0x8000
    return (total >> 16).astype(np.uint8)[..., None]


def inpaint(
    picture: UInt8[np.ndarray, "h w 3"], hole: UInt8[np.ndarray, "h w 1"]
) -> Degraded:
    """Returns the picture with its hole cut out."""
    return Degraded(np.where(hole > 0, 0, picture).astype(np.uint8), hole)


def uncrop(picture: UInt8[np.ndarray, "h w 3"], extend: Sides) -> Degraded:
    """Returns the picture on a larger canvas, and the canvas around it as the hole."""
    (top, bottom), (left, right) = margins(picture.shape[:2], extend)
    edges = ((top, bottom), (left, right), (0, 0))
    hole = np.zeros((*picture.shape[:2], 1), np.uint8)
    return Degraded(np.pad(picture, edges), np.pad(hole, edges, constant_values=1))


def margins(
    shape: tuple[int, ...], extend: Sides
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns in pixels how far a picture grows: (top, bottom), (left, right)."""
    height, width = shape[:2]
    return (
        (round(extend.top * height), round(extend.bottom * height)),
        (round(extend.left * width), round(extend.right * width)),
    )


def unseen(
    hole: UInt8[np.ndarray, "h w 1"], alpha: UInt8[np.ndarray, "h w"]
) -> list[str]:
    """Returns what to say of a hole that lies where the picture is transparent."""
    inside = alpha[hole[..., 0] > 0]
    if not inside.size or (inside == 0).mean() < 0.5:
        return []
    return [
        "most of the hole is transparent, and stays so: what is painted is not seen"
    ]


def with_luma(
    picture: UInt8[np.ndarray, "h w 3"], wanted: UInt8[np.ndarray, "h w 1"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Gives a picture the luma wanted, to within rounding.

    The colour is what the picture has beside gray. Where it would leave the range of
    bytes it is made paler, which leaves the luma alone.
    """
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    color = picture - (picture @ weights)[..., None]
    gray = wanted.astype(np.float32)
    room = np.where(color > 0, 255.5 - gray, gray + 0.5)  # What rounds to a byte.
    paler = np.min(room / np.maximum(np.abs(color), 1e-6), -1, keepdims=True)
    return np.round(gray + color * np.minimum(paler, 1)).clip(0, 255).astype(np.uint8)


def _whole(x: UInt8[np.ndarray, "h w 3"]) -> Degraded:
    return Degraded(x, np.zeros((*x.shape[:2], 1), np.uint8))
