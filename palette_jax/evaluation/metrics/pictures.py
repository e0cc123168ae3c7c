"""Checks pictures before they are measured, and names the files that are wrong."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from palette_jax.errors import MetricError, some_of


def is_gray(pictures: UInt8[np.ndarray, "n h w 3"]) -> Bool[np.ndarray, " n"]:
    """Returns which pictures have no colour at all."""
    return (pictures == pictures[..., :1]).all((1, 2, 3))


def refuse_gray_set(gray: Bool[np.ndarray, " n"], names: Sequence[str]) -> None:
    """Refuses a set in which no picture has any colour.

    A few gray pictures are usual (ImageNet has some); a set of only gray pictures is
    the input of a colorization, not its result.

    Raises:
      MetricError: naming the first files.
    """
    if len(gray) and gray.all():
        raise MetricError(
            f"expected pictures with colour, got {len(gray)}, all of them gray"
            f" ({some_of(names)}); name the folder of results, not that of inputs"
        )


def refuse_not_finite(features: Float[np.ndarray, "n f"], names: Sequence[str]) -> None:
    """Refuses features that are not numbers.

    Raises:
      MetricError: naming the files whose features are not finite.
    """
    wrong = [
        name
        for name, row in zip(names, features, strict=True)
        if not np.isfinite(row).all()
    ]
    if wrong:
        raise MetricError(
            f"expected finite features, got NaN or infinity for {len(wrong)} of"
            f" {len(names)} pictures: {some_of(wrong)}"
        )
