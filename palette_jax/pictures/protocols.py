"""Published evaluation protocols: crop, resize and inputs of the networks."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from palette_jax.pictures import resize


class Protocol(NamedTuple):
    """A published evaluation protocol.

    Attributes:
      description: of its differences to other protocols.
      square: converts a picture of any size to a square of `size` pixels, by the
        described crop and resize.
      clean: whether Inception's input is resized as in clean-fid.
      whole: whether the classifier's input is the whole picture.
    """

    description: str
    square: Callable[[np.ndarray, int], np.ndarray]
    crop: str = "central square"
    resize: str = "by area, bicubic where that enlarges"
    clean: bool = False
    whole: bool = False


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
