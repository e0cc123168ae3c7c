"""Decoding and squaring of single pictures, as TensorFlow graph operations."""

import tensorflow as tf

# The discrete cosine transform that Pillow uses: the decoded bytes are then the same.
JPEG_DCT = "INTEGER_ACCURATE"

# The first orientation tag (0x0112, one 16-bit number) of EXIF in a JPEG, PNG or WebP
# file, whose numbers are stored with the high byte first (MM) or last (II). \C is any
# byte.
_ORIENTATION = (
    r"(?s)\C*?(?:Exif\x00\x00|eXIf|EXIF\C\C\C\C)"
    r"(?:MM\C*?\x01\x12\x00\x03\x00\x00\x00\x01\x00(\C)"
    r"|II\C*?\x12\x01\x03\x00\x01\x00\x00\x00(\C))\C*"
)

# Without EXIF, a digit in the XMP, which is a text.
_XMP_ORIENTATION = r"(?s)\C*?tiff:Orientation(?:=\"|>)([1-8])\C*"
_HEAD = 65_536  # Bytes. Of JPEG and PNG, this part has the metadata.


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a JPEG, PNG, GIF, WebP or BMP file as uint8 RGB [height, width, 3].

    Repeats gray, drops transparency, reduces 16 bits to 8, takes the first frame of an
    animated GIF, and turns pictures upright. Other files, and animated WebP, are an
    error.
    """
    # In the order of the branches below; the last branch is for no match.
    signatures = [b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"BM"]
    matches = [tf.strings.substr(encoded, 0, len(s)) == s for s in signatures]
    kind = tf.argmax(tf.stack([*matches, True]), output_type=tf.int32)
    branches = [_jpeg, _png, _gif, _webp, _bmp, _unknown]
    image = tf.switch_case(kind, [lambda f=branch: f(encoded) for branch in branches])
    return tf.ensure_shape(image, [None, None, 3])


def random_square(
    seed: tf.Tensor, image: tf.Tensor, size: int, min_scale: float
) -> tf.Tensor:
    """Returns a random square window of an image, resized to `size`.

    Args:
      seed: an integer pair; images of one size get the same window for it.
      image: uint8, [height, width, channels].
      size: side of the result, in pixels.
      min_scale: the window's side is uniform in [min_scale, 1] of the short side; 1 is
        the largest square at a random position, as in ColTran and Palette.
    """
    scale, down, right = tf.unstack(tf.random.stateless_uniform([3], seed))
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    short = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.cast(tf.round(short * (min_scale + (1 - min_scale) * scale)), tf.int32)
    side = tf.maximum(side, 1)
    top = tf.cast(down * tf.cast(height - side + 1, tf.float32), tf.int32)
    left = tf.cast(right * tf.cast(width - side + 1, tf.float32), tf.int32)
    return resize(image[top : top + side, left : left + side], size, size)


def center_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the largest centred square of an image, resized to `size`."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size, size)


def torchvision_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Returns torchvision's `Resize(size)` and `CenterCrop(size)`, to rounding."""
    shape = tf.shape(image)[:2]
    new = size * shape // tf.reduce_min(shape)
    resized = tf.image.resize(image, new, "bilinear", antialias=True)
    resized = tf.saturate_cast(tf.round(resized), tf.uint8)
    # Rounds half a pixel to even, as Python does.
    top, left = tf.unstack(tf.cast(tf.round((new - size) / 2), tf.int32))
    square = resized[top : top + size, left : left + size]
    return tf.ensure_shape(square, [size, size, 3])


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns the image resized by area to shrink it, else by a bicubic curve."""
    shape = tf.shape(image)
    shrinks = tf.logical_and(shape[0] >= height, shape[1] >= width)
    resized = tf.cond(
        shrinks,
        lambda: tf.image.resize(image, [height, width], "area"),
        lambda: tf.image.resize(image, [height, width], "bicubic"),
    )
    # A bicubic curve overshoots at edges; a bare cast would wrap around and truncate.
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def flip(seed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Returns the image, mirrored left to right for half of the seeds."""
    mirror = tf.random.stateless_uniform([], seed) < 0.5
    return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)


def _jpeg(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_DCT)
    head = tf.strings.substr(encoded, 0, _HEAD)
    # The slow search for EXIF ends earlier, since EXIF is at the start.
    return _turn_upright(image, head, tf.strings.substr(head, 0, 4096))


def _png(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_png(encoded, channels=3)
    head = tf.strings.substr(encoded, 0, _HEAD)
    return _turn_upright(image, head, head)


def _gif(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_gif(encoded)[0]


def _webp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes past the end of its buffer when it decodes an animation,
    # which ends the process now or later.
    is_extended = tf.strings.substr(encoded, 12, 4) == b"VP8X"
    flags = tf.io.decode_raw(tf.strings.substr(encoded, 20, 1), tf.uint8)

    def has(flag: int) -> tf.Tensor:
        is_set = tf.reduce_any(tf.bitwise.bitwise_and(flags, flag) != 0)
        return tf.logical_and(is_extended, is_set)

    check = tf.Assert(
        tf.logical_not(has(2)),
        ["expected a picture, got an animated WebP; save its first frame"],
    )
    with tf.control_dependencies([check]):
        image = tf.io.decode_webp(encoded)[0, ..., :3]
    # EXIF and XMP follow the picture.
    return tf.cond(
        has(8 | 4), lambda: _turn_upright(image, encoded, encoded), lambda: image
    )


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    bits = tf.io.decode_raw(tf.strings.substr(encoded, 28, 2), tf.uint16)
    # TensorFlow reads indices of a palette as gray levels.
    known = tf.reduce_any(bits == tf.constant([24, 32], tf.uint16))
    message = "expected a BMP without a palette, save it as PNG; got bits per pixel:"
    check = tf.Assert(known, [message, bits])
    with tf.control_dependencies([check]):
        image = tf.io.decode_bmp(encoded)
    return image[..., :3]


def _unknown(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 8)
    message = "expected a JPEG, PNG, GIF, WebP or BMP file, got one that starts with:"
    with tf.control_dependencies([tf.Assert(False, [message, start])]):
        return tf.zeros([1, 1, 3], tf.uint8)


def _turn_upright(image: tf.Tensor, head: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the image turned upright by the EXIF in `start` or the XMP in `head`."""
    exif = _first_byte(start, _ORIENTATION, r"\1\2")
    # The quick search spares most files the slow one.
    has_xmp = tf.strings.regex_full_match(head, r"(?s)\C*tiff:Orientation\C*")
    orientation = tf.cond(
        tf.logical_and(has_xmp, tf.logical_or(exif < 1, exif > 8)),
        lambda: _first_byte(head, _XMP_ORIENTATION, r"\1") - ord("0"),
        lambda: exif,
    )

    def is_one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    for flag, turn in (
        (is_one_of(5, 6, 7, 8), lambda i: tf.transpose(i, [1, 0, 2])),
        (is_one_of(3, 4, 7, 8), lambda i: tf.reverse(i, [0])),
        (is_one_of(2, 3, 6, 7), lambda i: tf.reverse(i, [1])),
    ):
        image = tf.cond(flag, lambda f=turn, i=image: f(i), lambda i=image: i)
    return image


def _first_byte(text: tf.Tensor, pattern: str, group: str) -> tf.Tensor:
    """Returns the byte of a group, or of the text: this is no orientation."""
    found = tf.strings.regex_replace(text, pattern, group, replace_global=False)
    first = tf.io.decode_raw(tf.strings.substr(found, 0, 1), tf.uint8)[0]
    return tf.cast(first, tf.int32)
