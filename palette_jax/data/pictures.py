"""Loads the pictures of one example, or returns the reason for a failure."""

import tensorflow as tf

from palette_jax.data import images
from palette_jax.data.sources import Source


def load(encoded: dict[str, tf.Tensor], min_side: int) -> dict[str, tf.Tensor]:
    """Returns the decoded picture; for a pair, `x` is resized to the size of `y`.

    Fails if a file cannot be decoded, the shorter side is below `min_side`, or `x` and
    `y` differ in aspect by more than a pixel.
    """
    picture = {key: images.decode(file) for key, file in encoded.items()}
    y = picture["y"]
    tf.debugging.assert_greater_equal(tf.reduce_min(tf.shape(y)[:2]), min_side)
    if "x" in picture:
        picture["x"] = _fit(picture["x"], y)
    return picture


def diagnose(source: Source, index: int, min_side: int) -> str | None:
    """Returns the reason why a picture fails to load; None if it loads."""
    try:
        encoded = source.read(tf.constant(index, tf.int64))
    except tf.errors.OpError as error:
        return f"cannot be read: {_short(error)}"
    shapes = {}
    for key, file in encoded.items():
        try:
            shapes[key] = images.decode(file).shape
        except tf.errors.OpError as error:
            return f"cannot be decoded: {_short(error)}"
    height, width = shapes["y"][:2]
    if min(height, width) < min_side:
        return f"too small: {width} x {height}, need {min_side}"
    try:
        load(encoded, min_side)
    except tf.errors.OpError:
        x_height, x_width = shapes["x"][:2]
        return f"a pair of two shapes: {x_width} x {x_height} and {width} x {height}"
    return None


def _fit(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns `x` resized to `y`, which must have the same aspect."""
    height, width = tf.unstack(tf.shape(y)[:2])
    x_height, x_width = tf.unstack(tf.shape(x)[:2])
    # Divided by a side of one picture, this is in pixels of a side of the other.
    difference = tf.abs(height * x_width - x_height * width)
    longest = tf.reduce_max([height, width, x_height, x_width])
    tf.debugging.assert_less_equal(difference, longest)
    is_equal = tf.logical_and(height == x_height, width == x_width)
    return tf.cond(is_equal, lambda: x, lambda: images.resize(x, height, width))


def _short(error: tf.errors.OpError) -> str:
    """Returns the message of an error without the name of the operation."""
    message = error.message.split("}}")[-1].split("[Op:")[0]
    return " ".join(message.split())[:200]
