"""Which of two methods is better on the same pictures."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from palette_jax.errors import UserError, some_of
from palette_jax.evaluation import table
from palette_jax.evaluation.metrics import bootstrap

# Settings that must be equal to compare two numbers.
_SAME = ("name", "list", "crop", "resize", "quantisation", "reference", "weights")


class Difference(NamedTuple):
    """A metric of two methods.

    Attributes:
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
        low, high = self.interval or (0.0, 0.0)
        if not direction or low <= 0 <= high:
            return ""
        return "B" if (low > 0) == (direction == "higher") else "A"


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Difference]:
    """Returns the differences of two results of a task on the same pictures."""
    values = [found["rows"][found["main"]] for found in (first, second)]
    found = {}
    for title in table.titles(values):
        if any(title not in each for each in values):
            continue
        a, b = (value[title] for value in values)
        one, two = (
            np.array([each[name].get(title, np.nan) for name in first["each"]])
            for each in (first["each"], second["each"])
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


def load(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the content of the table.json of an evaluation.

    Raises:
      UserError: if there is none.
    """
    path = folder / "table.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(
            f"expected a folder of `palette-jax evaluate`, got {folder} without a"
            " table.json; to compare two folders of pictures, add --reference=DIR, the"
            " folder of their originals"
        )
    try:
        return json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise UserError(f"expected a table.json, got {path}: {error}") from error


def by_task(results: Any, place: object) -> dict[str, dict[str, Any]]:
    """Returns the results of each task of a table.json; the empty name for no task.

    Raises:
      UserError: if the metrics of each picture are missing; the message names `place`.
    """
    tasks = results.get("tasks", {"": results}) if isinstance(results, dict) else {}
    if not tasks or any("each" not in found for found in tasks.values()):
        raise UserError(
            f"expected the metrics of each picture in {place}, got a table of an"
            " earlier version; evaluate again"
        )
    main, protocol = results.get("results", "model"), results["protocol"]
    return {
        task: {**found, "main": main, "protocol": protocol}
        for task, found in tasks.items()
    }


def check_same(
    first: Mapping[str, Any], second: Mapping[str, Any], places: tuple[str, str]
) -> None:
    """Raises `UserError`, with the places of both, if their numbers do not compare."""
    a, b = places
    differ = first["each"].keys() ^ second["each"].keys()
    if differ:
        raise UserError(
            f"expected the same pictures in {a} and {b}, got {len(differ)} in one of"
            f" them only: {some_of(sorted(differ))}; evaluate both with the same --list"
        )
    one, two = first["protocol"], second["protocol"]
    changed = [key for key in _SAME if one.get(key) != two.get(key)]
    if first.get("degradation") != second.get("degradation"):
        changed.append("degradation")
    if changed:
        raise UserError(
            f"expected evaluations with equal settings, got {a} and {b} with another"
            f" {', '.join(changed)}; evaluate both in the same way"
        )
