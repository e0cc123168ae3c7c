"""Uncropping: extends a picture beyond its edges (paper, section 5.3)."""

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError
from palette_jax.pictures.files import MAX_PIXELS
from palette_jax.tasks.task import Degraded, Sides, Task, UserInputs

Margins = tuple[tuple[int, int], tuple[int, int]]


def degrade(picture: UInt8[np.ndarray, "h w 3"], given: UserInputs) -> Degraded:
    """Returns the picture on a larger canvas; the rest of the canvas is the hole.

    Raises:
      UserError: if the canvas would be too large, or no larger than the picture.
    """
    rows, columns = margins(picture.shape, given.extend)
    height, width = picture.shape[0] + sum(rows), picture.shape[1] + sum(columns)
    if height * width > MAX_PIXELS:
        raise UserError(
            f"expected at most {MAX_PIXELS:,} pixels with the extension, got {width} x"
            f" {height} = {width * height:,}; extend it less, or make it smaller"
        )
    if not sum(rows) + sum(columns):
        shares = ", ".join(
            f"{side} {share:.2%}"
            for side, share in given.extend._asdict().items()
            if share
        )
        raise UserError(
            "expected an extension of a pixel or more, got none of a picture of"
            f" {picture.shape[1]} x {picture.shape[0]} pixels by {shares or 'nothing'};"
            " extend it further, e.g. --extend=50%"
        )
    edges = (rows, columns, (0, 0))
    hole = np.zeros((*picture.shape[:2], 1), np.uint8)
    return Degraded(np.pad(picture, edges), np.pad(hole, edges, constant_values=1))


def margins(shape: tuple[int, ...], extend: Sides) -> Margins:
    """Returns the extension in pixels: (top, bottom), (left, right)."""
    height, width = shape[:2]
    return (
        (round(extend.top * height), round(extend.bottom * height)),
        (round(extend.left * width), round(extend.right * width)),
    )


TASK = Task(
    name="uncrop",
    title="Extend",
    sentence="Extends a picture beyond its edges.",
    degrade=degrade,
    degradation=lambda options: f"missing half: {options['uncrop_side']}",
    eval_key="uncrop_side",
    like="inpaint",
    extends=True,
)
