"""The degradation of old photographs, as seeded graph operations."""

import tensorflow as tf

from palette_jax.data import images

_SCRATCHES = 4  # At most.


def old_photo(seed: tf.Tensor, picture: tf.Tensor) -> tf.Tensor:
    """Returns a picture faded, blurred, grainy, scratched and compressed.

    Applies each of the first four to three pictures in four, and the compression to
    all, with random strengths.

    Args:
      seed: an integer pair.
      picture: uint8, [size, size, 3].
    """
    steps = (_fade, _blur, _grain, _scratch)
    seeds = tf.unstack(tf.random.split(seed, 2 * len(steps) + 1))
    image = tf.cast(picture, tf.float32)
    for step, seed_use, seed_step in zip(steps, seeds[::2], seeds[1::2], strict=False):
        is_used = tf.random.stateless_uniform([], seed_use) < 0.75
        image = tf.cond(
            is_used, lambda f=step, s=seed_step, i=image: f(s, i), lambda i=image: i
        )
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    quality = tf.random.stateless_uniform([], seeds[-1], 30, 96, tf.int32)
    image = tf.image.adjust_jpeg_quality(image, quality, dct_method=images.JPEG_DCT)
    return tf.ensure_shape(image, picture.shape)


def _fade(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Reduces contrast and colour, and adds a warm tint."""
    contrast, lift, color, tint = tf.unstack(tf.random.stateless_uniform([4], seed))
    gray = tf.reduce_mean(image, -1, keepdims=True)
    image = gray + (image - gray) * color
    image = 128.0 + (image - 128.0) * (0.4 + 0.6 * contrast) + 60.0 * (lift - 0.3)
    return image + tint * tf.constant([25.0, 5.0, -25.0])


def _blur(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Blurs by a Gaussian of up to 3% of the picture's size."""
    size = image.shape[0]
    deviation = 0.3 + tf.random.stateless_uniform([], seed) * 0.03 * size
    reach = max(round(0.06 * size), 2)
    places = tf.range(-reach, reach + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(places / deviation))
    weights /= tf.reduce_sum(weights)
    padded = tf.pad(image, [[reach, reach], [reach, reach], [0, 0]], "SYMMETRIC")
    kernel = tf.tile(weights[:, None, None, None], [1, 1, 3, 1])
    blurred = padded[None]
    for axis in ([0, 1, 2, 3], [1, 0, 2, 3]):
        blurred = tf.nn.depthwise_conv2d(
            blurred, tf.transpose(kernel, axis), [1, 1, 1, 1], "VALID"
        )
    return blurred[0]


def _grain(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Adds noise, partly equal in all channels."""
    seeds = tf.unstack(tf.random.split(seed, 3))
    strength, share = tf.unstack(tf.random.stateless_uniform([2], seeds[0]))
    gray = tf.random.stateless_normal([*image.shape[:2], 1], seeds[1])
    color = tf.random.stateless_normal(image.shape, seeds[2])
    return image + 25.0 * strength * (share * color + (1.0 - share) * gray)


def _scratch(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Draws thin lines across, bright or dark."""
    size = image.shape[0]
    seeds = tf.unstack(tf.random.split(seed, 2))
    count = tf.random.stateless_uniform([], seeds[0], 1, _SCRATCHES + 1, tf.int32)
    draws = tf.random.stateless_uniform([_SCRATCHES, 5], seeds[1])
    place, angle, width, tone, opacity = tf.unstack(draws[..., None, None], axis=1)
    axis = (tf.range(size, dtype=tf.float32) + 0.5) / size - 0.5
    angle = 3.14159265 * angle
    across = axis[:, None] * tf.cos(angle) + axis[None, :] * tf.sin(angle)
    # Half a pixel to 1.5% of the picture on each side of the line.
    half = 0.5 / size + 0.015 * width * width
    cover = tf.clip_by_value((half - tf.abs(across - place + 0.5)) * size + 0.5, 0, 1)
    cover *= 0.5 + 0.5 * opacity
    for index in range(_SCRATCHES):
        here = cover[index, ..., None] * tf.cast(index < count, tf.float32)
        shade = tf.where(tone[index] < 0.7, 235.0, 30.0)
        image = image * (1.0 - here) + shade * here
    return image
