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
from palette_jax.evaluation.differences import Difference, differences
from palette_jax.evaluation.metrics.pictures import some_of
from palette_jax.programs import evaluate

# Settings that must be equal to compare two numbers.
_SAME = ("name", "list", "crop", "resize", "quantisation", "reference", "weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    what = "folder of `evaluate`, or of pictures with --reference"
    parser.add_argument("first", metavar="A", help=what)
    parser.add_argument("second", metavar="B", help="likewise, of the same pictures")
    parser.add_argument(
        "--reference", metavar="DIR", help="folder of the originals of both"
    )
    evaluate.add_judging(parser)
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
    by_task = {}
    for task in first:
        if task in second:
            _check_same(first[task], second[task], args)
            by_task[task] = differences(first[task], second[task])
    if not by_task:
        raise UserError(
            f"expected evaluations of the same task, got {', '.join(first)} in"
            f" {args.first} and {', '.join(second)} in {args.second}"
        )
    if args.json:
        print(
            json.dumps(
                {t: {k: d._asdict() for k, d in by_task[t].items()} for t in by_task}
            )
        )
        return 0
    print(f"A: {args.first}\nB: {args.second}")
    for task, found in by_task.items():
        print(*([f"\n{task}"] if task else []), *_lines(found), sep="\n")
    count = len(next(iter(first.values()))["each"])
    print(
        f"{count} pictures. The intervals are of the difference on the same pictures, a"
        " paired bootstrap; FID and IS of whole sets have none."
    )
    return 0


def _read(
    args: argparse.Namespace, folder: pathlib.Path, name: str
) -> dict[str, dict[str, Any]]:
    """Returns the results of an evaluation by task; the empty name for no task."""
    path = folder / "table.json" if folder.is_dir() else folder
    if args.reference is not None:
        out = epath.Path(args.out) / name
        # Standard output must contain only JSON.
        aside = sys.stderr if args.json else sys.stdout
        with contextlib.redirect_stdout(aside):
            results, _ = of_folder.evaluate(
                folder, pathlib.Path(args.reference), out, **evaluate.judging(args)
            )
    elif path.is_file():
        try:
            results = json.loads(path.read_text("utf8"))
        except ValueError as error:
            raise UserError(f"expected a table.json, got {path}: {error}") from error
    else:
        raise UserError(
            f"expected a folder of `palette-jax evaluate`, got {folder} without a"
            " table.json; to compare two folders of pictures, add --reference=DIR, the"
            " folder of their originals"
        )
    tasks = results.get("tasks", {"": results}) if isinstance(results, dict) else {}
    if not tasks or any("each" not in found for found in tasks.values()):
        raise UserError(
            f"expected the metrics of each picture in {path}, got a table of an earlier"
            " version; evaluate again"
        )
    return {
        task: {
            **found,
            "main": results.get("results", "model"),
            "protocol": results["protocol"],
        }
        for task, found in tasks.items()
    }


def _check_same(
    first: dict[str, Any], second: dict[str, Any], args: argparse.Namespace
) -> None:
    """Raises `UserError` for evaluations whose numbers do not compare."""
    differ = first["each"].keys() ^ second["each"].keys()
    if differ:
        raise UserError(
            f"expected the same pictures in {args.first} and {args.second}, got"
            f" {len(differ)} in one of them only: {some_of(sorted(differ))}; evaluate"
            " both with the same --list"
        )
    one, two = first["protocol"], second["protocol"]
    changed = [key for key in _SAME if one.get(key) != two.get(key)]
    if first.get("degradation") != second.get("degradation"):
        changed.append("degradation")
    if changed:
        raise UserError(
            f"expected evaluations with equal settings, got {args.first} and"
            f" {args.second} with another {', '.join(changed)}; evaluate both in the"
            " same way"
        )


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
