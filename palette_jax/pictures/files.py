"""Reads a user's picture from a file to sRGB bytes, and writes the result to a file.

Reads everything that Pillow opens. Warnings name the properties that are lost.
"""

import base64
import dataclasses
import io
import json
import os
import pathlib
import struct
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, PngImagePlugin

from palette_jax import atomic
from palette_jax.errors import UserError
from palette_jax.pictures import modes, walk

MAX_PIXELS = 100_000_000

_KEY = "palette_jax"  # The name of the settings among the texts of a PNG file.
_MAX_JPEG_EXIF = 65_000  # Bytes; more do not fit into one segment of the file.


class PictureError(UserError):
    """A picture that cannot be read or written; the message has the reason."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """An upright picture in three channels, with the metadata of its file.

    Attributes:
      pixels: the picture, in the colours of the file's profile.
      alpha: the opacity, None if the file has none.
      is_gray: whether the file has one channel.
      deep: the values of a single channel with 16 bits, else None.
      icc_profile: the colour profile, None for sRGB.
      exif: date, camera and so on, without the rotation, which is applied.
      warnings: conversions on reading.
      dpi: pixels per inch, across and down, if the file has them.
      gamma: see `modes.gamma_of`; None for sRGB, or with a profile.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    is_gray: bool = False
    deep: UInt16[np.ndarray, "h w"] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    format: str | None = None
    name: str = "the picture"
    warnings: tuple[str, ...] = ()
    dpi: tuple[float, float] | None = None
    gamma: float | None = None


def read(
    source: str | os.PathLike | io.BufferedIOBase | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """Reads a picture of any size and mode from a path, bytes or an open file.

    `name` is for messages. A picture of more than `max_pixels` is refused before it is
    decoded.

    Raises:
      PictureError: if the file is no picture, broken, or too large.
    """
    if name is None:
        is_path = isinstance(source, str | os.PathLike)
        name = str(source) if is_path else "the picture"
    if isinstance(source, str | os.PathLike) and walk.is_special(source):
        raise PictureError(
            f"{name}: expected a file, got a pipe or a device; save the picture first"
        )
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of Pillow, about single tags.
            return _decode(Image.open(file), name, max_pixels)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}: expected at most {max_pixels:,} pixels, got far more"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(
            f"{name}: expected a picture that Pillow reads, got another file; save it"
            " as PNG or JPEG"
        ) from error
    except FileNotFoundError as error:
        raise PictureError(f"{name}: there is no such file") from error
    except Exception as error:  # Broken files make Pillow raise any exception.
        raise PictureError(
            f"{name}: expected a complete picture, got a broken or unreadable file"
            f" ({error})"
        ) from error


def as_photo(source: Any) -> Photo:
    """Returns a photo from a path, a Pillow image, an array or a photo.

    Arrays are [height, width], or with 1, 3 or 4 channels, of which the fourth is the
    opacity; of bytes, or of other numbers in a range that `modes.to_8_bits` finds.

    Raises:
      PictureError: for any other source, or if it cannot be read.
    """
    if isinstance(source, Photo):
        pixels = np.asarray(source.pixels)
        if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
            return source
        fresh = as_photo(pixels)
        return dataclasses.replace(
            source, pixels=fresh.pixels, warnings=(*source.warnings, *fresh.warnings)
        )
    if isinstance(source, str | os.PathLike | bytes | io.BufferedIOBase):
        return read(source)
    if isinstance(source, Image.Image):
        try:
            return _decode(source, "the picture", MAX_PIXELS)
        except ValueError as error:
            raise PictureError(f"the picture: {error}") from error
    array = np.asarray(source)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise PictureError(
            "expected a picture as a path, a Pillow image or an array [height, width,"
            f" 3], got {type(source).__name__} of shape {array.shape}"
        )
    notes: list[str] = []
    try:
        values = modes.to_8_bits(array.reshape(*array.shape[:2], channels), notes)
    except (TypeError, ValueError) as error:
        raise PictureError(f"the picture: {error}") from error
    return Photo(
        np.repeat(values, 3, -1) if channels == 1 else values[..., :3].copy(),
        values[..., 3].copy() if channels == 4 else None,
        is_gray=channels == 1,
        warnings=tuple(notes),
    )


def _decode(image: Image.Image, name: str, max_pixels: int) -> Photo:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"{name}: expected at most {max_pixels:,} pixels, got {width} x {height} ="
            f" {width * height:,}; make it smaller, or cut it into parts"
        )
    notes: list[str] = []
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    if any(";16" in mode for mode in raw) and not modes.is_gray(image):
        notes.append("Pillow reads only 8 of the 16 bits of its channels")
    image.load()
    file_format, frames = image.format, getattr(image, "n_frames", 1)
    dpi = image.info.get("dpi", (0, 0))  # (1, 1) means none.
    resolution = (float(dpi[0]), float(dpi[1])) if min(dpi) > 1 else None
    if frames > 1:
        notes.append(f"it has {frames} frames; only the first is used")
    image, exif = modes.upright(image, notes)
    if raw == ["LA;16B"]:  # Pillow repeats its gray as colours.
        image = image.convert("LA")
    alpha = modes.opacity(image)
    pixels, profile = modes.to_bytes(image, image.info.get("icc_profile"), notes)
    return Photo(
        pixels,
        alpha,
        modes.is_gray(image),
        # No file that Pillow writes holds 16 bits beside an opacity.
        modes.deep(image) if alpha is None else None,
        profile,
        exif,
        file_format,
        name,
        tuple(notes),
        resolution,
        None if profile else modes.gamma_of(image),
    )


def in_colour(photo: Photo) -> Photo:
    """Returns a photo in sRGB, the colours that networks learn to draw."""
    notes: list[str] = []
    pixels = modes.profile_to_srgb(photo.pixels, photo.icc_profile, notes)
    return dataclasses.replace(
        photo,
        pixels=modes.gamma_to_srgb(pixels, photo.gamma),
        icc_profile=None,
        gamma=None,
        warnings=(*photo.warnings, *notes),
    )


def write(
    path: str | os.PathLike,
    pixels: UInt8[np.ndarray, "h w 3"],
    photo: Photo,
    *,
    alpha: UInt8[np.ndarray, "h w"] | None = None,
    gray: bool = False,
    deep: UInt16[np.ndarray, "h w"] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a result atomically, with the metadata of its photo, as .png or .jpg.

    PNG keeps every byte; JPEG (quality 95, no subsampling) changes all pixels a little,
    and drops opacity and EXIF of more than 65,000 bytes. With `gray`, the file has one
    channel; in PNG, `deep` replaces it by 16 bits. `about` is stored as JSON for
    `read_about`.

    Raises:
      PictureError: for another extension, or if the file cannot be written.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise PictureError(
            f"expected a file name that ends in .png or .jpg, got {path}"
        )
    is_png = suffix == ".png"
    if not is_png:
        pixels = modes.gamma_to_srgb(pixels, photo.gamma)  # JPEG has no gamma.
    image = Image.fromarray(pixels[..., 0] if gray else pixels)
    options: dict[str, Any] = {}
    if photo.icc_profile:
        options["icc_profile"] = photo.icc_profile
    if photo.exif and (is_png or len(photo.exif) <= _MAX_JPEG_EXIF):
        options["exif"] = photo.exif
    if photo.dpi:
        options["dpi"] = photo.dpi
    text = json.dumps(about) if about is not None else None
    if is_png:
        if deep is not None:
            image = Image.fromarray(deep)
        elif alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        options["pnginfo"] = PngImagePlugin.PngInfo()
        if photo.gamma:
            gamma = round(photo.gamma * 100_000)
            options["pnginfo"].add(b"gAMA", struct.pack(">I", gamma))
        if text is not None:
            options["pnginfo"].add_itxt(_KEY, text)
    else:
        options |= {"quality": 95, "subsampling": 0}
        if text is not None:
            options["comment"] = f"{_KEY} {text}"
    try:
        with atomic.writing(path) as part, part.open("wb") as file:
            image.save(file, format="PNG" if is_png else "JPEG", **options)
    except (OSError, ValueError) as error:
        raise PictureError(f"could not write {path}: {error}") from error


def read_about(
    source: str | os.PathLike, *, is_decoded: bool = True
) -> dict[str, Any] | None:
    """Returns the metadata that `write` stored; None if the file has none.

    Args:
      source: the file.
      is_decoded: whether to find metadata that another program moved behind the pixels,
        which takes the time to decode them.
    """
    try:
        with Image.open(source) as image:
            if image.format == "PNG" and is_decoded:
                image.load()
            text = image.info.get(_KEY)
            comment = image.info.get("comment", b"")
    except Exception:  # Broken files make Pillow raise any exception.
        return None
    if text is None and isinstance(comment, bytes):
        start = f"{_KEY} ".encode()
        text = comment.removeprefix(start) if comment.startswith(start) else None
    try:
        about = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) else None


def data_uri(image: Image.Image, *, form: str = "png", **options: Any) -> str:
    """Returns a picture as a data URI, encoded with options of Pillow."""
    file = io.BytesIO()
    image.save(file, form, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{form};base64,{data}"
