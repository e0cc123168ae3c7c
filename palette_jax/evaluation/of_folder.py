"""Measures a folder of pictures that any program made. No TensorFlow."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from palette_jax import atomic, parallel
from palette_jax.config import identity
from palette_jax.errors import MetricError
from palette_jax.evaluation import evaluator, folders, references, summary
from palette_jax.evaluation.metrics import frechet, weight_files
from palette_jax.evaluation.suite import MetricSuite
from palette_jax.pictures import image_list
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.restoration.jobs import check_out

Show = Callable[[str], Mapping[str, np.ndarray]]


def evaluate(
    results: pathlib.Path,
    reference: pathlib.Path,
    out: epath.Path,
    *,
    list_file: str | None = None,
    size: int | None = None,
    protocol: str = "paper",
    statistics: str | None = None,
    save_statistics: str | None = None,
    given: str | None = None,
    task: str = "",
    degradation: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Show]:
    """Writes table.json of a folder of results.

    The options are those of `palette-jax evaluate`. `degradation` has the keys of
    `eval`.

    Returns:
      The content of table.json, and a function that returns pictures by name and kind.

    Raises:
      UserError: for folders that cannot be measured.
    """
    check_out(pathlib.Path(out))
    found = _pictures(results, reference, list_file, size, protocol)
    of_given = folders.pictures(pathlib.Path(given)) if given else None
    suite = _make_suite(found, size, protocol)
    if save_statistics and "inception" not in suite.parts:
        raise MetricError(
            "expected Inception's weights for --save-statistics, got none;"
            f" {suite.absent['FID']}"
        )
    names = list(found.originals)
    sums = [folders.checksums(of) for of in (found.originals, found.rows["results"])]
    about = [size, protocol, suite.height, suite.width, identity.CODE]
    cache = out / "measured"
    refers_to, about_reference = _reference(reference, statistics, size, suite, found)
    measured, reference_statistics = evaluator.evaluate(
        suite,
        found,
        refers_to,
        cache=cache / identity.digest([about, sums]),  # Of results and originals.
        own_caches={"originals": cache / identity.digest([about, sums[0]])},
        refuse_gray={"results": str(results), "originals": str(reference)},
    )
    if save_statistics:
        deepest = max(reference_statistics, key=int)
        frechet.save_public(save_statistics, reference_statistics[deepest])
    title = results.resolve().name  # Reports are shared, so they contain no paths.
    rows = {summary.ORIGINALS: measured["originals"], title: measured["results"]}
    table = {
        "results": title,
        **evaluator.task_results(
            suite,
            rows,
            title,
            names,
            found.listed,
            about_reference,
            task=task,
            degradation=degradation or {},
            size=size or 0,
        ),
        "absent": suite.absent,
        "protocol": summary.statement(
            suite,
            pictures=len(names),
            pictures_hash=references.pictures_hash(suite, sums[1], size),
            list_file=pathlib.PurePath(list_file or "").name,
            size=size,
            reference=about_reference,
        ),
    }
    atomic.write_text(out / "table.json", json.dumps(table, indent=1))
    kinds = {"result": found.rows["results"], "original": found.originals}
    if of_given is not None:
        kinds = {"given": of_given, **kinds}

    def show(name: str) -> dict[str, np.ndarray]:
        return {
            kind: folders.load([files[name]], found.square)[0]
            for kind, files in kinds.items()
            if name in files
        }

    return table, show


def _pictures(
    results: pathlib.Path,
    reference: pathlib.Path,
    list_file: str | None,
    size: int | None,
    protocol: str,
) -> evaluator.Pictures:
    listed = image_list.read(list_file) if list_file else None
    pairs = folders.pair(results, reference, names=listed)
    if len(pairs) < 2:
        raise MetricError(
            f"expected two pictures or more, got {len(pairs)}:"
            f" {', '.join(str(pair.result) for pair in pairs.values())}"
        )
    square = PROTOCOLS[protocol].square
    return evaluator.Pictures(
        {name: pair.reference for name, pair in pairs.items()},
        {"results": {name: pair.result for name, pair in pairs.items()}},
        square=(lambda pixels: square(pixels, size)) if size else None,
        listed=listed,
    )


def _make_suite(
    found: evaluator.Pictures, size: int | None, protocol: str
) -> MetricSuite:
    if size:
        height = width = size
    else:
        files = [*found.originals.values(), *found.rows["results"].values()]
        height, width = folders.check_sizes(files)
    parallel.cache_compilations()
    return MetricSuite(
        height,
        width,
        batch_size=min(references.batch_size(height, width), len(found.originals)),
        has_labels=found.listed is not None and bool(found.listed.labels),
        protocol=protocol,
    )


def _reference(
    folder: pathlib.Path,
    statistics: str | None,
    size: int | None,
    suite: MetricSuite,
    found: evaluator.Pictures,
) -> tuple[references.Reference | dict[str, frechet.Statistics], dict[str, Any]]:
    if statistics:
        public = frechet.read_public(statistics)
        digest = weight_files.sha256(statistics)[:16]
        return public, {"pictures": 0, "hash": digest}
    everything = folders.pictures(folder)
    sums = folders.checksums(everything)
    digest = references.pictures_hash(suite, sums, size, seen=True)
    about_reference = {"pictures": len(everything), "hash": digest}
    if len(everything) == len(found.originals):
        return references.Reference(len(everything), digest), about_reference
    if found.square is None and "inception" in suite.parts:
        folders.check_sizes(list(everything.values()))
    return references.folder_reference(
        suite, everything, found.square, digest
    ), about_reference
