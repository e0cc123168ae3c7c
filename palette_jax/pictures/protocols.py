"""How pictures are cut and shown to the networks that judge them, by published name."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from palette_jax.pictures import resize


class Protocol(NamedTuple):
    """An evaluation that others can repeat.

    Attributes:
      description: in a few words, what is its own.
      square: from a picture of any size to a square of `size` pixels.
      crop: how that is cut, in words.
      resize: how it is resized, in words.
      clean: whether Inception sees pictures as clean-fid resizes them.
      whole: whether the classifier sees the whole picture.
    """

    description: str
    square: Callable[[np.ndarray, int], np.ndarray]
    crop: str = "central square"
    resize: str = "by area, bicubic where that enlarges"
    clean: bool = False
    whole: bool = False

    def to(self, size: int) -> Callable[[np.ndarray], np.ndarray]:
        """Returns what makes a square of `size` pixels of a picture."""
        return lambda pixels: self.square(pixels, size)


PROTOCOLS = {
    "paper": Protocol(
        "FID as pytorch-fid; CA sees the central 224 of 256 pixels",
        resize.center_square,
    ),
    "i2sb": Protocol(
        "FID as pytorch-fid; CA sees the whole picture at 224 pixels (bicubic)",
        resize.torchvision_square,
        crop="centre, after resizing",
        resize="short side by Pillow's bilinear filter, as torchvision's Resize",
        whole=True,
    ),
    "clean-fid": Protocol(
        "FID as clean-fid (Pillow's bicubic filter); CA sees the central 224 of 256"
        " pixels",
        resize.center_square,
        clean=True,
    ),
}
