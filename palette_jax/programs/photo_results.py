"""Writes files beside results, and recognizes existing results."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.programs import photo_files
from palette_jax.programs.photo_files import Job
from palette_jax.restoration import masks
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


def check_masks(jobs: Sequence[Job], overwrite: bool) -> int:
    """Writes each picture with its hole in red; returns 1 if one could not be."""
    failed = 0
    for job in jobs:
        target = photo_files.mask_preview(job)
        try:
            if target.exists() and not overwrite:
                raise UserError(f"{target} exists; give --overwrite, or another --out")
            photo = files.read(job.path)
            hole, warnings = photo_files.hole_of(job, photo)
            if hole is None:
                raise UserError("expected --mask with --check-mask, got none")
            files.write(
                target, masks.shown(photo.pixels, hole), files.Photo(photo.pixels)
            )
        except UserError as error:
            failed += 1
            print(f"error: {job.path}: {error}", file=sys.stderr)
            continue
        for warning in warnings:
            print(f"{job.path}: {warning}", file=sys.stderr)
        print(f"{target}: {hole.mean():.1%} would be painted")
    return 1 if failed else 0
