"""Pillow's modes: what of a picture is colour, opacity and EXIF, and bytes of it."""

import contextlib
import io
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import ExifTags, Image, ImageCms, ImageOps

_GRAY = ("1", "L", "LA", "La")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Of one channel, all of them.
_HAS_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
# Of a TIFF file's own tags, those that are still true of a result in another file:
# description, camera, resolution, software, date, artist, copyright, EXIF and GPS.
_TIFF_KEPT = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853)


def upright(
    image: Image.Image, warnings: list[str]
) -> tuple[Image.Image, bytes | None]:
    """Carries the EXIF rotation out; returns the EXIF without it, None if empty."""
    file_format = image.format
    try:
        exif = image.getexif()
        for tag in list(exif):
            is_layout = file_format == "TIFF" and tag not in _TIFF_KEPT
            if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                exif.get_ifd(tag)  # Reads it, while the file is open.
            elif is_layout and tag != _ORIENTATION:
                del exif[tag]
        image = ImageOps.exif_transpose(image)
        if _ORIENTATION in exif:
            del exif[_ORIENTATION]
        return image, exif.tobytes() if len(exif) else None
    except Exception as error:  # Pillow raises whatever broken EXIF leads it to.
        warnings.append(f"its EXIF is broken and left out ({error})")
        return image, None


def is_gray(image: Image.Image) -> bool:
    """Tells whether a picture has one channel, beside its opacity."""
    return image.mode in (*_GRAY, *_DEEP)


def opacity(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """Returns the opacity of a picture, None where its file has none."""
    transparent = image.info.get("transparency")
    if image.mode in _DEEP and isinstance(transparent, int):
        return np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)
    if transparent is None and image.mode not in _HAS_ALPHA:
        return None
    return np.asarray(_plain(image).convert("RGBA"))[..., 3].copy()


def deep(image: Image.Image) -> UInt16[np.ndarray, "h w"] | None:
    """Returns the values of a picture with one channel of 16 bits, else None."""
    if image.mode not in _DEEP or image.mode == "F":
        return None
    values = np.asarray(image).astype(np.int64)
    # 32 bits may hold 8 or 16 bits; Pillow does not say.
    if image.mode == "I" and not (0 <= values.min() and 255 < values.max() < 65536):
        return None
    return values.astype(np.uint16)


def to_bytes(
    image: Image.Image, profile: bytes | None, warnings: list[str]
) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """Returns three channels of a byte, and the profile that says what they mean."""
    if image.mode in _DEEP:
        image = _to_8_bits(image, warnings)
    if image.mode in ("CMYK", "LAB"):  # A profile of theirs says nothing of RGB.
        return np.asarray(_to_srgb(image, profile, warnings).convert("RGB")), None
    image = _plain(image)
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")), profile


def gray_to_srgb(
    pixels: UInt8[np.ndarray, "h w 3"], profile: bytes | None
) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """Brings gray from a profile of one channel, which cannot say colours, to sRGB."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, TypeError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        if source.profile.xcolor_space.strip() == "GRAY":
            gray = Image.fromarray(pixels[..., 0])
            srgb: Any = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(gray, source, srgb, outputMode="RGB")
            assert converted is not None  # It is only where it works in place.
            return np.asarray(converted), None
    return pixels, profile


def _plain(image: Image.Image) -> Image.Image:
    """Divides colours that are multiplied by the opacity."""
    plain = {"La": "LA", "RGBa": "RGBA"}
    return image.convert(plain[image.mode]) if image.mode in plain else image


def _to_8_bits(image: Image.Image, warnings: list[str]) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        scale = 255.0 if values.max() <= 1 else 1.0
    else:
        scale = 1.0 if image.mode == "I" and values.max() <= 255 else 255 / 65535
    warnings.append(f"its {image.mode} pixels are brought to 8 bits for the network")
    return Image.fromarray(np.round(values * scale).clip(0, 255).astype(np.uint8))


def _to_srgb(
    image: Image.Image, profile: bytes | None, warnings: list[str]
) -> Image.Image:
    """Converts by the profile, or as Pillow does without."""
    if profile is None and image.mode == "CMYK":
        return image
    srgb: Any = ImageCms.createProfile("sRGB")
    try:
        source: Any = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if profile
            else ImageCms.createProfile("LAB")
        )
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        if converted is not None:
            warnings.append(f"its {image.mode} colours are brought to sRGB")
            return converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warnings.append("its colour profile cannot be used and is left out")
    return image
