"""Looks at pictures before they are judged, and names the files that are wrong."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from palette_jax.metrics.errors import MetricError


def stack(
    pictures: Sequence[np.ndarray], names: Sequence[str]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns pictures of one size as one array.

    Args:
      pictures: bytes, `[h, w, 3]` each.
      names: of their files, for the message.

    Raises:
      MetricError: if there are none, if one is not of three channels of bytes, or if
        they differ in size.
    """
    raise NotImplementedError


def is_gray(pictures: UInt8[np.ndarray, "n h w 3"]) -> Bool[np.ndarray, " n"]:
    """Returns which pictures have no colour at all."""
    return (pictures == pictures[..., :1]).all((1, 2, 3))


def refuse_gray_set(gray: Bool[np.ndarray, " n"], names: Sequence[str]) -> None:
    """Refuses a set in which no picture has any colour.

    A few gray pictures are usual (ImageNet has some); a whole set of them is what the
    colorization was given, not what it made.

    Raises:
      MetricError: naming the first files.
    """
    raise NotImplementedError
