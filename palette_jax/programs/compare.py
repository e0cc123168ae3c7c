"""`palette-jax compare`: which of two methods is better on the same pictures."""

import argparse
import contextlib
import json
import pathlib
import sys
from typing import Any

from etils import epath

from palette_jax.errors import UserError
from palette_jax.evaluation import of_folder, table
from palette_jax.evaluation.differences import (
    Difference,
    by_task,
    check_same,
    differences,
    load,
)
from palette_jax.programs import evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    what = "folder of `evaluate`, or of pictures with --reference"
    parser.add_argument("first", metavar="A", help=what)
    parser.add_argument("second", metavar="B", help="likewise, of the same pictures")
    parser.add_argument(
        "--reference", metavar="DIR", help="folder of the originals of both"
    )
    evaluate.add_settings(parser)
    parser.add_argument(
        "--json", action="store_true", help="print JSON in place of a table"
    )
    parser.add_argument(
        "--out",
        default="evaluation",
        metavar="DIR",
        help="folder of the evaluations of pictures, A and B (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the differences of two methods with their paired intervals."""
    first, second = (
        _read(args, pathlib.Path(folder), name)
        for folder, name in ((args.first, "A"), (args.second, "B"))
    )
    found = {}
    for task in first:
        if task in second:
            check_same(first[task], second[task], (args.first, args.second))
            found[task] = differences(first[task], second[task])
    if not found:
        raise UserError(
            f"expected evaluations of the same task, got {', '.join(first)} in"
            f" {args.first} and {', '.join(second)} in {args.second}"
        )
    if args.json:
        rows = {t: {k: d._asdict() for k, d in of.items()} for t, of in found.items()}
        print(json.dumps(rows))
        return 0
    print(f"A: {args.first}\nB: {args.second}")
    for task, rows in found.items():
        print(*([f"\n{task}"] if task else []), *_lines(rows), sep="\n")
    count = len(next(iter(first.values()))["each"])
    print(
        f"{count} pictures. The intervals are of the difference on the same pictures, a"
        " paired bootstrap; FID and IS of whole sets have none."
    )
    return 0


def _read(
    args: argparse.Namespace, folder: pathlib.Path, name: str
) -> dict[str, dict[str, Any]]:
    """Returns the results of an evaluation by task; measures pictures first."""
    if args.reference is None:
        return by_task(load(folder), folder)
    # Standard output must contain only JSON.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        results, _ = of_folder.evaluate(
            folder,
            pathlib.Path(args.reference),
            epath.Path(args.out) / name,
            **evaluate.settings(args),
        )
    return by_task(results, folder)


def _lines(found: dict[str, Difference]) -> list[str]:
    width = max(len(title) for title in found) + 2
    lines = [
        f"{'':<{width}}{'A':>10}{'B':>10}{'B - A':>10}  {'95% interval':<24}"
        f"{'better':>6}{'B better on':>13}"
    ]
    for title, of in found.items():
        digits = table.BY_TITLE[title].digits

        def signed(value: float, digits: int = digits) -> str:
            return f"{value:+.{digits}f}"

        interval = " to ".join(map(signed, of.interval)) if of.interval else "-"
        wins = f"{100 * of.wins:.0f}%" if of.wins is not None else "-"
        lines.append(
            f"{title:<{width}}{table.number(title, of.first):>10}"
            f"{table.number(title, of.second):>10}{signed(of.second - of.first):>10}"
            f"  {interval:<24}{of.better(title) or '-':>6}{wins:>13}"
        )
    return lines
