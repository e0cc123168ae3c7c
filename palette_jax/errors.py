"""Errors that the user can fix."""

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can fix; the message says how.

    The commands print it in one line, without a traceback, and exit with status 1.
    """


class WeightsError(UserError):
    """Weights that cannot be read or imported; the message has the reason."""


class MetricError(UserError):
    """Pictures or features that cannot be measured; the message names the files."""


def some_of(names: Sequence[str]) -> str:
    """Returns the first names and the number of further ones, for a message."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
