"""What is measured of the original pictures: once for all tasks and checkpoints."""

from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from palette_jax import parallel
from palette_jax.config import build_data
from palette_jax.config.values import task_names
from palette_jax.data import sources
from palette_jax.evaluation import table, words
from palette_jax.evaluation.judge import Judge
from palette_jax.evaluation.metrics import frechet
from palette_jax.evaluation.parts import STATISTICS_FOLDER, Parts, on_host_0

_CHUNK = 32  # Batches whose statistics are kept at a time.


def pictures_hash(source: sources.Source, size: int, *, weights: str = "") -> str:
    """Returns a hash of pictures, as host 0 reads them, how they are cut, and weights.

    On the other hosts it is an empty text.
    """
    if jax.process_index() != 0:
        return ""
    resize = words.resize(size)
    sums = sources.checksums(source)
    return frechet.reference_hash(sums, resize=resize, crop=words.CROP, weights=weights)


def measure(
    config: ml_collections.ConfigDict,
    source: sources.Source,
    judge: Judge,
    folder: epath.Path,
    check_stop: Callable[[], None],
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what is measured of each original, by part, as the row `originals`.

    Host 0 alone gets it.

    Args:
      config: of the model.
      source: the pictures to evaluate on.
      judge: what measures.
      folder: where it is kept; of these pictures alone.
      check_stop: raises where the program is to stop.
    """
    count = -(-len(source) // config.eval.batch_size)
    parts = {
        part: Parts(folder / judge.part_name(part), count)
        for part in judge.parts
        if part != "lpips"  # Which is of pairs.
    }
    if not all([kept.are_complete() for kept in parts.values()]):
        task = task_names(config)[0]
        batches = build_data.eval_batches(config, task, source=source)
        for index, batch in enumerate(batches):
            batch = parallel.gather_batch({k: batch[k] for k in ("y", "name", "valid")})
            valid = np.flatnonzero(batch["valid"])
            for part, kept in parts.items():
                if kept.has(index):
                    continue
                check_stop()
                arrays = {"name": batch["name"][valid]}
                if len(valid):
                    arrays |= judge.measure(part, {"originals": batch["y"][valid]})
                kept.save(index, arrays)
            logging.info("originals: %d of %d batches measured", index + 1, count)
    if jax.process_index() != 0:
        return {}
    return {part: kept.join() for part, kept in parts.items()}


def reference_statistics(
    config: ml_collections.ConfigDict,
    source: sources.Source,
    judge: Judge,
    check_stop: Callable[[], None],
) -> tuple[dict[str, frechet.Statistics], str]:
    """Returns what Fréchet distances refer to, all evaluation pictures, and its hash.

    It is kept in ~/.cache/palette_jax/statistics, in parts while it is made. Host 0
    alone gets it.
    """
    weights = judge.weights["inception"]
    digest = pictures_hash(source, config.data.image_size, weights=weights)
    path = epath.Path(STATISTICS_FOLDER).expanduser() / f"{digest}.npz"
    if not on_host_0(path.exists):
        step = _CHUNK * config.eval.batch_size
        starts = range(0, len(source), step)
        chunks = [path.parent / f"{digest}_{start:07}.npz" for start in starts]
        for start, chunk in zip(starts, chunks, strict=True):
            if on_host_0(chunk.exists):
                continue
            stop = min(start + step, len(source))
            found = _chunk(config, judge, source.select(range(start, stop)), check_stop)
            if jax.process_index() == 0:
                frechet.save(chunk, found)
            logging.info("reference: %d of %d pictures measured", stop, len(source))
        if jax.process_index() == 0:
            frechet.save(path, _merge([frechet.read(chunk) for chunk in chunks]))
            for chunk in chunks:
                chunk.unlink()
    return (frechet.read(path) if jax.process_index() == 0 else {}), digest


def _chunk(
    config: ml_collections.ConfigDict,
    judge: Judge,
    source: sources.Source,
    check_stop: Callable[[], None],
) -> dict[str, frechet.Statistics]:
    task, found = task_names(config)[0], []
    for batch in build_data.eval_batches(config, task, source=source):
        check_stop()
        batch = parallel.gather_batch({k: batch[k] for k in ("y", "name", "valid")})
        valid = np.flatnonzero(batch["valid"])
        if len(valid):
            arrays = judge.measure("inception", {"originals": batch["y"][valid]})
            found.append(
                table.statistics(arrays, "originals", batch["name"][valid].tolist())
            )
    return _merge(found)


def _merge(
    found: list[dict[str, frechet.Statistics]],
) -> dict[str, frechet.Statistics]:
    merged = dict(found[0])
    for later in found[1:]:
        merged = {name: frechet.merge(merged[name], later[name]) for name in merged}
    return merged
