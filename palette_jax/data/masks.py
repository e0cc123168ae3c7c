"""Holes for inpainting and uncropping: uint8 [height, width, 1], 1 in the hole.

All shapes scale with the picture's size, so that a hole covers the same share of small
and large pictures.
"""

import math

import numpy as np
import tensorflow as tf

SIDES = ("left", "right", "top", "bottom", "all")

MIN_AREA, MAX_AREA = 0.10, 0.40

# DeepFillv2's strokes, lengths and widths in parts of the picture's side.
_MAX_STROKES, _MIN_VERTICES, _MAX_VERTICES = 10, 4, 12
_ANGLES = (2 * math.pi / 5 - 2 * math.pi / 15, 2 * math.pi / 5 + 2 * math.pi / 15)
_LENGTH = math.sqrt(2) / 8
_WIDTHS = (12 / 256, 40 / 256)
# They are computed on a grid of at most this side, which is then enlarged.
_GRID = 48


def center(size: int) -> np.ndarray:
    """Returns the hole of the evaluation: the middle half of both sides."""
    hole = np.zeros([size, size, 1], np.uint8)
    hole[size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    return hole


def uncrop(side: str, size: int) -> np.ndarray:
    """Returns a hole over half of the area: at one side, or around a middle square."""
    hole = np.zeros([size, size, 1], np.uint8)
    strip = slice(0, size // 2) if side in ("left", "top") else slice(size // 2, size)
    if side in ("left", "right"):
        hole[:, strip] = 1
    elif side in ("top", "bottom"):
        hole[strip] = 1
    else:  # All around.
        known = round(size * math.sqrt(0.5))
        start = (size - known) // 2
        hole[:] = 1
        hole[start : start + known, start : start + known] = 0
    return hole


def rectangles(seed: tf.Tensor, size: int) -> tf.Tensor:
    """Returns 1 to 5 rectangles whose union has a uniform area of 10 to 40%."""
    # One draw is cut in pieces: in a graph of small operations their number counts.
    uniform = tf.random.stateless_uniform([22], seed)
    area = MIN_AREA + (MAX_AREA - MIN_AREA) * uniform[0]
    count = tf.cast(1 + 5 * uniform[1], tf.int32)
    sides = tf.exp(tf.reshape(1.2 * uniform[2:12] - 0.6, [5, 2]))
    place = tf.reshape(uniform[12:], [5, 2])

    # All grow together, each within the picture, from a sum of areas of 10% up; the
    # stage whose union comes nearest to the drawn area is taken. Five rectangles that
    # hide each other reach 40% at a sum of 3.4 at the latest.
    sides *= tf.cast(tf.range(5) < count, tf.float32)[:, None]
    sides /= tf.sqrt(tf.reduce_sum(tf.reduce_prod(sides, 1)))
    growth = tf.constant(np.sqrt(np.geomspace(MIN_AREA, 3.5, 64)), tf.float32)
    sides = tf.minimum(growth[:, None, None] * sides, 1.0)
    starts = tf.round(size * place * (1 - sides))
    ends = tf.round(size * (place + (1 - place) * sides))
    areas = _union_area(starts, ends) / size**2
    is_allowed = (areas >= MIN_AREA) & (areas <= MAX_AREA)
    stage = tf.argmin(tf.where(is_allowed, tf.abs(areas - area), 1.0))

    pixels = tf.range(size, dtype=tf.float32)[:, None]
    is_inside = (starts[stage, :, None] <= pixels) & (pixels < ends[stage, :, None])
    rows, columns = tf.unstack(tf.cast(is_inside, tf.float32), axis=-1)
    covers = tf.matmul(rows, columns, transpose_a=True)
    return tf.cast(covers > 0, tf.uint8)[..., None]


def free_form(
    seed: tf.Tensor, size: int, *, bounds: tuple[float, float] = (MIN_AREA, MAX_AREA)
) -> tf.Tensor:
    """Returns brush strokes whose union has a uniform area within bounds.

    The paths are DeepFillv2's (Yu et al. 2019, Algorithm 1). The brush then grows until
    the union has the drawn area; no redrawing is needed.
    """
    seed, seed_area = tf.unstack(tf.random.split(seed, 2))
    side = min(size, _GRID)
    # Enlarging the grid changes the area by less than this.
    margin = 0.0 if size == side else 0.01
    low, high = bounds
    area = tf.random.stateless_uniform([], seed_area, low + margin, high - margin)
    distance = _distance(side, *_strokes(seed, area))
    most = int(high * side**2)
    count = tf.minimum(tf.cast(tf.math.ceil(area * side**2), tf.int32), most)
    reach = -tf.math.top_k(-distance, most).values[count - 1]
    distance = tf.reshape(distance, [side, side, 1])
    if size > side:
        distance = tf.image.resize(distance, [size, size])
    return tf.cast(distance <= reach, tf.uint8)


def hints(seed: tf.Tensor, size: int) -> tf.Tensor:
    """Returns a mask of colour hints, empty for half of the seeds.

    The other seeds give 1 to 12 squares, like strokes of a brush, each 1 to 5% of the
    picture wide and at least a pixel.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    count = tf.random.stateless_uniform([], seeds[0], 1, 13, tf.int32)
    count *= tf.random.stateless_uniform([], seeds[1], 0, 2, tf.int32)
    centers = tf.random.stateless_uniform([12, 2], seeds[2], 0, size, tf.int32)
    width = max(round(size / 20), 1)
    sides = tf.random.stateless_uniform([12], seeds[3], 1, width + 1, tf.int32)
    rows = tf.range(size)
    offset = rows[None, :, None] - centers[:, None, :]  # Square, row, axis.
    is_inside = (offset >= 0) & (offset < sides[:, None, None])
    is_used = (tf.range(12) < count)[:, None, None]
    squares = is_inside[:, :, None, 0] & is_inside[:, None, :, 1] & is_used
    return tf.cast(tf.reduce_any(squares, 0), tf.uint8)[..., None]


def _union_area(starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Returns the area of a union of rectangles, [n, 5, 2] corners each, as [n]."""
    edges = tf.sort(tf.concat([starts, ends], 1), axis=1)
    edges, widths = edges[:, :-1], edges[:, 1:] - edges[:, :-1]
    is_inside = (starts[:, :, None] <= edges[:, None]) & (
        edges[:, None] < ends[:, :, None]
    )
    rows, columns = tf.unstack(tf.cast(is_inside, tf.float32), axis=-1)
    covers = tf.cast(tf.matmul(rows, columns, transpose_a=True) > 0, tf.float32)
    return tf.einsum("nij,ni,nj->n", covers, widths[..., 0], widths[..., 1])


def _strokes(
    seed: tf.Tensor, area: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the segments of the strokes: starts and moves [n, 2], widths [n].

    The picture is the unit square. Their number is about enough for `area`.
    """
    strokes, segments = _MAX_STROKES, _MAX_VERTICES - 1
    seed, seed_length = tf.unstack(tf.random.split(seed, 2))
    uniform = tf.random.stateless_uniform([strokes, segments + 5], seed)
    # A zigzag, as every other angle has its sign flipped, rotated as a whole: without
    # that, all of DeepFillv2's run in one direction.
    angle = _ANGLES[0] + (_ANGLES[1] - _ANGLES[0]) * uniform[:, 5:]
    angle *= tf.constant([1.0 - 2.0 * (j % 2) for j in range(segments)])
    angle += 2 * math.pi * uniform[:, :1]
    length = _LENGTH + _LENGTH / 2 * tf.random.stateless_normal(
        angle.shape, seed_length
    )
    length = tf.clip_by_value(length, 0, 2 * _LENGTH)
    moves = length[..., None] * tf.stack([tf.cos(angle), tf.sin(angle)], -1)
    vertices = tf.cumsum(tf.concat([uniform[:, None, 1:3], moves], 1), 1)
    vertices = 1 - tf.abs(vertices % 2 - 1)  # The border reflects them.

    width = _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * uniform[:, 3:4]
    num_vertices = _MIN_VERTICES + (_MAX_VERTICES + 1 - _MIN_VERTICES) * uniform[:, 4:5]
    exists = tf.range(2, segments + 2, dtype=tf.float32) <= num_vertices
    width = tf.repeat(width, segments, 1)
    painted = tf.where(exists, length * width, 0)
    before = tf.cumsum(tf.reshape(painted, [-1]), exclusive=True)
    # Half of the paint overlaps. With less paint the brush would grow to a blob.
    is_drawn = exists & (tf.reshape(before, painted.shape) < 2 * area)
    drawn = tf.where(is_drawn)
    starts = tf.gather_nd(vertices[:, :-1], drawn)
    ends = tf.gather_nd(vertices[:, 1:], drawn)
    return starts, ends - starts, tf.gather_nd(width, drawn)


def _distance(
    side: int, starts: tf.Tensor, moves: tf.Tensor, widths: tf.Tensor
) -> tf.Tensor:
    """Returns the distance of each pixel to a stroke, in brush widths, [side**2]."""
    centers = (np.arange(side) + 0.5) / side
    y, x = [axis.ravel() for axis in np.meshgrid(centers, centers, indexing="ij")]
    # With the point p, start a and move d: |p - a|² and (p - a)·d are linear in these.
    features = tf.constant(np.stack([x * x + y * y, x, y, np.ones_like(x)]), tf.float32)

    def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(a * b, -1, keepdims=True)

    weight = 1 / widths[:, None] ** 2
    squared_length = dot(moves, moves) + 1e-9
    to_start = weight * tf.concat(
        [tf.ones_like(weight), -2 * starts, dot(starts, starts)], 1
    )
    along = tf.concat([tf.zeros_like(weight), moves, -dot(moves, starts)], 1)
    along = tf.matmul(along / squared_length, features)
    nearest = tf.clip_by_value(along, 0, 1)  # The position on the segment.
    squared = tf.matmul(to_start, features)
    squared += weight * squared_length * nearest * (nearest - 2 * along)
    return tf.sqrt(tf.maximum(tf.reduce_min(squared, 0), 0))
