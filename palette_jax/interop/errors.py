"""The error of this part."""


class WeightsError(ValueError):
    """Weights that cannot be taken over; the message says what was found."""
