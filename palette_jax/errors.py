"""Errors that the user can fix."""


class UserError(ValueError):
    """An error that the user can fix; the message says how.

    The commands print it in a line, without a trace, and leave with status 1.
    """


class WeightsError(UserError):
    """Weights that cannot be read or imported; the message says what was found."""
