"""Prepares a degraded picture of any size for the sampler, and pastes the result."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures.files import MAX_PIXELS
from palette_jax.restoration import tiles, true_colors
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Degraded

MAX_TILES = 20_000


class Canvas(NamedTuple):
    """A degraded picture, prepared for the sampler.

    Attributes:
      box: top, bottom, left and right of the restored part.
      small: height and width of the shrunk part; equal to the part's without shrinking.
      offset: top and left of the part on the canvas.
      x: the part, mirrored at its ends up to the network's size.
      hole: 1 at painted pixels; all 0 for tasks without a hole.
      hints: 1 where `x` has the user's true colour.
      tiles: top and left of each tile.
      size: of a tile, height and width.
    """

    whole: Degraded
    box: tuple[int, int, int, int]
    small: tuple[int, int]
    offset: tuple[int, int]
    x: UInt8[np.ndarray, "h w 3"]
    hole: UInt8[np.ndarray, "h w 1"]
    hints: UInt8[np.ndarray, "h w 1"]
    tiles: list[tuple[int, int]]
    size: int

    @property
    def is_shrunk(self) -> bool:
        """Whether the sampled canvas has fewer pixels than the picture."""
        top, bottom, left, right = self.box
        return self.small != (bottom - top, right - left)


def choose(
    degraded: Degraded, settings: Settings, size: int
) -> tuple[Literal["tiles", "shrink"], list[str]]:
    """Returns how a large picture is handled, and warnings."""
    wide = _is_wide(degraded.hole, size)
    if settings.large == "auto":
        # Tiles that do not see each other get colours that do not match.
        return "shrink" if wide or TASKS[settings.task].shrinks else "tiles", []
    if settings.large == "shrink" or not wide:
        return settings.large, []
    return "tiles", [
        f"the hole is wider than {size // 2} pixels, and the network sees {size};"
        " pixels far from a known pixel may not fit: shrink the picture"
    ]


def check_size(
    height: int, width: int, size: int, *, max_pixels: int = MAX_PIXELS
) -> None:
    """Checks the size of a picture after mirroring to the network's size.

    Raises:
      UserError: if it is too large. A strip of one pixel becomes `size` times larger.
    """
    pixels = max(height, size) * max(width, size)
    if pixels > max_pixels:
        raise UserError(
            f"expected at most {max_pixels:,} pixels where no side is shorter than the"
            f" network's {size}, got {pixels:,} of {width} x {height}; make it smaller,"
            " or cut it into parts"
        )


def prepare(
    degraded: Degraded,
    size: int,
    *,
    hints: UInt8[np.ndarray, "h w 4"] | None = None,
    large: Literal["tiles", "shrink"] = "tiles",
    max_tiles: int = MAX_TILES,
) -> Canvas:
    """Prepares a degraded picture for a network of `size` x `size` pixels.

    With a hole, only the hole and its surroundings are restored. With `shrink`, a
    larger part is shrunk until its shorter side is the network's size.

    Raises:
      UserError: if the picture is too large, or needs more than `max_tiles`.
    """
    has_hole = bool(degraded.hole.any())
    top, bottom, left, right = box = _surroundings(degraded.hole, size, large)
    x, hole = (image[top:bottom, left:right] for image in degraded)
    shorter = min(x.shape[:2])
    if large == "shrink" and shorter > size:
        height, width = (max(round(n * size / shorter), size) for n in x.shape[:2])
        x = _resize(x, height, width, Image.Resampling.BOX)
        # A pixel with any share of the hole is painted: it has no known colour.
        hole = _resize(hole[..., 0] * 255, height, width, Image.Resampling.BOX)
        hole = (hole > 0).astype(np.uint8)[..., None]
    small = x.shape[:2]
    is_hint = np.zeros((*small, 1), np.uint8)
    if hints is not None:
        # Pillow weighs colours by their opacity.
        hints = _resize(hints, small[0], small[1], Image.Resampling.BOX)
        is_hint = true_colors.squares(hints[..., 3], size)
        x = np.where(is_hint, hints[..., :3], x)
    check_size(small[0], small[1], size)
    spare = [max(size - n, 0) for n in small]
    edges = [(n // 2, n - n // 2) for n in spare] + [(0, 0)]
    x, hole, is_hint = (
        np.pad(image, edges, mode="symmetric") for image in (x, hole, is_hint)
    )
    painted = hole if has_hole else np.ones_like(hole)
    corners = tiles.positions(painted, size)
    if len(corners) > max_tiles:
        raise UserError(
            f"expected at most {max_tiles:,} tiles of {size} x {size} pixels, got"
            f" {len(corners):,} of a picture of {small[1]} x {small[0]}; restore a"
            " small copy (--large=shrink), or make it smaller"
        )
    room = [(0, _rounded(n, size) - n) for n in x.shape[:2]] + [(0, 0)]
    return Canvas(
        degraded,
        box,
        small,
        (edges[0][0], edges[1][0]),
        np.pad(x, room),
        np.pad(hole, room),
        np.pad(is_hint, room),
        corners,
        size,
    )


def paste(
    canvas: Canvas, sampled: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the whole picture of a sampled canvas; known pixels are as they were."""
    x, hole = canvas.whole
    (offset_top, offset_left), (small_height, small_width) = canvas.offset, canvas.small
    part = sampled[
        offset_top : offset_top + small_height, offset_left : offset_left + small_width
    ]
    top, bottom, left, right = canvas.box
    if part.shape[:2] != (bottom - top, right - left):
        part = _resize(part, bottom - top, right - left, Image.Resampling.BICUBIC)
    if not hole.any():  # The box is everything.
        return part.copy()
    picture = x.copy()
    here = picture[top:bottom, left:right]
    here[...] = np.where(hole[top:bottom, left:right] > 0, part, here)
    return picture


def _is_wide(hole: UInt8[np.ndarray, "h w 1"], size: int) -> bool:
    """Returns whether a hole is too wide for a network of `size`.

    A hole is too wide if it contains a square wider than half of the network, the
    widest square in training.
    """
    side = size // 2 + 1
    height, width, _ = hole.shape
    if min(height, width) < side:
        return False
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = hole[..., 0].cumsum(0, dtype=np.int64).cumsum(1)
    inside = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side]) + sums[
        :-side, :-side
    ]
    return bool((inside == side**2).any())


def _surroundings(
    hole: UInt8[np.ndarray, "h w 1"], size: int, large: str
) -> tuple[int, int, int, int]:
    """Returns the part to restore: the hole and its surroundings, or everything."""
    ends = []
    for axis, length in enumerate(hole.shape[:2]):
        inside = np.flatnonzero(hole.any(axis=(1 - axis, 2)))
        if not len(inside):
            ends += [0, length]
            continue
        first, last = int(inside[0]), int(inside[-1]) + 1
        extent = last - first
        wanted = 2 * extent if large == "shrink" else extent + size // 2
        wanted = min(max(wanted, size), length)
        start = min(max(first - (wanted - extent) // 2, 0), length - wanted)
        ends += [start, start + wanted]
    return ends[0], ends[1], ends[2], ends[3]


def _rounded(length: int, size: int) -> int:
    """Returns a length rounded up to one of few, since each compiles a sampler."""
    unit = max(size, 1 << max(length.bit_length() - 4, 0))
    return -(-length // unit) * unit


def _resize(
    image: UInt8[np.ndarray, "h w *c"],
    height: int,
    width: int,
    resampling: Image.Resampling,
) -> UInt8[np.ndarray, "height width *c"]:
    return np.asarray(Image.fromarray(image).resize((width, height), resampling))
