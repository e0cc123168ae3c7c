"""`palette-jax evaluate`: judges pictures that any program made. No TensorFlow."""

import argparse
import pathlib
from typing import Any

from etils import epath

from palette_jax.errors import UserError
from palette_jax.evaluation import of_folder, report, summary
from palette_jax.pictures.protocols import PROTOCOLS

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
    task, degradation = _TASKS.get(args.task, ("", {}))
    results, show = of_folder.evaluate(
        pathlib.Path(args.results),
        pathlib.Path(args.reference),
        out,
        **judging(args),
        statistics=args.statistics,
        save_statistics=args.save_statistics,
        given=args.given,
        task=task,
        degradation=degradation,
    )
    page = report.write_folder(out, results, show)
    print("", *summary.of_folder(results), f"report: {page}", sep="\n")
    return 0


def judging(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the flags of `add_judging` say, and checks it."""
    if args.size is not None and args.size < 1:
        raise UserError(f"expected --size of 1 pixel or more, got {args.size}")
    return {"list_file": args.list, "size": args.size, "protocol": args.protocol}
