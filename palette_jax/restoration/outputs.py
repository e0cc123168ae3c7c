"""Writes files beside results, and recognizes existing results."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from palette_jax.pictures import files
from palette_jax.restoration.jobs import Job
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings

_GRID_SIDE = 512  # Pixels of the longer side of a picture in a grid, at most.
_GAP = 4  # Pixels between them.
# Names of files do not identify their content.
_PLACES = ("checkpoint", "weights", "mask", "hints")


def save_diversity(job: Job, result: Result, about: Mapping[str, Any]) -> None:
    """Writes the samples side by side, and their deviation at each pixel.

    The deviation is drawn at four times its brightness.
    """
    beside = job.beside(result.settings)
    if not beside:
        return
    about = {**result.about, **about, "settings": result.settings.to_json()}
    deviation = np.round(4 * result.deviation).clip(0, 255).astype(np.uint8)
    plain = files.Photo(result.photo.pixels)
    spread = np.stack([deviation] * 3, -1)
    files.write(beside["deviation"], spread, plain, gray=True, about=about)
    cells = [result.photo.pixels, *result.pictures, deviation]
    height, width = result.pictures[0].shape[:2]
    scale = min(_GRID_SIDE / max(height, width), 1)
    height, width = (max(round(n * scale), 1) for n in (height, width))
    grid = Image.new("RGB", (len(cells) * (width + _GAP) - _GAP, height), "white")
    for column, cell in enumerate(cells):
        size = [max(round(n * scale), 1) for n in cell.shape[1::-1]]
        image = Image.fromarray(cell).resize((size[0], size[1]))
        grid.paste(image, (column * (width + _GAP), 0))
    files.write(beside["grid"], np.asarray(grid), plain, about=about)


def is_result(path: pathlib.Path, now: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a file is a result of the same inputs and settings, by its metadata."""
    about = files.read_about(path) or {}
    now = {k: v for k, v in now.items() if k not in _PLACES}
    given = ("mask_crc32", "hints_crc32")  # Also inputs that are no longer given.
    if any(about.get(name) != now.get(name) for name in given):
        return False
    return about == {**about, **now, "settings": settings.to_json()}
