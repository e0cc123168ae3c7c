"""What a user can put right."""


class UserError(ValueError):
    """An error whose message is all that a user needs: what was expected, what to do.

    The commands print it in a line, without a trace, and leave with status 1.
    """


class WeightsError(UserError):
    """Weights that cannot be read or taken over; the message says what was found."""
