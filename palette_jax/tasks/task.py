"""The description of a task; each task has its own file in this folder."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError


class Sides(NamedTuple):
    """The extension of a picture: shares of its width (left, right) or height."""

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    @classmethod
    def of(cls, side: str, share: float) -> "Sides":
        """Returns the extension by a share at one side, or at `all` sides."""
        if side == "all":
            return cls(share, share, share, share)
        if side not in cls._fields:
            raise UserError(
                f"expected a side out of {', '.join(cls._fields)} or all, got {side!r}"
            )
        return cls(**{side: share})


Gray = Literal["luma", "lightness"]
"""The conversion to gray: by the luma, or by L* of CIE Lab."""


class UserInputs(NamedTuple):
    """The user's hole and extension, and the gray of the network's training."""

    hole: UInt8[np.ndarray, "h w 1"] | None = None
    extend: Sides = Sides()
    gray: Gray = "luma"


class Degraded(NamedTuple):
    """The model's input and its hole."""

    x: UInt8[np.ndarray, "h w 3"]
    hole: UInt8[np.ndarray, "h w 1"]  # 1 where `x` has no picture.


@dataclasses.dataclass(frozen=True)
class Task:
    """A task in restoration and evaluation; `data/tasks.py` has its training form.

    Attributes:
      title: of its button on the page.
      degrade: makes the model's input from a user's picture.
      degradation: describes the degradation of evaluated pictures, from the keys of
        `eval` and `gray` of `data`.
      eval_key: the key of `eval` that determines its degradation.
      like: a task that its networks can do too.
      needs_mask: whether it needs the user's mask.
      extends: whether it needs the sides to extend.
      brings_colour: whether the result has other colours than the photo, in sRGB.
      shrinks: whether it restores a small copy of a large picture: colours must match
        over the whole picture, and details are the photo's.
      scale: factor from the width of the photo to that of the result.
      means: side in pixels of the squares whose mean colours the degradation and the
        result keep; 0 for none. Otherwise a network that also learned to colorize could
        colour a tile that is gray by chance.
    """

    name: str
    title: str
    sentence: str
    degrade: Callable[[UInt8[np.ndarray, "h w 3"], UserInputs], Degraded]
    degradation: Callable[[Mapping[str, Any]], str]
    eval_key: str | None = None
    like: str | None = None
    needs_mask: bool = False
    extends: bool = False
    brings_colour: bool = False
    shrinks: bool = False
    scale: int = 1
    means: int = 0


def as_it_is(picture: UInt8[np.ndarray, "h w 3"], given: UserInputs) -> Degraded:
    """Returns the picture unchanged; it is already degraded."""
    del given
    return whole(picture)


def whole(x: UInt8[np.ndarray, "h w 3"]) -> Degraded:
    """Returns an input without a hole."""
    return Degraded(x, np.zeros((*x.shape[:2], 1), np.uint8))
