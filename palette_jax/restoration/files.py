"""A user's picture from its file to sRGB bytes, and the result back to a file.

Everything that Pillow opens is read. What cannot be kept is said in a warning.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from palette_jax.errors import UserError

MAX_PIXELS = 100_000_000

_KEY = "palette_jax"  # Of the settings, among the texts of a PNG file.
_MODES_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# Colours that sRGB profiles of PNG and JPEG files can describe; others are converted.
_RGB_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA")


class PictureError(UserError):
    """A picture that cannot be read or written; the message says why."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A picture upright and in three channels, and what its file said beside it.

    Attributes:
      pixels: the picture; where its file has a profile, in that profile's colours.
      alpha: the opacity, None where the file has none.
      is_gray: whether the file holds one channel.
      icc_profile: what the bytes mean as colours, None for sRGB.
      exif: date, camera and so on, without the rotation, which is carried out.
      format: of the file, as Pillow calls it.
      name: of the file, for messages.
      warnings: what was changed on reading.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    is_gray: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    format: str | None = None
    name: str = "the picture"
    warnings: tuple[str, ...] = ()


def read(
    source: str | os.PathLike | io.BufferedIOBase | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """Reads a picture of any size and mode.

    Args:
      source: a path, the bytes of a file, or an open file.
      name: for messages; by default the path's.
      max_pixels: a larger one is refused before it is decoded.

    Raises:
      PictureError: if it is no picture, a broken one, or too large.
    """
    if name is None:
        is_path = isinstance(source, str | os.PathLike)
        name = str(source) if is_path else "the picture"
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    image = _open(file, name, max_pixels)
    file_format, warnings = image.format, []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        warnings.append(f"it has {frames} frames; the first is taken")
    image, exif = _upright(image, warnings)
    profile = image.info.get("icc_profile")
    is_gray = image.mode in ("1", "L", "LA", "La", "F", *_MODES_OF_16_BITS)
    alpha = None
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        if image.mode in ("La", "RGBa"):  # Colours multiplied by the opacity.
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        alpha = np.asarray(image.convert("RGBA"))[..., 3].copy()
    if image.mode in _MODES_OF_16_BITS or image.mode == "F":
        image = _to_8_bits(image, warnings)
    if image.mode not in _RGB_MODES and (profile or image.mode == "LAB"):
        image = _to_srgb(image, profile, warnings)
        profile = None
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    pixels = np.asarray(image.convert("RGB"))
    return Photo(
        pixels, alpha, is_gray, profile, exif, file_format, name, tuple(warnings)
    )


def _open(file: Any, name: str, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(file)
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(
                f"{name}: expected at most {max_pixels:,} pixels, got {width} x"
                f" {height} = {width * height:,}; make it smaller, or cut it in parts"
            )
        image.load()
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}: expected at most {max_pixels:,} pixels, got far more"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(
            f"{name}: expected a picture that Pillow reads, got something else; save it"
            " as PNG or JPEG"
        ) from error
    except FileNotFoundError as error:
        raise PictureError(f"{name}: there is no such file") from error
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(
            f"{name}: expected a whole picture, got a broken or unreadable file"
            f" ({error})"
        ) from error
    return image


def write(
    path: str | os.PathLike,
    pixels: UInt8[np.ndarray, "h w 3"],
    photo: Photo,
    *,
    alpha: UInt8[np.ndarray, "h w"] | None = None,
    gray: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a result, with what the file of its photo said beside the picture.

    A file that is half written never has the final name. PNG keeps every byte; JPEG
    (quality 95, no subsampling) changes all pixels a little and has no opacity.

    Args:
      path: ends in .png, .jpg or .jpeg.
      pixels: of the result.
      photo: gives profile and EXIF.
      alpha: the opacity of the result.
      gray: writes one channel.
      about: kept in the file as JSON, for `read_about`.

    Raises:
      PictureError: for another ending, or if it cannot be written.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise PictureError(
            f"expected a file name that ends in .png or .jpg, got {path}"
        )
    image = Image.fromarray(pixels)
    if gray:
        image = Image.fromarray(pixels[..., 0])
    options: dict[str, Any] = {}
    # A profile of three channels does not fit one.
    if photo.icc_profile and not gray:
        options["icc_profile"] = photo.icc_profile
    if photo.exif:
        options["exif"] = photo.exif
    text = json.dumps(about) if about is not None else None
    if suffix == ".png":
        if alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        if text is not None:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt(_KEY, text)
    else:
        options |= {"quality": 95, "subsampling": 0}
        if text is not None:
            options["comment"] = f"{_KEY} {text}"
    part = path.parent / (path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            image.save(file, format="PNG" if suffix == ".png" else "JPEG", **options)
        part.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise PictureError(f"could not write {path}: {error}") from error


def read_about(source: str | os.PathLike) -> dict[str, Any] | None:
    """Returns what `write` was told about a result; None if it is no such file."""
    try:
        with Image.open(source) as image:
            if image.format == "PNG":
                image.load()  # Texts may stand behind the picture.
            text = image.info.get(_KEY)
            comment = image.info.get("comment", b"")
    except (OSError, SyntaxError, ValueError):
        return None
    if text is None and isinstance(comment, bytes):
        start = f"{_KEY} ".encode()
        text = comment.removeprefix(start) if comment.startswith(start) else None
    try:
        about = json.loads(text) if text else None
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def _upright(
    image: Image.Image, warnings: list[str]
) -> tuple[Image.Image, bytes | None]:
    """Carries the EXIF rotation out; returns the EXIF without it."""
    try:
        image = ImageOps.exif_transpose(image)
        exif = image.getexif().tobytes() if len(image.getexif()) else None
    except Exception as error:  # Pillow raises whatever broken EXIF leads it to.
        warnings.append(f"its EXIF is broken and left out ({error})")
        return image, None
    return image, exif


def _to_8_bits(image: Image.Image, warnings: list[str]) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        scale = 255.0 if values.max() <= 1 else 1.0
    else:
        # 32 bits may hold 8 or 16 bits; Pillow does not say.
        scale = 1.0 if image.mode == "I" and values.max() <= 255 else 255 / 65535
    warnings.append(f"its {image.mode} pixels are brought to 8 bits")
    return Image.fromarray(np.round(values * scale).clip(0, 255).astype(np.uint8))


def _to_srgb(
    image: Image.Image, profile: bytes | None, warnings: list[str]
) -> Image.Image:
    """Converts what is not RGB by its profile, or as Pillow does without."""
    srgb: Any = ImageCms.createProfile("sRGB")
    flat = image.convert("L") if image.mode in ("1", "LA") else image
    try:
        source: Any = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if profile
            else ImageCms.createProfile("LAB")
        )
        converted = ImageCms.profileToProfile(flat, source, srgb, outputMode="RGB")
        if converted is not None:
            warnings.append(f"its {image.mode} colours are brought to sRGB")
            return converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warnings.append("its colour profile cannot be used and is left out")
    return image
