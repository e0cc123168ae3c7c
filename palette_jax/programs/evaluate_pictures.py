"""`palette-jax evaluate`: judges pictures that any program made. No TensorFlow."""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from etils import epath

from palette_jax import parallel
from palette_jax.config import identity
from palette_jax.errors import UserError
from palette_jax.evaluation import folders, paper, report, table, words
from palette_jax.evaluation.judge import PIXELS, Judge
from palette_jax.evaluation.metrics import frechet, pictures
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.evaluation.parts import (
    STATISTICS_FOLDER,
    Parts,
    write_whole,
)
from palette_jax.pictures import image_list, match
from palette_jax.programs import photo_files

_BATCH = 64
# What the paper has figures of, as its tasks and what the config says of them.
_TASKS = {
    "colorize": ("colorize", {}),
    "inpaint-center": ("inpaint", {"inpaint_mask": "center"}),
    "uncrop-right": ("uncrop", {"uncrop_side": "right"}),
    **{f"jpeg-{q}": ("jpeg", {"jpeg_quality": q}) for q in (5, 10, 20)},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("results", help="folder of pictures that a program made")
    parser.add_argument(
        "--reference",
        required=True,
        metavar="DIR",
        help="folder of the originals, under the same names but for the endings",
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="names of the pictures that count, and their classes; FID then refers to"
        " all of --reference",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="compare central squares, resized; without, pictures as they are",
    )
    parser.add_argument(
        "--task", choices=_TASKS, help="whose figures in the paper to print as well"
    )
    parser.add_argument(
        "--out", default="evaluation", metavar="DIR", help="%(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, and writes table.json and report.html."""
    results, reference = pathlib.Path(args.results), pathlib.Path(args.reference)
    if args.size is not None and args.size < 1:
        raise UserError(f"expected --size of 1 pixel or more, got {args.size}")
    names = image_list.read(args.list) if args.list else None
    pairs = folders.pair(results, reference, names=names)
    if len(pairs) < 2:
        raise MetricError(
            f"expected two pictures or more, got {len(pairs)}:"
            f" {', '.join(str(pair.result) for pair in pairs.values())}"
        )
    out = pathlib.Path(args.out)
    photo_files.make_out(out)
    paths = [path for pair in pairs.values() for path in pair]
    if args.size is None:
        height, width = folders.check_sizes(paths)
    else:
        height = width = args.size
    parallel.cache_compilations()
    judge = Judge(
        height,
        width,
        batch_size=min(_BATCH, len(pairs)),
        has_labels=names is not None and bool(names.labels),
    )
    measured = _measure(pairs, judge, args.size, out / "measured")
    for row, of in (("results", results), ("originals", reference)):
        gray = measured[PIXELS][f"{row}/gray"]
        shown = [str(of / name) for name in pairs]
        pictures.refuse_gray_set(gray, shown)
    everything = folders.pictures(reference)
    found, told = _reference(pairs, everything, measured, judge, args.size)
    options: dict[str, Any] = {
        "names": list(pairs),
        "originals": measured,
        "reference": found,
        "labels": _labels(names, list(pairs)),
        "in_order": bool(names and names.protocol),
    }
    rows = {"original pictures": table.row("originals", measured, **options)}
    rows[str(results)] = table.row("results", measured, **options)
    _write(args, pairs, judge, rows, measured, names, told)
    return 0


def _measure(
    pairs: dict[str, folders.Pair], judge: Judge, size: int | None, out: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Measures all pairs, batch by batch, and goes on where it was stopped."""
    names = list(pairs)
    key = identity.digest(
        {
            "results": folders.checksums({n: p.result for n, p in pairs.items()}),
            "reference": folders.checksums({n: p.reference for n, p in pairs.items()}),
            "size": size,
            "batch": _BATCH,
        }
    )
    starts = range(0, len(names), _BATCH)
    parts = {
        part: Parts(epath.Path(out) / key / judge.part_name(part), len(starts))
        for part in judge.parts
    }
    for index, start in enumerate(starts):
        missing = [part for part in parts if not parts[part].has(index)]
        if not missing:
            continue
        batch = names[start : start + _BATCH]
        results = folders.load([pairs[name].result for name in batch], size)
        originals = folders.load([pairs[name].reference for name in batch], size)
        for part in missing:
            found = judge.measure(part, {"results": results}, reference=originals)
            if part != "lpips":
                found |= judge.measure(part, {"originals": originals})
            parts[part].save(index, {"name": np.array(batch), **found})
        print(f"{start + len(batch)} of {len(names)} pictures measured", flush=True)
    return {part: kept.join() for part, kept in parts.items()}


def _reference(
    pairs: dict[str, folders.Pair],
    everything: dict[str, pathlib.Path],
    measured: table.Measured,
    judge: Judge,
    size: int | None,
) -> tuple[dict[str, frechet.Statistics], dict[str, Any]]:
    """Returns what Fréchet distances refer to, and what is said of it."""
    weights = judge.weights.get("inception", "")
    digest = _hash(everything, size, weights=weights)
    told = {"pictures": len(everything), "hash": digest}
    if not weights:
        return {}, told
    if len(everything) == len(pairs):
        arrays = measured["inception"]
        return table.statistics(arrays, "originals", list(pairs)), told

    def compute() -> dict[str, frechet.Statistics]:
        names, found = list(everything), {}
        if size is None:
            folders.check_sizes([everything[name] for name in names])
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            loaded = folders.load([everything[name] for name in batch], size)
            arrays = judge.measure("inception", {"originals": loaded})
            for name, more in table.statistics(arrays, "originals", batch).items():
                found[name] = (
                    frechet.merge(found[name], more) if name in found else more
                )
            print(
                f"{start + len(batch)} of {len(names)} references measured", flush=True
            )
        return found

    path = epath.Path(STATISTICS_FOLDER).expanduser() / f"{digest}.npz"
    return frechet.cached(path, compute), told


def _hash(
    paths: dict[str, pathlib.Path], size: int | None, *, weights: str = ""
) -> str:
    return frechet.reference_hash(
        folders.checksums(paths),
        resize=words.resize(size) if size else "none",
        crop=words.CROP if size else "none",
        weights=weights,
    )


def _labels(names: image_list.ImageList | None, found: list[str]) -> np.ndarray | None:
    if names is None or not names.labels:
        return None
    by_stem = {match.stem(k): v for k, v in names.labels.items()}
    by_file = {stem.rsplit("/", 1)[-1]: label for stem, label in by_stem.items()}
    return np.array(
        [by_stem.get(n, by_file.get(n.rsplit("/", 1)[-1], -1)) for n in found]
    )


def _write(
    args: argparse.Namespace,
    pairs: dict[str, folders.Pair],
    judge: Judge,
    rows: dict[str, table.Values],
    measured: table.Measured,
    names: image_list.ImageList | None,
    reference: dict[str, Any],
) -> None:
    task, degradation = _TASKS.get(args.task, ("", {}))
    expected, why = None, "give --task to see them"
    if task:
        expected, why = paper.find(
            task,
            degradation,
            protocol=names.protocol if names else "",
            pictures=len(pairs),
            size=args.size or 0,
            reference_pictures=reference["pictures"],
        )
    results = {
        "results": str(args.results),
        "rows": rows,
        "paper": expected._asdict() if expected else None,
        "no_paper": why,
        "absent": judge.absent,
        "warnings": words.warnings(judge, rows, len(pairs)),
        "protocol": {
            "pictures": len(pairs),
            "pictures_hash": _hash({n: p.result for n, p in pairs.items()}, args.size),
            "list": args.list or "",
            "crop": words.CROP if args.size else "none",
            "resize": words.resize(args.size) if args.size else "none",
            "quantisation": words.QUANTISATION,
            "reference": reference,
            "weights": judge.weights,
        },
        "psnr": dict(
            zip(pairs, measured[PIXELS]["results/psnr"].tolist(), strict=True)
        ),
    }
    out = epath.Path(args.out)
    write_whole(out / "table.json", json.dumps(results, indent=1).encode())

    def show(name: str) -> dict[str, np.ndarray]:
        both = {"result": pairs[name].result, "original": pairs[name].reference}
        return {kind: folders.load([path], args.size)[0] for kind, path in both.items()}

    page = report.write_pictures(out, results, show)
    print("", *words.of_pictures(results), f"report: {page}", sep="\n")
