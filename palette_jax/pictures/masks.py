"""Masks of a user, white where the picture is filled in, and colour hints."""

import base64
import os
import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.pictures.files import Photo


def to_hole(
    mask: Photo, shape: tuple[int, ...], *, invert: bool = False
) -> tuple[UInt8[np.ndarray, "h w 1"], list[str]]:
    """Converts a mask of any size and mode to the hole of a picture.

    If the mask has exactly two values, the brighter value is filled in; if it has one
    colour, its opaque part. In other masks, values from the middle gray, 128, are
    filled in, and transparent pixels count as black.

    Args:
      mask: from `files.read`.
      shape: height and width of the picture.
      invert: whether to fill in the black part instead.

    Returns:
      The hole, 1 at pixels to fill in, and warnings for the user.
    """
    warnings: list[str] = []
    values = _values(mask)
    found = np.unique(values)
    if len(found) == 2:
        hole = values == found[1]
        if (found[0], found[1]) != (0, 255):
            warnings.append(
                f"the brighter of its two values, {found[1]:g}, is filled in"
            )
    else:
        hole = values >= 128
        if mask.format != "JPEG" and np.mean((values > 8) & (values < 247)) > 0.05:
            warnings.append("it has grays; those from 128 up are filled in")
    if mask.format == "JPEG":
        warnings.append("a JPEG has no sharp edges, so some pixels may be off; use PNG")
    hole = (hole != invert).astype(np.uint8)
    hole = _fit(hole, shape, warnings)
    share = hole.mean()
    other = "do not invert the mask" if invert else "invert the mask"
    if share == 0:
        warnings.append(f"it covers nothing, so nothing is filled in; or {other}")
    elif share == 1:
        warnings.append(f"it covers everything, so nothing is kept; or {other}")
    elif share > 0.75:
        warnings.append(
            f"it covers {share:.0%} of the picture; to keep that part, {other}"
        )
    return hole[..., None], [f"mask {mask.name}: {text}" for text in warnings]


def as_hole(
    hole: Any, shape: tuple[int, ...]
) -> tuple[UInt8[np.ndarray, "h w 1"], list[str]]:
    """Returns the hole of a picture from an array or a mask, and warnings.

    Args:
      hole: an array [height, width] or [height, width, 1] of the picture's size, 1 or
        255 at pixels to fill in; or a mask as a path or a Pillow image.
      shape: height and width of the picture.

    Raises:
      UserError: for an array of another shape or with other values.
    """
    if isinstance(hole, str | os.PathLike | Image.Image | Photo):
        return to_hole(files.as_photo(hole), shape)
    array = np.asarray(hole)
    values = array.reshape(array.shape[:2]) if array.shape[2:] in ((), (1,)) else None
    top = 0 if values is None or not values.size else values.max()
    if values is None or values.shape != tuple(shape[:2]) or top not in (0, 1, 255):
        raise UserError(
            f"expected a hole of 0 and 1 with {shape[0]} x {shape[1]} pixels (height x"
            f" width), got shape {array.shape} and values up to {top}; use a mask of"
            " the picture's size"
        )
    if not np.isin(values, (0, top)).all():
        raise UserError(
            f"expected a hole of 0 and 1, got also values between 0 and {top}; round it"
        )
    return (values > 0).astype(np.uint8)[..., None], []


def as_hints(hints: Any, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w 4"]:
    """Returns colour hints, opacity 255 where a colour is true, at a picture's size.

    Raises:
      UserError: if all or none of the hints is opaque.
    """
    read = files.as_photo(hints)
    if read.alpha is not None:
        is_hint = read.alpha >= 128
        if is_hint.any() and not is_hint.all():
            opacity = np.where(is_hint, 255, 0).astype(np.uint8)
            return _nearest(np.dstack([read.pixels, opacity]), shape)
    raise UserError(
        "expected hints that are opaque where a colour is true and transparent"
        " elsewhere, got a picture that is opaque everywhere or nowhere; save the"
        " strokes alone as PNG"
    )


def pack(hole: UInt8[np.ndarray, "h w 1"]) -> str:
    """Returns a hole as compressed text, one bit for each pixel."""
    bits = np.packbits(hole[..., 0] > 0).tobytes()
    return base64.b85encode(zlib.compress(bits, 9)).decode()


def unpack(text: Any, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w 1"]:
    """Returns the hole from a text of `pack`.

    Raises:
      UserError: if the text is damaged, or of a hole of another size.
    """
    height, width = shape[:2]
    try:
        # At most the bytes of a picture, also for a forged text.
        size = -(-height * width // 8)
        packed = zlib.decompressobj().decompress(base64.b85decode(text), size + 1)
    except (TypeError, ValueError, zlib.error) as error:
        raise UserError(f"expected a hole, got a damaged one ({error})") from error
    if len(packed) != size:
        raise UserError(
            f"expected a hole of {width} x {height} pixels, got another size; name the"
            " photo that the result was made from"
        )
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
    return bits.reshape(height, width, 1)


def _values(mask: Photo) -> np.ndarray:
    """Returns the brightness of each pixel, 0 to 255; keeps values of 16 bits."""
    pixels = mask.pixels.reshape(-1, 3)
    if mask.deep is not None and mask.deep.max() < 256:
        return mask.deep.astype(np.float32)  # Labels, which 8 bits would lose.
    values = np.asarray(Image.fromarray(mask.pixels).convert("L")).astype(np.float32)
    if mask.alpha is None:
        return values
    visible = pixels[mask.alpha.ravel() > 0]
    if len(visible) and (visible == visible[0]).all() and (mask.alpha < 255).any():
        return mask.alpha.astype(np.float32)  # Drawn in one colour on transparency.
    return values * mask.alpha / 255


def shown(
    picture: UInt8[np.ndarray, "h w 3"], hole: UInt8[np.ndarray, "h w 1"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture with its hole in red, to check a mask."""
    red = np.array([255, 0, 0])
    return np.where(hole > 0, (picture + 2 * red) // 3, picture).astype(np.uint8)


def _fit(
    hole: UInt8[np.ndarray, "h1 w1"], shape: tuple[int, ...], warnings: list[str]
) -> UInt8[np.ndarray, "h w"]:
    height, width = shape[:2]
    if hole.shape == (height, width):
        return hole
    warnings.append(
        f"expected the picture's {width} x {height} pixels, got {hole.shape[1]} x"
        f" {hole.shape[0]}; it is resized"
    )
    return _nearest(hole, shape)


def _nearest(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))
