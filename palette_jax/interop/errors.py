"""The error of this part."""

from palette_jax.errors import UserError


class WeightsError(UserError):
    """Weights that cannot be taken over; the message says what was found."""
