"""Holes and hints in numpy, with the distributions of `palette_jax/data/masks.py`.

Each is uint8 [size, size, 1], 1 in the hole, or at hints.
"""

import math

import numpy as np
from jaxtyping import UInt8

MIN_AREA, MAX_AREA = 0.10, 0.40

# DeepFillv2's strokes, as in data/masks.py: lengths and widths in parts of the side.
_STROKES, _MIN_VERTICES, _MAX_VERTICES = 10, 4, 12
_ANGLES = (2 * math.pi / 5 - 2 * math.pi / 15, 2 * math.pi / 5 + 2 * math.pi / 15)
_LENGTH = math.sqrt(2) / 8
_WIDTHS = (12 / 256, 40 / 256)


def rectangles(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 1"]:
    """Returns 1 to 5 rectangles whose union has a uniform area of 10 to 40%."""
    count = rng.integers(1, 6)
    sides = np.exp(rng.uniform(-0.6, 0.6, (count, 2)))
    sides /= np.sqrt(sides.prod(1).sum())
    place = rng.uniform(size=(count, 2))
    # All grow together; the stage whose area is the nearest to the one drawn is taken.
    growth = np.sqrt(np.geomspace(MIN_AREA, 3.5, 64))
    sides = np.minimum(growth[:, None, None] * sides, 1.0)
    starts = np.round(size * place * (1 - sides))
    ends = np.round(size * (place + (1 - place) * sides))
    pixels = np.arange(size)
    is_inside = (starts[..., None] <= pixels) & (pixels < ends[..., None])
    rows, columns = is_inside[:, :, 0], is_inside[:, :, 1]  # Stage, rectangle, pixel.
    covers = rows.swapaxes(1, 2).astype(np.float32) @ columns.astype(np.float32) > 0
    areas = covers.mean((1, 2))
    wanted = rng.uniform(MIN_AREA, MAX_AREA)
    is_allowed = (areas >= MIN_AREA) & (areas <= MAX_AREA)
    stage = np.argmin(np.where(is_allowed, np.abs(areas - wanted), 1.0))
    return covers[stage, ..., None].astype(np.uint8)


def free_form(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 1"]:
    """Returns brush strokes whose union has a uniform area of 10 to 40%.

    The paths are DeepFillv2's (Yu et al. 2019, Algorithm 1); the brush then grows until
    the union has the drawn area.
    """
    area = rng.uniform(MIN_AREA, MAX_AREA)
    distance = _distance(size, *_strokes(rng, area))
    count = min(math.ceil(area * size**2), int(MAX_AREA * size**2))
    nearest = np.argpartition(distance, count - 1)[:count]
    hole = np.zeros(size**2, np.uint8)
    hole[nearest] = 1
    return hole.reshape(size, size, 1)


def hints(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 1"]:
    """Returns a mask of colour hints, empty for half of the draws.

    The other draws give 1 to 12 squares, each 1 to 5% of the picture wide and at least
    a pixel.
    """
    count = rng.integers(1, 13) * rng.integers(0, 2)
    centers = rng.integers(0, size, (12, 2))
    sides = rng.integers(1, max(round(size / 20), 1) + 1, 12)
    mask = np.zeros((size, size, 1), np.uint8)
    for (row, column), side in zip(centers[:count], sides, strict=False):
        mask[row : row + side, column : column + side] = 1
    return mask


def uncrop(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 1"]:
    """Returns a hole over half of the area, all around for one draw in two."""
    hole = np.ones((size, size, 1), np.uint8)
    half = size // 2
    known = round(size * math.sqrt(0.5))
    start = (size - known) // 2
    middle = slice(start, start + known)
    kept = [
        (slice(None), slice(half, None)),  # The left half is missing.
        (slice(None), slice(0, half)),
        (slice(half, None), slice(None)),
        (slice(0, half), slice(None)),
        (middle, middle),
    ]
    hole[kept[min(rng.integers(0, 8), 4)]] = 0
    return hole


def _strokes(
    rng: np.random.Generator, area: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the segments of the strokes: starts and moves [n, 2], widths [n].

    The picture is the unit square. Their number is about enough for `area`.
    """
    shape = (_STROKES, _MAX_VERTICES - 1)
    # A zigzag, as every other angle has its sign flipped, rotated as a whole.
    angle = rng.uniform(*_ANGLES, shape) * np.where(np.arange(shape[1]) % 2, -1, 1)
    angle += rng.uniform(0, 2 * math.pi, (_STROKES, 1))
    length = rng.normal(_LENGTH, _LENGTH / 2, shape).clip(0, 2 * _LENGTH)
    moves = length[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    start = rng.uniform(size=(_STROKES, 1, 2))
    vertices = np.concatenate([start, moves], 1).cumsum(1)
    vertices = 1 - np.abs(vertices % 2 - 1)  # The border reflects them.
    width = np.broadcast_to(rng.uniform(*_WIDTHS, (_STROKES, 1)), shape)
    count = rng.uniform(_MIN_VERTICES, _MAX_VERTICES + 1, (_STROKES, 1))
    exists = np.arange(2, shape[1] + 2) <= count
    painted = np.where(exists, length * width, 0).ravel()
    before = (painted.cumsum() - painted).reshape(shape)
    # Half of the paint overlaps. With less paint the brush would grow to a blob.
    is_drawn = exists & (before < 2 * area)
    starts, ends = vertices[:, :-1][is_drawn], vertices[:, 1:][is_drawn]
    return starts, ends - starts, width[is_drawn]


def _distance(
    side: int, starts: np.ndarray, moves: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    """Returns the squared distance of each pixel to a stroke, [side**2]."""
    centers = (np.arange(side) + 0.5) / side
    y, x = (axis.ravel() for axis in np.meshgrid(centers, centers, indexing="ij"))
    # With the point p, start a and move d: |p - a|² and (p - a)·d are linear in these.
    features = np.stack([x * x + y * y, x, y, np.ones_like(x)]).astype(np.float32)
    weight = 1 / widths[:, None] ** 2
    length = (moves * moves).sum(1, keepdims=True) + 1e-9
    inner = (moves * starts).sum(1, keepdims=True)
    norms = (starts * starts).sum(1, keepdims=True)
    to_start = weight * np.concatenate([np.ones_like(norms), -2 * starts, norms], 1)
    along = np.concatenate([np.zeros_like(norms), moves, -inner], 1) / length
    place = along.astype(np.float32) @ features
    squared = to_start.astype(np.float32) @ features
    nearest = place.clip(0, 1)  # The place on the segment.
    place *= -2
    place += nearest
    place *= nearest
    place *= (weight * length).astype(np.float32)
    squared += place
    return squared.min(0)
