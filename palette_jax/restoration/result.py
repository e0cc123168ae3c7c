"""The result of a restoration."""

import dataclasses
import io
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files, masks, resize
from palette_jax.pictures.files import Photo
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, uncrop

_GAP = 4  # Pixels between pictures in a notebook.


@dataclasses.dataclass(frozen=True)
class Result:
    """A restored picture, or several with different seeds.

    Attributes:
      pictures: one for each of `settings.seeds`; gray photos stay gray unless they
        are colorized.
      hole: 1 at painted pixels; all 0 for tasks without a hole.
      about: further metadata for the files.
    """

    photo: Photo
    settings: Settings
    pictures: list[UInt8[np.ndarray, "h w 3"]]
    hole: UInt8[np.ndarray, "h w 1"]
    warnings: list[str]
    about: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture, which also reproduces it alone."""
        return self.settings.seeds

    @property
    def deviation(self) -> Float32[np.ndarray, "h w"]:
        """The standard deviation of the samples in bytes, averaged over channels."""
        # One after the other: large pictures would not fit together.
        mean, squares = (np.zeros(self.pictures[0].shape, np.float32) for _ in range(2))
        for count, picture in enumerate(self.pictures, 1):
            step = picture - mean
            mean += step / count
            squares += step * (picture - mean)
        return np.sqrt(squares / len(self.pictures)).mean(-1)

    def distance(self, other: "Result") -> float:
        """Returns the root mean square difference to other samples, in bytes."""
        pairs = zip(self.pictures, other.pictures, strict=True)
        squares = [np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs]
        return float(np.sqrt(np.mean(squares)))

    @property
    def alpha(self) -> UInt8[np.ndarray, "h w"] | None:
        """The opacity of the photo; its extension is opaque."""
        alpha, task = self.photo.alpha, TASKS[self.settings.task]
        if alpha is None:
            return None
        if task.scale > 1:
            height, width = alpha.shape
            larger = (task.scale * height, task.scale * width)
            return resize.resize(alpha[..., None], *larger)[..., 0]
        if not task.extends:
            return alpha
        edges = uncrop.margins(self.photo.pixels.shape, self.settings.extend)
        return np.pad(alpha, edges, constant_values=255)

    def as_photo(self) -> Photo:
        """Returns the first picture as a photo, for a further restoration."""
        return dataclasses.replace(
            self.photo,
            pixels=self.pictures[0],
            alpha=self.alpha,
            is_gray=self._is_gray,
            deep=self._deep(0),
            warnings=(),
        )

    def save(
        self,
        path: str | os.PathLike,
        *,
        index: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one of the pictures, with the metadata of the photo.

        Args:
          path: ends in .png or .jpg.
          index: of the picture.
          about: further metadata, stored beside the settings that reproduce the
            picture.

        Raises:
          PictureError: if the file cannot be written.
        """
        settings = self.settings.alone()[index]
        about = {**self.about, **(about or {})}
        # A JPEG has no room for it, and keeps no known pixels anyway.
        if TASKS[settings.task].needs_mask and str(path).lower().endswith(".png"):
            about["hole"] = masks.pack(self.hole)
        files.write(
            path,
            self.pictures[index],
            self.photo,
            alpha=self.alpha,
            gray=self._is_gray,
            deep=self._deep(index),
            about={**about, "settings": settings.to_json()},
        )

    def _repr_png_(self) -> bytes:
        """Returns a PNG for notebooks: the pictures side by side, shrunk to fit."""
        height, width = self.pictures[0].shape[:2]
        steps = range(0, len(self.pictures) * (width + _GAP), width + _GAP)
        sheet = Image.new("RGBA", (steps[-1] + width, height))
        for left, picture in zip(steps, self.pictures, strict=True):
            image = Image.fromarray(picture)
            image.putalpha(255 if self.alpha is None else Image.fromarray(self.alpha))
            sheet.paste(image, (left, 0))
        sheet.thumbnail((2048, 2048))
        file = io.BytesIO()
        sheet.save(file, format="PNG")
        return file.getvalue()

    @property
    def _is_gray(self) -> bool:
        return self.photo.is_gray and not TASKS[self.settings.task].brings_colour

    def _deep(self, index: int) -> UInt16[np.ndarray, "h w"] | None:
        """Returns a picture in 16 bits, if its known pixels have 16 bits."""
        task = TASKS[self.settings.task]
        if self.photo.deep is None or not (task.needs_mask or task.extends):
            return None
        values = self.pictures[index][..., 0].astype(np.uint16) * 257
        edges = ((0, 0), (0, 0))
        if task.extends:
            edges = uncrop.margins(self.photo.pixels.shape, self.settings.extend)
        return np.where(self.hole[..., 0] > 0, values, np.pad(self.photo.deep, edges))


def read_about(path: str) -> tuple[dict[str, Any], Settings]:
    """Returns the metadata of a result file, and the settings in it.

    Raises:
      UserError: if the file is no result, or its settings are forged.
    """
    about = files.read_about(path)
    if about is None or "settings" not in about:
        raise UserError(
            f"expected a result of `palette-jax restore`, got {path} without settings;"
            " name the original file"
        )
    return about, Settings.from_json(about["settings"])


def made_from(
    photo: bytes,
    *,
    mask: tuple[str, bytes] | None = None,
    invert: bool = False,
    hints: tuple[str, bytes] | None = None,
) -> dict[str, Any]:
    """Returns checksums of the input files, as metadata for `Result.save`."""
    about: dict[str, Any] = {"input_crc32": zlib.crc32(photo)}
    for name, file in (("hints", hints), ("mask", mask)):
        if file is not None:
            about |= {name: file[0], f"{name}_crc32": zlib.crc32(file[1])}
    return about | ({} if mask is None else {"invert": invert})
