"""Super-resolution: four times as many pixels on each side (SR3, Saharia et al. 2021).

The input of the model is the enlarged picture; the result is larger than the photo.
"""

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError
from palette_jax.pictures import resize
from palette_jax.pictures.files import MAX_PIXELS
from palette_jax.tasks.task import Degraded, Task, UserInputs, whole

SCALE = 4


def degrade(picture: UInt8[np.ndarray, "h w 3"], given: UserInputs) -> Degraded:
    """Returns the picture enlarged by a bicubic curve.

    Raises:
      UserError: if the result would be too large.
    """
    del given
    height, width = SCALE * picture.shape[0], SCALE * picture.shape[1]
    if height * width > MAX_PIXELS:
        raise UserError(
            f"expected at most {MAX_PIXELS:,} pixels once enlarged, got {width} x"
            f" {height} = {width * height:,}; shrink the picture first, or crop it"
        )
    return whole(resize.resize(picture, height, width))


TASK = Task(
    name="superres",
    title="Enlarge",
    sentence=f"Enlarges a picture {SCALE} times and adds the details it lacks.",
    degrade=degrade,
    degradation=lambda options: f"{SCALE} times fewer pixels on each side, enlarged",
    scale=SCALE,
    means=SCALE,
)
