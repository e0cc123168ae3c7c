"""`palette-jax study make` and `palette-jax study score`."""

import argparse
import pathlib

from palette_jax.errors import UserError
from palette_jax.programs import flag_types
from palette_jax.study import make, score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of both commands."""
    commands = parser.add_subparsers(
        dest="study_command", metavar="COMMAND", required=True
    )
    about = "write the page of a study: one file that needs no network"
    maker = commands.add_parser("make", help=about, description=about)
    maker.add_argument(
        "--originals", required=True, metavar="DIR", help="pictures from a camera"
    )
    maker.add_argument(
        "--method",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="results under the same names; repeat it for several methods",
    )
    maker.add_argument(
        "--seconds",
        type=flag_types.number(0.01, 3600.0),
        default=3.0,
        help="how long a pair is shown; the paper's studies have 3 or 5 (default 3)",
    )
    maker.add_argument(
        "--pairs",
        type=flag_types.whole(1),
        default=50,
        help="number for each person (default 50)",
    )
    maker.add_argument(
        "--catches",
        type=flag_types.whole(0, high=100),
        default=3,
        help="catch trials: pairs with an obvious answer (default 3)",
    )
    maker.add_argument(
        "--seed",
        type=flag_types.whole(0, high=2**32 - 1),
        default=0,
        help="seed of orders and sides",
    )
    maker.add_argument("--out", default="study.html", help="default: %(default)s")
    maker.add_argument(
        "--key",
        metavar="FILE",
        help="file of the answer key; keep it secret (default: OUT with .key.json)",
    )
    about = "print how often people took each method's pictures for a camera's"
    scorer = commands.add_parser("score", help=about, description=about)
    scorer.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="FILE",
        help="the answer key of `make`; repeat it for several studies",
    )
    scorer.add_argument("answers", nargs="+", metavar="CSV", help="files of the page")


def run(args: argparse.Namespace) -> int:
    """Writes the page, or prints the fool rates."""
    if args.study_command == "score":
        answers = score.read(args.answers, score.read_keys(args.key))
        print(*score.lines(answers), sep="\n")
        return 0
    methods = {}
    for given in args.method:
        name, separator, folder = given.partition("=")
        if not separator or not name or name in methods:
            raise UserError(
                f"expected --method=NAME=DIR with a unique name for each, got {given!r}"
            )
        methods[name] = pathlib.Path(folder)
    out = pathlib.Path(args.out)
    key = pathlib.Path(args.key) if args.key else out.with_suffix(".key.json")
    pairs = make.write(
        out,
        key,
        pathlib.Path(args.originals),
        methods,
        seconds=args.seconds,
        pairs=args.pairs,
        catches=args.catches,
        seed=args.seed,
    )
    size = out.stat().st_size / 1e6
    print(
        f"{out} ({size:.1f} MB): {pairs} pairs for each person,"
        f" {args.seconds:g} s each, methods: {', '.join(methods)}\n"
        f"Open it in a browser, or send it. The answers are in {key}, not in the page:"
        " keep the key secret. Each person saves a CSV file at the end; then run:"
        f" palette-jax study score --key={key} *.csv"
    )
    return 0
