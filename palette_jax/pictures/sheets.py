"""Contact sheets: labelled pictures in rows."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from palette_jax import atomic

HEAD = 18  # Pixels of the line of titles.
_GAP = 2  # Pixels between pictures.
_MIN_SIZE = 96  # Pixels of a picture on a sheet.


def rows(
    batch: Mapping[str, np.ndarray],
    samples: UInt8[np.ndarray, "n b h w 3"],
    *,
    with_deviation: bool = False,
) -> list[list[UInt8[np.ndarray, "h w 3"]]]:
    """Returns a row for each picture: degraded, its samples, original.

    Several samples also have their deviation, before the original.
    """
    degraded = np.where(batch["hole"] > 0, 128, batch["x"]).astype(np.uint8)
    spread = [deviation(samples[:, i]) for i in range(len(degraded))]
    return [
        [degraded[i], *samples[:, i], *[spread[i]] * with_deviation, batch["y"][i]]
        for i in range(len(degraded))
    ]


def deviation(samples: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the deviation of samples at each pixel, at four times its brightness.

    It is the standard deviation of each channel, averaged over the channels.
    """
    spread = samples.astype(np.float32).std(0).mean(-1, keepdims=True)
    return np.round(4 * spread).clip(0, 255).astype(np.uint8).repeat(3, -1)


def contact_sheet(
    pictures: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]],
    *,
    with_deviation: bool = False,
) -> UInt8[np.ndarray, "height width 3"]:
    """Arranges `rows` of pictures of one size below a line of titles.

    Small pictures are enlarged to at least 96 pixels, without smoothing.
    """
    scale = -(-_MIN_SIZE // pictures[0][0].shape[1])
    edge = ((0, _GAP), (0, _GAP), (0, 0))
    lines = [
        np.concatenate(
            [
                np.pad(p.repeat(scale, 0).repeat(scale, 1), edge, constant_values=255)
                for p in row
            ],
            axis=1,
        )
        for row in pictures
    ]
    grid = np.concatenate(lines, axis=0)[:-_GAP, :-_GAP]
    samples = [f"sample {i}" for i in range(len(pictures[0]) - 2 - with_deviation)]
    if len(samples) == 1:
        samples = ["restored"]
    titles = ["given", *samples, *["deviation"] * with_deviation, "original"]
    return np.concatenate([_head(titles, grid.shape[1]), grid])


def _head(titles: Sequence[str], width: int) -> UInt8[np.ndarray, "head width 3"]:
    head = Image.new("RGB", (width, HEAD), "white")
    draw, column_width = ImageDraw.Draw(head), (width + _GAP) / len(titles)
    for column, title in enumerate(titles):
        middle = (column + 0.5) * column_width - _GAP / 2, HEAD / 2
        draw.text(middle, title, "black", ImageFont.load_default(12), anchor="mm")
    return np.array(head)


def labelled(
    tiles: Sequence[tuple[UInt8[np.ndarray, "side side 3"], str]],
) -> UInt8[np.ndarray, "height width 3"]:
    """Arranges pictures of one size in a grid, each above its label."""
    side, lines = tiles[0][0].shape[0], 3
    columns = min(6, len(tiles))
    width, height = side + _GAP, side + lines * HEAD + _GAP
    sheet = Image.new(
        "RGB", (columns * width, -(-len(tiles) // columns) * height), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    length = side // 6  # Letters in a line.
    for index, (tile, label) in enumerate(tiles):
        left, top = index % columns * width, index // columns * height
        sheet.paste(Image.fromarray(tile), (left, top))
        parts = textwrap.wrap(label, length)[:lines]
        draw.text((left, top + side + 1), "\n".join(parts), "black", font)
    return np.array(sheet)


def save_png(
    path: epath.Path, image: UInt8[np.ndarray, "height width *c"], **options: Any
) -> None:
    """Writes a picture with options of Pillow, on host 0."""
    if jax.process_index() != 0:
        return
    with atomic.writing(path) as part, part.open("wb") as file:
        Image.fromarray(image).save(file, format="PNG", **options)
