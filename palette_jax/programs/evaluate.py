"""`palette-jax evaluate`: measures pictures of any program, without TensorFlow."""

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
from palette_jax.evaluation import evaluator, folders, references, report, summary
from palette_jax.evaluation.batch_files import write_whole
from palette_jax.evaluation.judge import Judge
from palette_jax.evaluation.metrics import frechet, weight_files
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.pictures import image_list
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.programs import photo_files

Show = Callable[[str], Mapping[str, np.ndarray]]

# The paper's tasks and degradations, with their keys in the config.
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
    parser.add_argument("results", help="folder of the results of a program")
    parser.add_argument(
        "--reference",
        required=True,
        metavar="DIR",
        help="folder of the originals, with the same names except for extensions",
    )
    add_judging(parser)
    parser.add_argument(
        "--statistics",
        metavar="FILE",
        help="reference of FID in place of --reference: an .npz file with mu and sigma,"
        " as pytorch-fid and clean-fid write it",
    )
    parser.add_argument(
        *("--save-statistics", "--save_statistics"),
        metavar="FILE",
        help="write mu and sigma of FID's reference, for pytorch-fid and clean-fid",
    )
    parser.add_argument(
        "--given",
        metavar="DIR",
        help="folder of the program's inputs, to show in the report",
    )
    parser.add_argument(
        "--task", choices=_TASKS, help="also print the paper's figures of this task"
    )
    parser.add_argument(
        "--out", default="evaluation", metavar="DIR", help="%(default)s"
    )


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the measurement."""
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="list of the pictures to measure, with their classes; FID then refers to"
        " all of --reference",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="compare resized central squares (default: the pictures as they are)",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="paper",
        help="crop, resize and inputs of networks (default %(default)s)",
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
      The content, and a function that returns the pictures of a name by kind.
    """
    photo_files.check_out(pathlib.Path(out))
    found = _pictures(args, results)
    judge = _judge(args, found)
    size, names = args.size, list(found.originals)
    sums = [folders.checksums(of) for of in (found.originals, found.rows["results"])]
    about = [size, args.protocol, judge.height, judge.width, identity.CODE]
    kept = out / "measured"
    refers_to, about_reference = _reference(args, judge, found)
    evaluated = evaluator.evaluate(
        judge,
        found,
        refers_to,
        evaluator.Folders(
            # Results are compared with their originals.
            kept / identity.digest([about, sums]),
            kept / identity.digest([about, sums[0]]),
        ),
        refuse_gray={"results": str(results), "originals": args.reference},
    )
    if args.save_statistics:
        _save_statistics(args.save_statistics, evaluated.reference)
    title = results.resolve().name  # Reports are shared, so they contain no paths.
    rows = {
        summary.ORIGINALS: evaluated.rows["originals"],
        title: evaluated.rows["results"],
    }
    task, degradation = _TASKS.get(args.task, ("", {}))
    table = {
        "results": title,
        **evaluator.task_results(
            judge,
            rows,
            title,
            names,
            found.listed,
            about_reference,
            task=task,
            degradation=degradation,
            size=size or 0,
        ),
        "absent": judge.absent,
        "protocol": summary.statement(
            judge,
            pictures=len(names),
            pictures_hash=references.pictures_hash(judge, sums[1], size),
            list_file=pathlib.PurePath(args.list or "").name,
            size=size,
            reference=about_reference,
        ),
    }
    write_whole(out / "table.json", json.dumps(table, indent=1).encode())
    kinds = {"result": found.rows["results"], "original": found.originals}
    if args.given:
        kinds = {"given": folders.pictures(pathlib.Path(args.given)), **kinds}

    def show(name: str) -> dict[str, np.ndarray]:
        return {
            kind: folders.load([files[name]], found.square)[0]
            for kind, files in kinds.items()
            if name in files
        }

    return table, show


def _pictures(args: argparse.Namespace, results: pathlib.Path) -> evaluator.Pictures:
    """Returns the pairs of results and originals."""
    if args.size is not None and args.size < 1:
        raise UserError(f"expected --size of 1 pixel or more, got {args.size}")
    listed = image_list.read(args.list) if args.list else None
    pairs = folders.pair(results, pathlib.Path(args.reference), names=listed)
    if len(pairs) < 2:
        raise MetricError(
            f"expected two pictures or more, got {len(pairs)}:"
            f" {', '.join(str(pair.result) for pair in pairs.values())}"
        )
    return evaluator.Pictures(
        {name: pair.reference for name, pair in pairs.items()},
        {"results": {name: pair.result for name, pair in pairs.items()}},
        square=PROTOCOLS[args.protocol].to(args.size) if args.size else None,
        listed=listed,
    )


def _judge(args: argparse.Namespace, found: evaluator.Pictures) -> Judge:
    height = width = args.size
    if not args.size:
        files = [*found.originals.values(), *found.rows["results"].values()]
        height, width = folders.check_sizes(files)
    parallel.cache_compilations()
    return Judge(
        height,
        width,
        batch_size=min(references.batch_size(height, width), len(found.originals)),
        has_labels=found.listed is not None and bool(found.listed.labels),
        protocol=args.protocol,
    )


def _reference(
    args: argparse.Namespace,
    judge: Judge,
    found: evaluator.Pictures,
) -> tuple[references.Reference | dict[str, frechet.Statistics], dict[str, Any]]:
    """Returns the reference of Fréchet distances, and its description."""
    if args.statistics:
        digest = weight_files.sha256(args.statistics)[:16]
        return frechet.read_public(args.statistics), {"pictures": 0, "hash": digest}
    everything = folders.pictures(pathlib.Path(args.reference))
    sums = folders.checksums(everything)
    digest = references.pictures_hash(judge, sums, args.size, seen=True)
    about_reference = {"pictures": len(everything), "hash": digest}
    if len(everything) == len(found.originals):
        return references.Reference(len(everything), digest), about_reference
    if found.square is None and "inception" in judge.parts:
        folders.check_sizes(list(everything.values()))
    return references.folder_reference(
        judge, everything, found.square, digest
    ), about_reference


def _save_statistics(path: str, found: Mapping[str, frechet.Statistics]) -> None:
    """Writes the statistics of the deepest available feature."""
    if not found:
        raise MetricError(
            "expected Inception's weights for --save-statistics, got none; put them"
            " into the folder in the line `absent: FID`, or leave the flag out"
        )
    frechet.save_public(path, found[max(found, key=int)])
