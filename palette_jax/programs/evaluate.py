"""`palette-jax evaluate`: measures pictures of any program, without TensorFlow."""

import argparse
import pathlib
from typing import Any

from etils import epath

from palette_jax.evaluation import of_folder, report, summary
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.programs import flag_types

_MAX_SIZE = 4096  # A larger square takes gigabytes to resize.

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
    add_settings(parser)
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


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the measurement."""
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="list of the pictures to measure, with their classes; FID then refers to"
        " all of --reference",
    )
    parser.add_argument(
        "--size",
        type=flag_types.whole(1, high=_MAX_SIZE),
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
    task, degradation = _TASKS.get(args.task, ("", {}))
    results, show = of_folder.evaluate(
        pathlib.Path(args.results),
        pathlib.Path(args.reference),
        out,
        **settings(args),
        statistics=args.statistics,
        save_statistics=args.save_statistics,
        given=args.given,
        task=task,
        degradation=degradation,
    )
    page = report.write_folder(out, results, show)
    print("", *summary.of_folder(results), f"report: {page}", sep="\n")
    return 0


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of the measurement by their flags."""
    return {"list_file": args.list, "size": args.size, "protocol": args.protocol}
