"""The tasks: make the model's input from a clean picture.

A task is a function of a seed and a picture, `{"y": uint8 [size, size, 3]}`; a picture
of a paired source also has its `x`. It returns `x`, `y` and `hole`, all uint8. The rest
of the pipeline does not depend on the task.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from palette_jax.data import degradations, images, masks
from palette_jax.pictures import lightness

Picture = dict[str, tf.Tensor]
Task = Callable[[tf.Tensor, Picture], Picture]


def colorize(
    seed: tf.Tensor,
    picture: Picture,
    *,
    gray: Literal["luma", "lightness"] = "luma",
    hints: bool = False,
) -> Picture:
    """Makes the picture gray, with three equal channels.

    With `hints`, a few small squares keep their colours in half of the examples, so
    that a user can set true colours.
    """
    make = {"luma": _luma, "lightness": _lightness}[gray]
    x = tf.repeat(make(picture["y"])[..., None], 3, -1)
    if hints:
        is_hint = masks.hints(seed, _size(picture))
        x = tf.where(is_hint > 0, picture["y"], x)
    return _whole(x, picture["y"])


def inpaint(seed: tf.Tensor, picture: Picture, *, mask: str = "mixed") -> Picture:
    """Cuts a hole out of the picture; a picture with a `hole` keeps it.

    `mask` is "free_form", "rectangles", "center", or "mixed": free-form strokes for 60%
    of the pictures and rectangles for the others, as in Palette; or strokes of a share
    in percent, "free_form_10_20", "_20_30" or "_30_40".
    """
    draws = {
        "mixed": _mixed_mask,
        "free_form": masks.free_form,
        "rectangles": masks.rectangles,
        "center": lambda seed, size: tf.constant(masks.center(size)),
    }
    for low, high in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4)):
        name = f"free_form_{low:.0%}_{high:.0%}".replace("%", "")
        draws[name] = functools.partial(masks.free_form, bounds=(low, high))
    hole = picture.get("hole")
    if hole is None:
        hole = draws[mask](seed, _size(picture))
    return _cut_out(hole, picture["y"])


def uncrop(seed: tf.Tensor, picture: Picture, *, side: str = "mixed") -> Picture:
    """Cuts one half off the picture.

    `side` is where that half lies: "left", "right", "top", "bottom" or "all" around;
    "mixed" is all around for one picture in two, else one of the sides.
    """
    sides = masks.SIDES if side == "mixed" else (side,)
    holes = tf.constant(np.stack([masks.uncrop(s, _size(picture)) for s in sides]))
    # Of eight equal draws, each side has one and "all", the last, has four.
    draw = tf.random.stateless_uniform([], seed, 0, 8, tf.int32)
    return _cut_out(holes[tf.minimum(draw, len(sides) - 1)], picture["y"])


def jpeg(
    seed: tf.Tensor, picture: Picture, *, min_quality: int = 5, max_quality: int = 30
) -> Picture:
    """Compresses the picture as a JPEG, with the bytes of Pillow's.

    The quality has a probability proportional to exp(-quality / 10), bounds included;
    equal bounds fix it.
    """
    cumulated = np.cumsum(np.exp(-np.arange(min_quality, max_quality + 1) / 10))
    bounds = (cumulated / cumulated[-1])[:-1].astype(np.float32)
    draw = tf.random.stateless_uniform([], seed)
    above = tf.reduce_sum(tf.cast(draw >= bounds, tf.int32))
    x = tf.image.adjust_jpeg_quality(
        picture["y"], min_quality + above, dct_method=images.JPEG_DCT
    )
    return _whole(x, picture["y"])


def superres(seed: tf.Tensor, picture: Picture) -> Picture:
    """Shrinks the picture to a quarter of its size and enlarges it again."""
    del seed
    size = _size(picture)
    small = images.resize(picture["y"], max(size // 4, 1), max(size // 4, 1))
    return _whole(images.resize(small, size, size), picture["y"])


def old_photo(seed: tf.Tensor, picture: Picture) -> Picture:
    """Makes the picture an old photograph; see `degradations.old_photo`."""
    return _whole(degradations.old_photo(seed, picture["y"]), picture["y"])


def paired(seed: tf.Tensor, picture: Picture) -> Picture:
    """Takes the first picture of a pair as the input of the second."""
    del seed
    return _whole(picture["x"], picture["y"])


def multitask(
    seed: tf.Tensor,
    picture: Picture,
    *,
    tasks: Sequence[Task],
    weights: Sequence[float],
) -> Picture:
    """Applies one of several tasks, at random for each picture."""
    bounds = (np.cumsum(weights) / np.sum(weights))[:-1].astype(np.float32)
    seed_choice, seed_task = tf.unstack(tf.random.split(seed, 2))
    draw = tf.random.stateless_uniform([], seed_choice)
    choice = tf.reduce_sum(tf.cast(draw >= bounds, tf.int32))
    branches = [lambda f=task: f(seed_task, picture) for task in tasks]
    return tf.switch_case(choice, branches)


def _luma(y: tf.Tensor) -> tf.Tensor:
    # The fixed-point numbers of Pillow's convert("L").
    red, green, blue = tf.unstack(tf.cast(y, tf.int32), axis=-1)
    luma = 19595 * red + 38470 * green + 7471 * blue + 0x8000
    return tf.cast(tf.bitwise.right_shift(luma, 16), tf.uint8)


def _lightness(y: tf.Tensor) -> tf.Tensor:
    channels = tf.unstack(tf.cast(y, tf.int32), axis=-1)
    light = tf.add_n(
        [tf.gather(lightness.LIGHT[:, i], value) for i, value in enumerate(channels)]
    )
    found = tf.searchsorted(lightness.STEPS, tf.reshape(light, [-1]), side="right")
    return tf.cast(tf.reshape(found, tf.shape(light)), tf.uint8)


def _mixed_mask(seed: tf.Tensor, size: int) -> tf.Tensor:
    seed_kind, seed_mask = tf.unstack(tf.random.split(seed, 2))
    return tf.cond(
        tf.random.stateless_uniform([], seed_kind) < 0.6,
        lambda: masks.free_form(seed_mask, size),
        lambda: masks.rectangles(seed_mask, size),
    )


def _size(picture: Picture) -> int:
    return picture["y"].shape[0]


def _whole(x: tf.Tensor, y: tf.Tensor) -> Picture:
    return {"x": tf.ensure_shape(x, y.shape), "y": y, "hole": tf.zeros_like(y[..., :1])}


def _cut_out(hole: tf.Tensor, y: tf.Tensor) -> Picture:
    # TensorFlow multiplies floats faster than bytes.
    x = tf.cast(y, tf.float32) * tf.cast(1 - hole, tf.float32)
    return {"x": tf.cast(x, tf.uint8), "y": y, "hole": hole}
