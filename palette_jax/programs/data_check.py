"""`palette-jax data check FOLDER`: checks a folder of pictures before training."""

import argparse
import collections
import pathlib

from etils import epath

from palette_jax.config import base
from palette_jax.errors import UserError
from palette_jax.pictures import files, sheets
from palette_jax.programs import flag_types
from palette_jax.programs.run import check_training_packages

_LISTED = 20  # Lines for each kind of finding.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    commands = parser.add_subparsers(
        dest="data_command", metavar="COMMAND", required=True
    )
    what = "list the files that training would skip, with the reasons"
    check = commands.add_parser("check", help=what, description=what)
    data = base.get_config().data
    check.add_argument("folder", metavar="FOLDER", help="of pictures, also gs://")
    check.add_argument("--masks", metavar="DIR", help="masks of the same names")
    check.add_argument(
        "--num-eval",
        type=flag_types.whole(1),
        default=data.num_eval,
        metavar="N",
        help="pictures to hold out, as data.num_eval (default %(default)s)",
    )
    check.add_argument(
        "--min-side",
        type=flag_types.whole(1),
        default=data.min_side,
        metavar="PIXELS",
        help="smaller pictures are skipped, as data.min_side (default %(default)s)",
    )
    check.add_argument(
        "--out",
        metavar="PNG",
        help="write a sheet of the pictures with findings, and of masks on pictures",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if there are any."""
    if args.out and pathlib.Path(args.out).suffix.lower() != ".png":
        raise UserError(f"expected --out to end in .png, got {args.out}")
    if args.masks and not epath.Path(args.masks).is_dir():
        raise UserError(f"expected --masks to be a folder, got no such: {args.masks}")
    check_training_packages()
    from palette_jax.data import check  # Needs TensorFlow.

    checked = check.check(
        args.folder,
        num_eval=args.num_eval,
        min_side=args.min_side,
        masks_folder=args.masks,
    )
    print(f"{checked.total} files, of which training uses {checked.usable}")
    if args.masks:
        print(f"{len(checked.paired)} pictures have a mask")
    kinds = collections.defaultdict(list)
    for finding in checked.findings:
        kinds[finding.kind].append(check.plain(finding.text))
    for kind, texts in kinds.items():
        print(f"\n{kind}: {len(texts)}", *texts[:_LISTED], sep="\n  ")
        if len(texts) > _LISTED:
            print(f"  and {len(texts) - _LISTED} more")
    if not kinds:
        print("no file is skipped, and there are no duplicates")
    if args.out:
        if tiles := checked.tiles():
            sheet = sheets.labelled(tiles)
            files.write(args.out, sheet, files.Photo(sheet))
            print(f"sheet: {args.out}")
        else:
            print("no sheet: there is no picture with a finding")
    return 1 if kinds else 0
