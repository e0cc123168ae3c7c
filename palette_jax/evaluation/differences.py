"""Which of two methods is better on the same pictures."""

from typing import Any, NamedTuple

import numpy as np

from palette_jax.evaluation import table
from palette_jax.evaluation.metrics import bootstrap


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


def _spans_0(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]
