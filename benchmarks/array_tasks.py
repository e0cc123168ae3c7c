"""The training tasks in numpy and Pillow, for machines without TensorFlow.

The random draws differ from `palette_jax/data/tasks.py`, but have the same
distributions. A task is a function of a generator and a picture, uint8 [size, size, 3];
it returns `x` and `hole`.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from benchmarks import array_masks
from palette_jax.pictures import resize
from palette_jax.tasks import colorize as color
from palette_jax.tasks import superres as enlarge
from palette_jax.tasks.task import Degraded, Gray, UserInputs, whole

Picture = UInt8[np.ndarray, "size size 3"]
Task = Callable[[np.random.Generator, Picture], Degraded]

_QUALITIES = np.arange(5, 31)  # Of JPEG, drawn in proportion to exp(-quality / 10).
_SCRATCHES = 4  # At most.


def colorize(
    rng: np.random.Generator,
    picture: Picture,
    *,
    gray: Gray = "luma",
    hints: bool = False,
) -> Degraded:
    """Returns the picture in gray; with hints, often with a few true colours."""
    x = color.degrade(picture, UserInputs(gray=gray)).x
    if hints:
        x = np.where(array_masks.hints(rng, len(picture)), picture, x)
    return whole(x)


def inpaint(rng: np.random.Generator, picture: Picture) -> Degraded:
    """Cuts out strokes for 60% of the pictures and rectangles for the others."""
    is_free = rng.uniform() < 0.6
    draw = array_masks.free_form if is_free else array_masks.rectangles
    return _cut_out(draw(rng, len(picture)), picture)


def uncrop(rng: np.random.Generator, picture: Picture) -> Degraded:
    """Cuts out one half: at a side, or all around."""
    return _cut_out(array_masks.uncrop(rng, len(picture)), picture)


def jpeg(rng: np.random.Generator, picture: Picture) -> Degraded:
    """Compresses with a quality of 5 to 30."""
    weights = np.exp(-_QUALITIES / 10)
    quality = rng.choice(_QUALITIES, p=weights / weights.sum())
    return whole(compress(picture, int(quality)))


def superres(rng: np.random.Generator, picture: Picture) -> Degraded:
    """Shrinks four times on each side, and enlarges again."""
    del rng
    size = len(picture)
    small = resize.resize(
        picture, max(size // enlarge.SCALE, 1), max(size // enlarge.SCALE, 1)
    )
    return whole(resize.resize(small, size, size))


def old_photo(rng: np.random.Generator, picture: Picture) -> Degraded:
    """Fades, blurs, adds grain and scratches, each three times in four; compresses."""
    image = picture.astype(np.float32)
    for step in (_fade, _blur, _grain, _scratch):
        if rng.uniform() < 0.75:
            image = step(rng, image)
    image = np.round(image).clip(0, 255).astype(np.uint8)
    return whole(compress(image, int(rng.integers(30, 96))))


TASKS: dict[str, Task] = {
    "colorize": colorize,
    "inpaint": inpaint,
    "uncrop": uncrop,
    "jpeg": jpeg,
    "superres": superres,
    "old_photo": old_photo,
}


def compress(picture: Picture, quality: int) -> Picture:
    """Returns a picture after JPEG compression of this quality."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _cut_out(hole: UInt8[np.ndarray, "size size 1"], picture: Picture) -> Degraded:
    return Degraded(np.where(hole > 0, 0, picture).astype(np.uint8), hole)


def _fade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Reduces contrast and colour, and adds a warm tint."""
    contrast, lift, saturation, tint = rng.uniform(size=4).astype(np.float32)
    gray = image.mean(-1, keepdims=True)
    image = gray + (image - gray) * saturation
    image = 128 + (image - 128) * (0.4 + 0.6 * contrast) + 60 * (lift - 0.3)
    return image + tint * np.array([25, 5, -25], np.float32)


def _blur(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blurs by a Gaussian of up to 3% of the picture's size."""
    size = len(image)
    deviation = 0.3 + rng.uniform() * 0.03 * size
    reach = max(round(0.06 * size), 2)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / deviation))
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):  # Along the rows, and turned, along the columns.
        padded = np.pad(image, ((reach, reach), (0, 0), (0, 0)), "symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), 0)
        image = (windows @ weights).swapaxes(0, 1)
    return image


def _grain(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Adds noise, partly equal in all channels."""
    strength, share = rng.uniform(size=2).astype(np.float32)
    gray = rng.standard_normal((*image.shape[:2], 1), np.float32)
    colored = rng.standard_normal(image.shape, np.float32)
    return image + 25 * strength * (share * colored + (1 - share) * gray)


def _scratch(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Draws thin lines across, bright or dark."""
    size = len(image)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    for _ in range(rng.integers(1, _SCRATCHES + 1)):
        place, angle, width, tone, opacity = rng.uniform(size=5).astype(np.float32)
        angle *= np.pi
        across = axis[:, None] * np.cos(angle) + axis[None, :] * np.sin(angle)
        # Half a pixel to 1.5% of the picture on each side of the line.
        half = 0.5 / size + 0.015 * width * width
        cover = ((half - np.abs(across - place + 0.5)) * size + 0.5).clip(0, 1)
        cover = (cover * (0.5 + 0.5 * opacity))[..., None]
        image = image * (1 - cover) + (235.0 if tone < 0.7 else 30.0) * cover
    return image
