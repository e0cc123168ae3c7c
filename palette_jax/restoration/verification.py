"""Compares a result with its photo, and with the same restoration repeated."""

import dataclasses
import functools
import pathlib
import tempfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from palette_jax import interruptible
from palette_jax.errors import UserError
from palette_jax.pictures import files, masks
from palette_jax.pictures.files import Photo
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import Result, read_about
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, UserInputs


class Check(NamedTuple):
    """Whether bits are equal, and a sentence that says which."""

    is_equal: bool
    text: str


@dataclasses.dataclass(frozen=True)
class Stored:
    """A result file with its photo.

    Attributes:
      is_same_photo: whether the result was made from this file, as far as is known.
      mask: the file of the mask, for results that do not store their hole.
    """

    path: str
    about: dict[str, Any]
    settings: Settings
    photo: Photo
    result: Photo
    is_same_photo: bool
    mask: str | None

    @functools.cached_property
    def hole(self) -> UInt8[np.ndarray, "h w 1"] | None:
        """The hole of the photo; None for tasks without a mask."""
        shape = self.photo.pixels.shape
        if not TASKS[self.settings.task].needs_mask:
            return None
        if self.mask:
            invert = self.about.get("invert", False)
            return masks.to_hole(files.read(self.mask), shape, invert=invert)[0]
        if "hole" not in self.about:
            raise UserError(
                f"expected the hole in {self.path}, got none, because it is a JPEG or"
                " of an earlier version; add --mask=FILE"
            )
        return masks.unpack(self.about["hole"], shape)

    def compare_known(self) -> Check:
        """Compares the known pixels with the photo."""
        task = TASKS[self.settings.task]
        degraded = task.degrade(
            self.photo.pixels, UserInputs(self.hole, self.settings.extend)
        )
        known = degraded.hole[..., 0] == 0
        if known.all():
            return Check(True, f"kept: no pixels; {task.name} has no known pixels")
        expected = Result(
            self.photo, self.settings, [degraded.x], degraded.hole, [], {}
        ).as_photo()
        differs = self._differs(expected) & known
        count, total = int(known.sum()), int(differs.sum())
        share = f"{count:,} known pixels ({count / known.size:.1%} of the picture)"
        if not total:
            return Check(True, f"kept: all {share} have the bits of the photo")
        row, column = np.argwhere(differs)[0]
        return Check(
            False,
            f"not kept: {total:,} of {share} differ from the photo, the first in row"
            f" {row}, column {column}",
        )

    def compare_repeated(self, restorer: Restorer, hints: str | None) -> Check:
        """Restores the photo again and compares all pixels."""
        if restorer.about["weights_crc32"] != self.about.get("weights_crc32"):
            return Check(
                False,
                "not regenerated: these are other weights than those of the result",
            )
        again = interruptible.call(
            lambda: restorer.restore(
                self.photo, self.settings, hole=self.hole, hints=hints
            )
        )
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"again{pathlib.Path(self.path).suffix}")
            again.save(path)
            regenerated = files.read(path)
        differs = self._differs(regenerated)
        if not differs.any():
            return Check(True, "regenerated: every pixel has the same bits")
        by = np.abs(regenerated.pixels.astype(int) - self.result.pixels).max()
        return Check(
            False,
            f"not regenerated: {differs.mean():.1%} of the pixels differ, by up to {by}"
            " of 255; another device, number of devices or version of JAX rounds"
            " differently",
        )

    def _differs(self, expected: Photo) -> Bool[np.ndarray, "h w"]:
        """Returns where the result differs, also in its opacity and 16 bits."""
        height, width = expected.pixels.shape[:2]
        if self.result.pixels.shape != expected.pixels.shape:
            raise UserError(
                f"expected {width} x {height} pixels in {self.path}, got"
                f" {self.result.pixels.shape[1]} x {self.result.pixels.shape[0]}; name"
                " the photo of the result"
            )
        differs = (expected.pixels != self.result.pixels).any(-1)
        for layer in ("alpha", "deep"):
            one, other = getattr(expected, layer), getattr(self.result, layer)
            if one is not None or other is not None:
                differs |= True if one is None or other is None else one != other
        return differs


def load(path: str, photo_path: str, *, mask: str | None) -> Stored:
    """Reads a result and its photo; `mask` is for results without a stored hole.

    Raises:
      UserError: if the file is not one restored picture with its settings.
    """
    about, settings = read_about(path)
    if settings.num_samples > 1 or "extensions" in about:
        raise UserError(
            f"expected one restored picture, got {path}, a grid, a deviation or a"
            " panorama; use a file of one seed"
        )
    photo = files.read(photo_path)
    crc32 = zlib.crc32(pathlib.Path(photo_path).read_bytes())
    return Stored(
        path,
        about,
        settings,
        photo=photo,
        result=files.read(path),
        is_same_photo=about.get("input_crc32", crc32) == crc32,
        mask=mask,
    )
