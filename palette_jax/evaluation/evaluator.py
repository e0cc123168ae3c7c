"""The evaluator: measures folders of pictures and makes the rows of a table.

It saves measurements batch by batch, so the same call resumes a stopped evaluation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax import parallel
from palette_jax.evaluation import folders, paper, summary, table
from palette_jax.evaluation.batch_files import BatchFiles
from palette_jax.evaluation.metrics import frechet, pictures
from palette_jax.evaluation.references import (
    Files,
    Reference,
    batch_size,
    statistics_of,
)
from palette_jax.evaluation.suite import LPIPS, PIXELS, MetricSuite
from palette_jax.pictures.image_list import ImageList


class Pictures(NamedTuple):
    """The evaluated pictures; all mappings have the same names in the same order.

    Attributes:
      rows: the pictures of each row, such as `sample_0`. The row `mean` gets only
        metrics of pixels.
      masks: white where PSNR is measured; None measures everywhere.
      square: crops and resizes pictures; None leaves them as they are.
    """

    originals: Files
    rows: Mapping[str, Files]
    masks: Files | None = None
    square: folders.Square | None = None
    listed: ImageList | None = None


def evaluate(
    suite: MetricSuite,
    found: Pictures,
    reference: Reference | Mapping[str, frechet.Statistics],
    *,
    cache: epath.Path,
    own_caches: Mapping[str, epath.Path],
    refuse_gray: Mapping[str, str],
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[dict[str, table.Row], Mapping[str, frechet.Statistics]]:
    """Measures pictures; returns the rows of the table and the reference statistics.

    The rows have `originals` too. Both are empty except on host 0.

    Args:
      suite: measures the pictures.
      found: the pictures.
      reference: of Fréchet distances; or its statistics, by feature.
      cache: the folder of saved measurements of exactly these pictures.
      own_caches: the folders of `originals`, and of rows that other evaluations share.
      refuse_gray: folders of the rows that must have colours, for the message.
      check_stop: raises if the program must stop.

    Raises:
      MetricError: for pictures that cannot be measured.
    """
    of_originals = found._replace(rows={"originals": found.originals})
    originals = _measure(
        suite, of_originals, own_caches["originals"], check_stop, pairs=False
    )
    shared = found.rows.keys() & own_caches
    rest = {row: files for row, files in found.rows.items() if row not in shared}
    measured = _measure(suite, found._replace(rows=rest), cache, check_stop)
    for row in sorted(shared):
        alone = found._replace(rows={row: found.rows[row]})
        for part, arrays in _measure(suite, alone, own_caches[row], check_stop).items():
            measured[part] |= arrays
    statistics = reference
    if isinstance(reference, Reference):
        if "inception" not in suite.parts:
            statistics = {}
        elif reference.batches is not None:
            statistics = statistics_of(suite, reference, check_stop)
    if jax.process_index() != 0:
        return {}, {}
    names = list(found.originals)
    labels = None
    if found.listed:
        labels = np.array([found.listed.label(name) for name in names])
    for row, place in refuse_gray.items():
        arrays = (originals if row == "originals" else measured)[PIXELS]
        shown = [f"{place}/{name}" for name in names]
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
            labels=labels,
            in_order=bool(found.listed and found.listed.protocol),
        )

    # Metrics over all samples, such as diversity, belong to a row `model`.
    all_rows = ("originals", *found.rows, "model")
    return {name: row(name) for name in all_rows}, statistics


def _measure(
    suite: MetricSuite,
    found: Pictures,
    folder: epath.Path,
    check_stop: Callable[[], None],
    *,
    pairs: bool = True,
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the measurements of each picture by part, on host 0; saves each batch."""
    names, size = list(found.originals), batch_size(suite.height, suite.width)
    starts = range(0, len(names), size)
    parts = {
        part: BatchFiles(folder / f"{suite.part_name(part)}", len(starts))
        for part in suite.parts
        if pairs or part not in LPIPS
    }
    for index, start in enumerate(starts):
        missing = [part for part, files in parts.items() if not files.has(index)]
        if not missing:
            continue
        some = names[start : start + size]

        def load(files: Files, some: Sequence[str] = some) -> np.ndarray:
            return _on_all_hosts(suite, [files[name] for name in some], found.square)

        rows = {row: load(files) for row, files in found.rows.items()}
        target = load(found.originals) if pairs else None
        mask = None
        if found.masks is not None and pairs:
            mask = (load(found.masks)[..., :1] > 127).astype(np.uint8)
        for part in missing:
            check_stop()
            own = {k: v for k, v in rows.items() if k != "mean" or part == PIXELS}
            arrays = suite.measure(part, own, reference=target, mask=mask)
            parts[part].save(index, arrays)
        if jax.process_index() == 0:
            what = "pictures" if pairs else "originals"
            done = f"{start + len(some)} of {len(names)}"
            print(f"{done} {what} measured", flush=True)
    if jax.process_index() != 0:
        return {}
    return {part: files.join() for part, files in parts.items()}


def _on_all_hosts(
    suite: MetricSuite, paths: Sequence[epath.PathLike], square: folders.Square | None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns the pictures on every host; host 0 reads them."""
    if jax.process_count() == 1:
        return folders.load(paths, square)
    loaded = np.zeros((len(paths), suite.height, suite.width, 3), np.uint8)
    if jax.process_index() == 0:
        loaded = folders.load(paths, square)
    return parallel.gather(loaded[None])[0]


def task_results(
    suite: MetricSuite,
    rows: Mapping[str, table.Row],
    main: str,
    names: Sequence[str],
    listed: ImageList | None,
    reference: Mapping[str, Any],
    **protocol: Any,
) -> dict[str, Any]:
    """Returns the results of a task for table.json.

    `main` is the row whose pictures are listed one by one; task, degradation and size
    select the paper's rows.
    """
    expected, why = None, "give --task to see them"
    if protocol["task"]:
        expected, why = paper.find(
            **protocol,
            protocol=listed.protocol if listed else "",
            pictures=len(names),
            reference_pictures=reference["pictures"],
        )
    each = {title: values.tolist() for title, values in rows[main].each.items()}
    values = {title: row.values for title, row in rows.items()}
    return {
        "rows": values,
        "intervals": {title: row.intervals() for title, row in rows.items()},
        "each": {
            # NaN: the class is unknown.
            name: {t: v[index] for t, v in each.items() if not math.isnan(v[index])}
            for index, name in enumerate(names)
        },
        "paper": expected._asdict() if expected else None,
        "no_paper": why,
        "warnings": summary.warnings(suite, values, len(names)),
    }
