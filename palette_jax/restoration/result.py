"""What comes back from a restoration."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from palette_jax.restoration import files, tasks
from palette_jax.restoration.files import Photo
from palette_jax.restoration.settings import Settings


@dataclasses.dataclass(frozen=True)
class Result:
    """A restored picture, or several that differ by their seeds.

    Attributes:
      photo: what was restored.
      settings: how.
      pictures: one for each of `settings.seeds`; gray photos stay gray unless they
        are colorized.
      warnings: what the user should know.
      about: what is kept in the files beside the settings.
    """

    photo: Photo
    settings: Settings
    pictures: list[UInt8[np.ndarray, "h w 3"]]
    warnings: list[str]
    about: dict[str, Any]

    @property
    def deviation(self) -> Float32[np.ndarray, "h w"]:
        """How far samples differ: standard deviation in bytes, the channels' mean."""
        return np.stack(self.pictures).astype(np.float32).std(0).mean(-1)

    @property
    def alpha(self) -> UInt8[np.ndarray, "h w"] | None:
        """The opacity of the photo; what is painted beside it is opaque."""
        if self.photo.alpha is None or self.settings.task != "uncrop":
            return self.photo.alpha
        edges = tasks.margins(self.photo.pixels.shape, self.settings.extend)
        return np.pad(self.photo.alpha, edges, constant_values=255)

    def as_photo(self, *, index: int = 0) -> Photo:
        """Returns one of the pictures as a photo, to go on from."""
        return dataclasses.replace(
            self.photo, pixels=self.pictures[index], alpha=self.alpha, warnings=()
        )

    def save(
        self,
        path: str | os.PathLike,
        *,
        index: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one of the pictures, at the photo's size and with what its file held.

        Args:
          path: ends in .png or .jpg.
          index: of the picture.
          about: kept in the file, beside the settings that give this picture again.

        Raises:
          PictureError: if it cannot be written.
        """
        settings = self.settings.alone()[index]
        files.write(
            path,
            self.pictures[index],
            self.photo,
            alpha=self.alpha,
            gray=self.photo.is_gray and settings.task not in ("colorize", "paired"),
            about={**self.about, **(about or {}), "settings": settings.to_json()},
        )
