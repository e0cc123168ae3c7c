"""The reference of Fréchet distances: its pictures and their statistics."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from palette_jax.config import identity
from palette_jax.evaluation import folders, table
from palette_jax.evaluation.batch_files import on_host_0
from palette_jax.evaluation.metrics import frechet
from palette_jax.evaluation.suite import MetricSuite
from palette_jax.pictures.protocols import PROTOCOLS

STATISTICS_FOLDER = "~/.cache/palette_jax/statistics"
"""The cache of reference statistics, by the hash of the pictures."""

_CHUNK = 2048  # Pictures of a reference whose statistics are saved together.
_BATCH_PIXELS = 64 * 256 * 256  # Pixels in memory at once.
_MAX_BATCH = 64

Files = Mapping[str, epath.PathLike]
"""The file of each picture, by name."""


class Reference(NamedTuple):
    """The reference of Fréchet distances.

    Attributes:
      hash: of the pictures; on host 0.
      batches: returns the pictures between two positions, with their names; None if
        the reference is the originals of the evaluated pictures.
    """

    count: int
    hash: str
    batches: Callable[[int, int], Iterable[tuple[list[str], np.ndarray]]] | None = None


def batch_size(height: int, width: int) -> int:
    """Returns the batch size for pictures of a size."""
    return max(1, min(_MAX_BATCH, _BATCH_PIXELS // (height * width)))


def pictures_hash(
    suite: MetricSuite, sums: Mapping[str, int], size: int | None, *, seen: bool = False
) -> str:
    """Returns a hash of pictures, from their checksums, with crop and resize.

    `seen` also covers the weights and the input of Inception.
    """
    how = PROTOCOLS[suite.protocol]
    weights = f"{suite.part_name('inception')} {suite.weights.get('inception')}"
    return identity.digest(
        {
            "crop": how.crop if size else "none",
            "files": sorted(sums.items()),
            "resize": f"{size} {how.resize}" if size else "none",
            "weights": f"{weights} {identity.CODE}" if seen else "",
        }
    )


def folder_reference(
    suite: MetricSuite, everything: Files, square: folders.Square | None, digest: str
) -> Reference:
    """Returns a reference of all pictures of a folder, whose hash is `digest`."""
    names = list(everything)

    def batches(start: int, stop: int) -> Iterable[tuple[list[str], np.ndarray]]:
        size = batch_size(suite.height, suite.width)
        for first in range(start, stop, size):
            some = names[first : min(first + size, stop)]
            yield some, folders.load([everything[name] for name in some], square)

    return Reference(len(names), digest, batches)


def statistics_of(
    suite: MetricSuite, reference: Reference, check_stop: Callable[[], None]
) -> dict[str, frechet.Statistics]:
    """Returns the statistics of pictures from the cache, or computes them in chunks.

    Only host 0 gets them.
    """
    assert reference.batches is not None
    path = epath.Path(STATISTICS_FOLDER).expanduser() / f"{reference.hash}.npz"
    is_first = jax.process_index() == 0
    total = frechet.find(path) if is_first else None
    if on_host_0(lambda: total is not None):
        return total or {}
    starts = range(0, reference.count, _CHUNK)
    chunks = {
        start: path.parent / f"{reference.hash}_{start:07}.npz" for start in starts
    }
    for start, chunk in chunks.items():
        found = frechet.find(chunk) if is_first else None
        if not on_host_0(lambda found=found: found is not None):
            stop = min(start + _CHUNK, reference.count)
            for names, loaded in reference.batches(start, stop):
                check_stop()
                arrays = suite.measure("inception", {"originals": loaded})
                if is_first:
                    more = table.statistics(arrays, "originals", names)
                    found = _merge(found, more)
            if is_first:
                frechet.keep(chunk, found or {})
                print(f"{stop} of {reference.count} references measured", flush=True)
        if is_first:
            total = _merge(total, found or {})
    if is_first:
        frechet.keep(path, total or {})
        for chunk in chunks.values():
            chunk.unlink(missing_ok=True)
    return total or {}


def _merge(
    found: dict[str, frechet.Statistics] | None, more: dict[str, frechet.Statistics]
) -> dict[str, frechet.Statistics]:
    if not found or not more:  # The pictures of a whole chunk may be broken.
        return found or more
    return {name: frechet.merge(found[name], more[name]) for name in more}
