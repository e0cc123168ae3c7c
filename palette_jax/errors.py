"""Errors that the user can fix."""


class UserError(ValueError):
    """An error that the user can fix; the message says how.

    The commands print it in one line, without a traceback, and exit with status 1.
    """


class WeightsError(UserError):
    """Weights that cannot be read or imported; the message has the reason."""


class MetricError(UserError):
    """Pictures or features that cannot be measured; the message names the files."""
