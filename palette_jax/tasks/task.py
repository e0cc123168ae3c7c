"""The description of a task; each task has a file beside this one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError


class Sides(NamedTuple):
    """How far a picture is extended: shares of its width (left, right) or height."""

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    @classmethod
    def of(cls, side: str, share: float) -> "Sides":
        """Returns the extension by one share at a side, or at `all` of them."""
        if side == "all":
            return cls(share, share, share, share)
        if side not in cls._fields:
            raise UserError(
                f"expected a side out of {', '.join(cls._fields)} or all, got {side!r}"
            )
        return cls(**{side: share})


Gray = Literal["luma", "lightness"]
"""How a picture is made gray: by its luma, or by L* of CIE Lab."""


class Given(NamedTuple):
    """The user's inputs to a degradation beside the picture.

    Attributes:
      hole: 1 where the picture is to be filled in.
      extend: how far each side is extended.
      hints: colours with their opacity; the opaque ones are true.
      gray: which gray the network learned to colour.
    """

    hole: UInt8[np.ndarray, "h w 1"] | None = None
    extend: Sides = Sides()
    hints: UInt8[np.ndarray, "h w 4"] | None = None
    gray: Gray = "luma"


class Degraded(NamedTuple):
    """The model's input, and the hole that it fills."""

    x: UInt8[np.ndarray, "h w 3"]
    hole: UInt8[np.ndarray, "h w 1"]  # 1 where `x` has no picture.


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, as users and evaluations see it; `data/tasks.py` has its training.

    Attributes:
      name: in configs and flags.
      title: of its button on the page.
      sentence: what it does.
      degrade: from a user's picture to what the model is given.
      degradation: from the keys of `eval`, and `gray` of `data`, to how evaluated
        pictures were degraded.
      eval_key: the key of `eval` that its degradation follows from.
      like: a task that a network for this one can do in its place.
      needs_mask: whether a user gives a mask.
      extends: whether a user gives sides to extend.
      brings_colour: whether the result has other colours than the photo, in sRGB.
      shrinks: whether a small copy of a large picture is restored: colours have to fit
        each other over the whole picture, and details are the photo's.
      scale: how many times the result is as wide as the photo.
      means: side in pixels of the squares whose mean colours the degradation keeps, and
        so the result; 0: of none. A tile that is gray by chance could else be coloured,
        by a network that also learned to colorize.
    """

    name: str
    title: str
    sentence: str
    degrade: Callable[[UInt8[np.ndarray, "h w 3"], Given], Degraded]
    degradation: Callable[[Mapping[str, Any]], str]
    eval_key: str | None = None
    like: str | None = None
    needs_mask: bool = False
    extends: bool = False
    brings_colour: bool = False
    shrinks: bool = False
    scale: int = 1
    means: int = 0


def as_it_is(picture: UInt8[np.ndarray, "h w 3"], given: Given) -> Degraded:
    """Returns a picture that is degraded already."""
    del given
    return whole(picture)


def whole(x: UInt8[np.ndarray, "h w 3"]) -> Degraded:
    """Returns a picture of which nothing is missing."""
    return Degraded(x, np.zeros((*x.shape[:2], 1), np.uint8))
