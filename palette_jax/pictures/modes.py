"""Pillow's modes: colour, opacity, EXIF orientation, profiles and value ranges."""

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
    """Applies the EXIF rotation; returns the EXIF without it, None if empty."""
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
    except Exception as error:  # Broken EXIF makes Pillow raise any exception.
        warnings.append(f"its EXIF is broken and left out ({error})")
        return image, None


def is_gray(image: Image.Image) -> bool:
    """Returns whether a picture has one channel, apart from its opacity."""
    return image.mode in (*_GRAY, *_DEEP)


def opacity(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """Returns the opacity of a picture, None if its file has none."""
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
    # Pillow's 32 bits may hold 8 or 16 bits.
    if image.mode == "I" and not (0 <= values.min() and 255 < values.max() < 65536):
        return None
    return values.astype(np.uint16)


def to_bytes(
    image: Image.Image, profile: bytes | None, warnings: list[str]
) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """Returns three 8-bit channels and their colour profile."""
    if image.mode in _DEEP:
        image = _to_8_bits(image, warnings)
    if image.mode in ("CMYK", "LAB"):  # Their profile does not apply to RGB.
        if profile or image.mode == "LAB":
            converted = _to_srgb(image, profile, warnings)
            if converted is not image:
                warnings.append(f"its {image.mode} colours are converted to sRGB")
            image = converted
        return np.asarray(image.convert("RGB")), None
    image = _plain(image)
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")), profile


def profile_to_srgb(
    pixels: UInt8[np.ndarray, "h w 3"], profile: bytes | None, warnings: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Converts a picture from the colours of its profile to sRGB."""
    if profile is None:
        return pixels
    is_gray = profile[16:20] == b"GRAY"  # The header's colour space.
    image = Image.fromarray(pixels[..., 0] if is_gray else pixels)
    converted = _to_srgb(image, profile, warnings)
    return pixels if converted is image else np.asarray(converted)


def gamma_of(image: Image.Image) -> float | None:
    """Returns the exponent of a PNG's chunk gAMA; None if another chunk overrides it.

    The exponent converts light to bytes: about 1/2.2 for sRGB, 1 for linear light.
    """
    info = image.info
    overridden = info.get("icc_profile") or "srgb" in info
    gamma = 0.0 if overridden else float(info.get("gamma") or 0)
    return gamma if 0.01 < gamma < 100 else None


def gamma_to_srgb(
    pixels: UInt8[np.ndarray, "h w 3"], gamma: float | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Converts bytes with an exponent to sRGB; does nothing for sRGB's exponent."""
    if gamma is None or abs(gamma - 1 / 2.2) < 0.01:
        return pixels
    light = (np.arange(256) / 255) ** (1 / gamma)
    low = light <= 0.0031308
    srgb = np.where(low, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb).astype(np.uint8)[pixels]


def _plain(image: Image.Image) -> Image.Image:
    """Divides grays that are multiplied by the opacity, as Pillow does colours."""
    return image.convert("LA") if image.mode == "La" else image


def _to_8_bits(image: Image.Image, warnings: list[str]) -> Image.Image:
    values = np.asarray(image)
    if image.mode not in ("F", "I"):  # All other modes of one channel have 16 bits.
        values = values.astype(np.uint16)
    return Image.fromarray(to_8_bits(values, warnings))


def to_8_bits(values: np.ndarray, warnings: list[str]) -> UInt8[np.ndarray, "..."]:
    """Returns numbers of another type as bytes, and a note on their range.

    Whole numbers of 16 bits have the range of their type. Others have the smallest
    usual range, up to 1, 255 or 65535, that holds all but one in two hundred of them:
    a single bright pixel or an infinity changes nothing.

    Raises:
      ValueError: for numbers that have none of these ranges.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        raise ValueError("expected numbers, got none that is finite")
    low, high = np.quantile(finite, (0.005, 0.995))
    tops = [255.0, 65535.0] if values.dtype.kind in "iu" else [1.0, 255.0, 65535.0]
    if values.dtype == np.uint16:
        tops = [65535.0]
    top = next((top for top in tops if high <= top * 1.01), None)
    if top is None or low < -0.01 * top:
        raise ValueError(
            f"expected values from 0 up to {' or '.join(f'{t:g}' for t in tops)}, got"
            f" {low:.3g} to {high:.3g}; scale them first"
        )
    warnings.append(f"its {values.dtype} values, 0 to {top:g}, are converted to 8 bits")
    numbers = np.nan_to_num(numbers, nan=0.0, posinf=top, neginf=0.0)
    return np.round(numbers * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _to_srgb(
    image: Image.Image, profile: bytes | None, warnings: list[str]
) -> Image.Image:
    """Converts by a profile, or from CIE Lab; returns the image if that fails."""
    file: Any = io.BytesIO(profile) if profile else ImageCms.createProfile("LAB")
    srgb: Any = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(file)
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warnings.append("its colour profile cannot be used and is left out")
        return image
    return converted or image  # It is None only for a conversion in place.
