"""Inpainting: fills in the hole of a mask (paper, section 5.2)."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError
from palette_jax.tasks.task import Degraded, Task, UserInputs


def degrade(picture: UInt8[np.ndarray, "h w 3"], given: UserInputs) -> Degraded:
    """Returns the picture with its hole cut out.

    Raises:
      UserError: if there is no hole.
    """
    if given.hole is None:
        raise UserError("expected a mask with task inpaint, got none; add --mask=FILE")
    return Degraded(np.where(given.hole > 0, 0, picture).astype(np.uint8), given.hole)


def unseen(
    hole: UInt8[np.ndarray, "h w 1"], alpha: UInt8[np.ndarray, "h w"]
) -> list[str]:
    """Returns a warning if the hole is in a transparent part of the picture."""
    inside = alpha[hole[..., 0] > 0]
    if not inside.size or (inside == 0).mean() < 0.5:
        return []
    return [
        "most of the hole is transparent and stays so: the filled-in part is invisible"
    ]


def degradation(options: Mapping[str, Any]) -> str:
    """Returns a description of the holes in evaluation."""
    file = pathlib.PurePath(options.get("mask_file", "")).name
    return f"hole: {options['inpaint_mask']}{file and f', of {file}'}"


TASK = Task(
    name="inpaint",
    title="Fill in",
    sentence="Fills in the part that you paint over.",
    degrade=degrade,
    degradation=degradation,
    eval_key="inpaint_mask",
    like="uncrop",
    needs_mask=True,
)
