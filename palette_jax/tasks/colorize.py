"""Colorization of a gray picture (paper, section 5.1)."""

import numpy as np
from jaxtyping import UInt8

from palette_jax.pictures.lightness import lightness
from palette_jax.tasks.task import Degraded, Task, UserInputs, whole

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # Of ITU-R BT.601.


def degrade(picture: UInt8[np.ndarray, "h w 3"], given: UserInputs) -> Degraded:
    """Returns the picture in gray."""
    make_gray = {"luma": luma, "lightness": lightness}[given.gray]
    return whole(np.repeat(make_gray(picture), 3, -1))


def luma(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
    """Returns the luma, in the fixed-point numbers of Pillow's convert("L")."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    total = 19595 * red + 38470 * green + 7471 * blue + 0x8000
    return (total >> 16).astype(np.uint8)[..., None]


def with_luma(
    picture: UInt8[np.ndarray, "h w 3"], wanted: UInt8[np.ndarray, "h w 1"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture with a given luma, to rounding.

    The colour is the difference of the picture from gray. If it would leave the range
    of bytes, it is made paler, which keeps the luma.
    """
    color = picture - (picture @ LUMA_WEIGHTS)[..., None]
    gray = wanted.astype(np.float32)
    room = np.where(color > 0, 255.5 - gray, gray + 0.5)  # Rounds to a byte.
    paler = np.min(room / np.maximum(np.abs(color), 1e-6), -1, keepdims=True)
    return np.round(gray + color * np.minimum(paler, 1)).clip(0, 255).astype(np.uint8)


TASK = Task(
    name="colorize",
    title="Colorize",
    sentence="Gives a black-and-white photo colours.",
    degrade=degrade,
    degradation=lambda options: f"gray: {options['gray']}, repeated three times",
    brings_colour=True,
    shrinks=True,
)
