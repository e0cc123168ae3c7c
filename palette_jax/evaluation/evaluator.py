"""The one evaluator: from folders of pictures to the rows of a table.

What it measures is kept batch by batch, so the same call goes on where it was stopped.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Integer, UInt8

from palette_jax import parallel
from palette_jax.config import identity
from palette_jax.evaluation import folders, table
from palette_jax.evaluation.batch_files import BatchFiles, on_host_0
from palette_jax.evaluation.judge import LPIPS, PIXELS, Judge
from palette_jax.evaluation.metrics import frechet, pictures
from palette_jax.pictures.protocols import PROTOCOLS

STATISTICS_FOLDER = "~/.cache/palette_jax/statistics"
"""Of the pictures that Fréchet distances refer to, by their hash."""

_CHUNK = 2048  # Pictures of a reference whose statistics are kept at a time.
_BATCH_PIXELS = 64 * 256 * 256  # Of the pictures that are in memory at once.
_MAX_BATCH = 64

Files = Mapping[str, epath.PathLike]
"""Of each picture its file."""


class Pictures(NamedTuple):
    """What is evaluated; every mapping has the same names in the same order.

    Attributes:
      originals: the pictures as they should be.
      rows: by the name of a row, such as `sample_0`, its pictures. Of the row `mean`
        only pixels are compared.
      masks: white where PSNR is measured; without, everywhere.
      square: how pictures are cut and resized; None leaves them as they are.
      labels: the class of each picture, -1 where it is not known.
      in_order: whether their order is that of a published list.
    """

    originals: Files
    rows: Mapping[str, Files]
    masks: Files | None = None
    square: folders.Square | None = None
    labels: Integer[np.ndarray, " n"] | None = None
    in_order: bool = False


class Reference(NamedTuple):
    """What Fréchet distances refer to.

    Attributes:
      count: how many pictures.
      hash: of them; on host 0.
      batches: returns the pictures from a position to another, with their names; None
        where they are the originals of the evaluated pictures.
    """

    count: int
    hash: str
    batches: Callable[[int, int], Iterable[tuple[list[str], np.ndarray]]] | None = None


class Evaluated(NamedTuple):
    """What an evaluation found; empty but on host 0.

    Attributes:
      rows: `originals` and those of all results.
      reference: what Fréchet distances refer to, by feature.
    """

    rows: dict[str, table.Row]
    reference: Mapping[str, frechet.Statistics]


class Folders(NamedTuple):
    """Where measurements are kept, of the rows and of the originals."""

    rows: epath.Path
    originals: epath.Path


def evaluate(
    judge: Judge,
    found: Pictures,
    reference: Reference | Mapping[str, frechet.Statistics],
    kept: Folders,
    *,
    refuse_gray: Mapping[str, str],
    check_stop: Callable[[], None] = lambda: None,
) -> Evaluated:
    """Measures pictures and makes rows of what is measured.

    Args:
      judge: what measures.
      found: the pictures.
      reference: of Fréchet distances; or its statistics, by feature.
      kept: where measurements are kept: of these pictures alone.
      refuse_gray: the rows that must have colours, and where they lie, for the message.
      check_stop: raises where the program is to stop.

    Raises:
      MetricError: for pictures of which nothing can be said.
    """
    everything = {"originals": found.originals}
    originals = _measure(
        judge, found._replace(rows=everything), kept.originals, check_stop, pairs=False
    )
    measured = _measure(judge, found, kept.rows, check_stop)
    statistics = reference
    if isinstance(reference, Reference):
        if "inception" not in judge.parts:
            statistics = {}
        elif reference.batches is not None:
            statistics = _reference_statistics(judge, reference, check_stop)
    if jax.process_index() != 0:
        return Evaluated({}, {})
    names = list(found.originals)
    for row, place in refuse_gray.items():
        arrays = (originals if row == "originals" else measured)[PIXELS]
        shown = [f"{place}/{name}" if place else name for name in names]
        pictures.refuse_gray_set(arrays[f"{row}/gray"], shown)
    if isinstance(statistics, Reference):
        arrays = originals["inception"]
        statistics = table.statistics(arrays, "originals", names)

    def row(name: str) -> table.Row:
        return table.row(
            name,
            originals if name == "originals" else measured,
            names=names,
            originals=originals,
            reference=statistics,
            labels=found.labels,
            in_order=found.in_order,
        )

    # What samples have in common, such as their diversity, is of a row `model`.
    all_rows = ("originals", *found.rows, "model")
    return Evaluated({name: row(name) for name in all_rows}, statistics)


def batch_size(height: int, width: int) -> int:
    """Returns how many pictures of a size are judged at once."""
    return max(1, min(_MAX_BATCH, _BATCH_PIXELS // (height * width)))


def pictures_hash(
    judge: Judge, sums: Mapping[str, int], size: int | None, *, seen: bool = False
) -> str:
    """Returns a hash of pictures and how they are cut.

    Args:
      judge: whose protocol counts.
      sums: of each file.
      size: that they are resized to, None where they are not.
      seen: whether the hash is of what Inception makes of them, too.
    """
    how = PROTOCOLS[judge.protocol]
    weights = f"{judge.part_name('inception')} {judge.weights.get('inception')}"
    return frechet.reference_hash(
        sums,
        resize=f"{size} {how.resize}" if size else "none",
        crop=how.crop if size else "none",
        weights=f"{weights} {identity.CODE}" if seen else "",
    )


def folder_reference(
    judge: Judge, everything: Files, square: folders.Square | None, digest: str
) -> Reference:
    """Returns a reference of all pictures of a folder, whose hash is `digest`."""
    names = list(everything)

    def batches(start: int, stop: int) -> Iterable[tuple[list[str], np.ndarray]]:
        size = batch_size(judge.height, judge.width)
        for first in range(start, stop, size):
            some = names[first : min(first + size, stop)]
            yield some, folders.load([everything[name] for name in some], square)

    return Reference(len(names), digest, batches)


def _measure(
    judge: Judge,
    found: Pictures,
    folder: epath.Path,
    check_stop: Callable[[], None],
    *,
    pairs: bool = True,
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what is measured of each picture by part, batch by batch; on host 0."""
    names, size = list(found.originals), batch_size(judge.height, judge.width)
    starts = range(0, len(names), size)
    parts = {
        part: BatchFiles(folder / f"{judge.part_name(part)}", len(starts))
        for part in judge.parts
        if pairs or part not in LPIPS
    }
    for index, start in enumerate(starts):
        missing = [part for part, kept in parts.items() if not kept.has(index)]
        if not missing:
            continue
        some = names[start : start + size]

        def load(files: Files, some: Sequence[str] = some) -> np.ndarray:
            return _on_all_hosts(judge, [files[name] for name in some], found.square)

        rows = {row: load(files) for row, files in found.rows.items()}
        target = load(found.originals) if pairs else None
        mask = None
        if found.masks is not None and pairs:
            mask = (load(found.masks)[..., :1] > 127).astype(np.uint8)
        for part in missing:
            check_stop()
            own = {k: v for k, v in rows.items() if k != "mean" or part == PIXELS}
            arrays = judge.measure(part, own, reference=target, mask=mask)
            parts[part].save(index, arrays)
        if jax.process_index() == 0:
            what = "pictures" if pairs else "originals"
            done = f"{start + len(some)} of {len(names)}"
            print(f"{done} {what} measured", flush=True)
    if jax.process_index() != 0:
        return {}
    return {part: kept.join() for part, kept in parts.items()}


def _on_all_hosts(
    judge: Judge, paths: Sequence[epath.PathLike], square: folders.Square | None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns pictures that host 0 reads, on every host."""
    if jax.process_count() == 1:
        return folders.load(paths, square)
    loaded = np.zeros((len(paths), judge.height, judge.width, 3), np.uint8)
    if jax.process_index() == 0:
        loaded = folders.load(paths, square)
    return parallel.gather(loaded[None])[0]


def _reference_statistics(
    judge: Judge, reference: Reference, check_stop: Callable[[], None]
) -> dict[str, frechet.Statistics]:
    """Returns the statistics of a reference from the cache, or makes them in chunks."""
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
                arrays = judge.measure("inception", {"originals": loaded})
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
    if found is None:
        return more
    return {name: frechet.merge(found[name], more[name]) for name in more}


def tell(
    rows: Mapping[str, table.Row], main: str, names: Sequence[str]
) -> dict[str, Any]:
    """Returns what a file of results holds of rows, intervals and single pictures.

    Args:
      rows: by their titles.
      main: the title of the row whose pictures are told one by one.
      names: of the pictures, in their order.
    """
    each = {title: values.tolist() for title, values in rows[main].each.items()}
    return {
        "rows": {title: row.values for title, row in rows.items()},
        "intervals": {title: row.intervals() for title, row in rows.items()},
        "each": {
            # Not of a class that is not known.
            name: {t: v[index] for t, v in each.items() if not math.isnan(v[index])}
            for index, name in enumerate(names)
        },
    }
