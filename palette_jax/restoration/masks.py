"""Masks that a user drew: white is painted anew, black is kept."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.pictures.files import Photo


def to_hole(
    mask: Photo, shape: tuple[int, ...], *, invert: bool = False
) -> tuple[UInt8[np.ndarray, "h w 1"], list[str]]:
    """Turns a mask, of any size and mode, to the hole of a picture.

    A pixel is painted anew where the mask is at least as bright as the middle gray,
    128. What is transparent counts as black.

    Args:
      mask: as `files.read` returns it.
      shape: height and width of the picture.
      invert: paints what is black instead.

    Returns:
      1 where the picture is painted anew, and warnings to show to the user.
    """
    warnings = []
    values = np.asarray(Image.fromarray(mask.pixels).convert("L")).astype(np.float32)
    if mask.alpha is not None:
        values = values * mask.alpha / 255
    if values.max() == 1:
        warnings.append("its values are 0 and 1; 1 is painted anew")
        values = values * 255
    if mask.format == "JPEG":
        warnings.append("a JPEG has no sharp edges, so some pixels may be off; use PNG")
    elif np.mean((values > 8) & (values < 247)) > 0.05:
        warnings.append("it has grays; those from 128 up are painted anew")
    hole = ((values >= 128) != invert).astype(np.uint8)
    hole = _fit(hole, shape, warnings)
    share = hole.mean()
    other = "give the mask without inverting" if invert else "invert the mask"
    if share == 0:
        warnings.append(f"it covers nothing, so nothing is painted; or {other}")
    elif share == 1:
        warnings.append(f"it covers everything, so nothing is kept; or {other}")
    elif share > 0.75:
        warnings.append(
            f"it covers {share:.0%} of the picture; if that is what you keep, {other}"
        )
    return hole[..., None], [f"mask {mask.name}: {text}" for text in warnings]


def shown(
    picture: UInt8[np.ndarray, "h w 3"], hole: UInt8[np.ndarray, "h w 1"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture with its hole under red, to check a mask by."""
    red = np.array([255, 0, 0])
    return np.where(hole > 0, (picture + 2 * red) // 3, picture).astype(np.uint8)


def _fit(
    hole: UInt8[np.ndarray, "h1 w1"], shape: tuple[int, ...], warnings: list[str]
) -> UInt8[np.ndarray, "h w"]:
    height, width = shape[:2]
    if hole.shape == (height, width):
        return hole
    warnings.append(
        f"expected {width} x {height} pixels as the picture has, got {hole.shape[1]} x"
        f" {hole.shape[0]}; it is resized"
    )
    resized = Image.fromarray(hole).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized)
