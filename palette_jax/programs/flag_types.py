"""Types of flags: numbers within limits."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from palette_jax.config.limits import LARGEST


def whole(low: int, *, high: int = LARGEST) -> Callable[[str], int]:
    """Returns a parser of whole numbers from `low` to `high`."""
    return lambda text: _parse(text, int, "a whole number", low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Returns a parser of numbers from `low` to `high`."""
    return lambda text: _parse(text, float, "a number", low, high)


def _parse(
    text: str, kind: Callable[[str], Any], what: str, low: Any, high: Any
) -> Any:
    try:
        value = kind(text)
    except ValueError:  # Also for a whole number of thousands of digits.
        value = math.nan
    if low <= value <= high:  # NaN is in no range.
        return value
    raise argparse.ArgumentTypeError(
        f"expected {what} from {low:,.10g} to {high:,.10g}, got {text[:40]!r}"
    )
