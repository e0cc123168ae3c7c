"""`palette-jax evaluate`: judges pictures that any program made. No TensorFlow."""

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from palette_jax import parallel
from palette_jax.config import identity
from palette_jax.errors import UserError
from palette_jax.evaluation import evaluator, folders, paper, report, summary
from palette_jax.evaluation.batch_files import write_whole
from palette_jax.evaluation.judge import Judge
from palette_jax.evaluation.metrics import frechet, weight_files
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.pictures import image_list, match
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.programs import photo_files

Show = Callable[[str], Mapping[str, np.ndarray]]

# What the paper has figures of, as its tasks and what the config says of them.
_TASKS = {
    "colorize": ("colorize", {}),
    "inpaint-center": ("inpaint", {"inpaint_mask": "center"}),
    **{
        f"inpaint-{share}": ("inpaint", {"inpaint_mask": f"free_form_{share}"})
        for share in ("10_20", "20_30", "30_40")
    },
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
    add_judging(parser)
    parser.add_argument(
        "--statistics",
        metavar="FILE",
        help="what FID refers to instead: an .npz file with mu and sigma, as"
        " pytorch-fid and clean-fid write it",
    )
    parser.add_argument(
        *("--save-statistics", "--save_statistics"),
        metavar="FILE",
        help="write mu and sigma of what FID refers to, for pytorch-fid and clean-fid",
    )
    parser.add_argument(
        "--given",
        metavar="DIR",
        help="folder of what the program was given, to show it in the report",
    )
    parser.add_argument(
        "--task", choices=_TASKS, help="whose figures in the paper to print as well"
    )
    parser.add_argument(
        "--out", default="evaluation", metavar="DIR", help="%(default)s"
    )


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how pictures are judged."""
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
        "--protocol",
        choices=PROTOCOLS,
        default="paper",
        help="how pictures are cut and the networks see them (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, and writes table.json and report.html."""
    out = epath.Path(args.out)
    results, show = judge_folder(args, pathlib.Path(args.results), out)
    page = report.write_folder(out, results, show)
    print("", *summary.of_folder(results), f"report: {page}", sep="\n")
    return 0


def judge_folder(
    args: argparse.Namespace, results: pathlib.Path, out: epath.Path
) -> tuple[dict[str, Any], Show]:
    """Writes table.json of a folder of results.

    Returns:
      What it holds, and what shows the pictures of a name, by what they are.
    """
    reference, size = pathlib.Path(args.reference), args.size
    if size is not None and size < 1:
        raise UserError(f"expected --size of 1 pixel or more, got {size}")
    names = image_list.read(args.list) if args.list else None
    pairs = folders.pair(results, reference, names=names)
    if len(pairs) < 2:
        raise MetricError(
            f"expected two pictures or more, got {len(pairs)}:"
            f" {', '.join(str(pair.result) for pair in pairs.values())}"
        )
    photo_files.make_out(pathlib.Path(out))
    square, height, width = None, size or 0, size or 0
    if size is None:
        paths = [path for pair in pairs.values() for path in pair]
        height, width = folders.check_sizes(paths)
    else:
        square = PROTOCOLS[args.protocol].to(size)
    parallel.cache_compilations()
    judge = Judge(
        height,
        width,
        batch_size=min(evaluator.batch_size(height, width), len(pairs)),
        has_labels=names is not None and bool(names.labels),
        protocol=args.protocol,
    )
    found = evaluator.Pictures(
        {name: pair.reference for name, pair in pairs.items()},
        {"results": {name: pair.result for name, pair in pairs.items()}},
        square=square,
        labels=_labels(names, list(pairs)),
        in_order=bool(names and names.protocol),
    )
    sums = {"results": folders.checksums(found.rows["results"])}
    sums["originals"] = folders.checksums(found.originals)
    keys = {
        name: identity.digest(
            [these, size, args.protocol, height, width, identity.CODE]
        )
        for name, these in sums.items()
    }
    keys["results"] = identity.digest(keys)  # They are compared with the originals.
    reference_statistics, told = _reference(args, judge, found, square)
    evaluated = evaluator.evaluate(
        judge,
        found,
        reference_statistics,
        evaluator.Folders(
            out / "measured" / keys["results"], out / "measured" / keys["originals"]
        ),
        refuse_gray={"results": str(results), "originals": str(reference)},
    )
    if args.save_statistics:
        _save_statistics(args.save_statistics, evaluated.reference)
    rows = evaluated.rows
    title = results.resolve().name  # Where it lies is nobody's business.
    titled = {summary.ORIGINALS: rows["originals"], title: rows["results"]}
    statement = summary.statement(
        judge,
        pictures=len(pairs),
        pictures_hash=evaluator.pictures_hash(judge, sums["results"], size),
        list_file=pathlib.PurePath(args.list or "").name,
        size=size,
        reference=told,
    )
    task, degradation = _TASKS.get(args.task, ("", {}))
    expected, why = None, "give --task to see them"
    if task:
        expected, why = paper.find(
            task,
            degradation,
            protocol=names.protocol if names else "",
            pictures=len(pairs),
            size=size or 0,
            reference_pictures=told["pictures"],
        )
    table = evaluator.tell(titled, title, list(pairs))
    told_all = {
        "results": title,
        **table,
        "paper": expected._asdict() if expected else None,
        "no_paper": why,
        "absent": judge.absent,
        "warnings": summary.warnings(judge, table["rows"], len(pairs)),
        "protocol": statement,
    }
    write_whole(out / "table.json", json.dumps(told_all, indent=1).encode())
    kinds = {"original": found.originals, "result": found.rows["results"]}
    if args.given:
        given = folders.pictures(pathlib.Path(args.given))
        kinds = {"given": given, "result": kinds["result"], **kinds}

    def show(name: str) -> dict[str, np.ndarray]:
        paths = {kind: files.get(name) for kind, files in kinds.items()}
        return {k: folders.load([p], square)[0] for k, p in paths.items() if p}

    return told_all, show


def _reference(
    args: argparse.Namespace,
    judge: Judge,
    found: evaluator.Pictures,
    square: folders.Square | None,
) -> tuple[evaluator.Reference | dict[str, frechet.Statistics], dict[str, Any]]:
    """Returns what Fréchet distances refer to, and what is said of it."""
    if args.statistics:
        digest = weight_files.sha256(args.statistics)[:16]
        return frechet.read_public(args.statistics), {"pictures": 0, "hash": digest}
    everything = folders.pictures(pathlib.Path(args.reference))
    sums = folders.checksums(everything)
    digest = evaluator.pictures_hash(judge, sums, args.size, seen=True)
    told = {"pictures": len(everything), "hash": digest}
    if len(everything) == len(found.originals):
        return evaluator.Reference(len(everything), digest), told
    if square is None and "inception" in judge.parts:
        folders.check_sizes(list(everything.values()))
    return evaluator.folder_reference(judge, everything, square, digest), told


def _save_statistics(path: str, found: Mapping[str, frechet.Statistics]) -> None:
    """Writes those of the deepest feature that there is."""
    if not found:
        raise MetricError(
            "expected Inception's weights for --save-statistics, got none; put them"
            " where the line `absent: FID` says, or leave the flag out"
        )
    frechet.save_public(path, found[max(found, key=int)])


def _labels(names: image_list.ImageList | None, found: list[str]) -> np.ndarray | None:
    if names is None or not names.labels:
        return None
    by_stem = {match.stem(k): v for k, v in names.labels.items()}
    by_file = {stem.rsplit("/", 1)[-1]: label for stem, label in by_stem.items()}
    return np.array(
        [by_stem.get(n, by_file.get(n.rsplit("/", 1)[-1], -1)) for n in found]
    )
