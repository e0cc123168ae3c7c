"""Checks pictures before they are measured, and names the files that are wrong."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from palette_jax.evaluation.metrics.errors import MetricError


def stack(
    pictures: Sequence[np.ndarray], names: Sequence[str]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns pictures of one size as one array.

    Args:
      pictures: bytes, `[h, w, 3]` each.
      names: of their files, for the message.

    Raises:
      MetricError: if there are none, if one has not three channels of bytes, or if
        their sizes differ.
    """
    if not pictures:
        raise MetricError("expected one picture or more, got none")
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for picture, name in zip(pictures, names, strict=True):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise MetricError(
                f"expected RGB pictures of bytes, [height, width, 3], got {name} of"
                f" {picture.dtype} {list(picture.shape)}; convert it to RGB"
            )
        by_shape.setdefault(picture.shape, []).append(name)
    if len(by_shape) > 1:
        found = "; ".join(
            f"{len(files)} of {height} x {width} (height x width), such as {files[0]}"
            for (height, width, _), files in sorted(by_shape.items())
        )
        raise MetricError(
            f"expected pictures of one size, got {found}; crop or resize them alike"
        )
    return np.stack(pictures)


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


def some_of(names: Sequence[str], *, limit: int = 5) -> str:
    """Returns the first names and the number of further ones, for a message."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def refuse_not_finite(features: Float[np.ndarray, "n f"], names: Sequence[str]) -> None:
    """Refuses features that are not numbers.

    Args:
      features: one row for each picture.
      names: of the files.

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
