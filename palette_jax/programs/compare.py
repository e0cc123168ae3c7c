"""`palette-jax compare`: which of two methods is better on the same pictures."""

import argparse
import contextlib
import json
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from palette_jax.errors import UserError
from palette_jax.evaluation import table
from palette_jax.evaluation.metrics import bootstrap
from palette_jax.evaluation.metrics.pictures import some_of
from palette_jax.programs import evaluate

# Settings that must be equal to compare two numbers.
_SAME = ("name", "list", "crop", "resize", "quantisation", "reference", "weights")


class Difference(NamedTuple):
    """A metric of two methods.

    Attributes:
      first: value of the first method.
      second: value of the second method.
      interval: of second minus first, at 95%; None for metrics of whole sets.
      wins: the share of pictures on which the second is better.
    """

    first: float
    second: float
    interval: tuple[float, float] | None
    wins: float | None

    def better(self, title: str) -> str:
        """Returns the better method, A or B, if the interval excludes 0."""
        direction = table.BY_TITLE[title].better
        if self.interval is None or not direction or _spans_0(self.interval):
            return ""
        return "B" if (self.interval[0] > 0) == (direction == "higher") else "A"


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
        *("--json",), action="store_true", help="print JSON in place of a table"
    )
    parser.add_argument(
        "--out",
        default="evaluation",
        metavar="DIR",
        help="folder of the evaluations of pictures, A and B (default %(default)s)",
    )
    parser.set_defaults(statistics=None, save_statistics=None, given=None, task=None)


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


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Difference]:
    """Returns the differences of two evaluations, by metric.

    Args:
      first: the results of a task in a table.json.
      second: the same of another method, on the same pictures.
    """
    values = [found["rows"][found["main"]] for found in (first, second)]
    found = {}
    for title in table.titles(values):
        if any(title not in each for each in values):
            continue
        a, b = (value[title] for value in values)
        one, two = (
            np.array([each.get(title, np.nan) for each in _each(first, evaluation)])
            for evaluation in (first, second)
        )
        interval = wins = None
        if not np.isnan(two - one).all():
            interval = bootstrap.interval(two - one)
            sign = {"lower": -1, "higher": 1}.get(table.BY_TITLE[title].better)
            known = (two - one)[~np.isnan(two - one)]
            # Single pictures have no kernel distance, only a contribution.
            if sign and not title.startswith("KID"):
                wins = float((sign * known > 0).mean())
        found[title] = Difference(a, b, interval, wins)
    return found


def _each(first: dict[str, Any], evaluation: dict[str, Any]) -> list[dict[str, float]]:
    """Returns the metrics of single pictures, in the order of the first evaluation."""
    return [evaluation["each"][name] for name in first["each"]]


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
            results, _ = evaluate.judge_folder(args, folder, out)
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


def _spans_0(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]
