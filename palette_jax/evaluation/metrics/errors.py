"""The error of all metrics."""

from palette_jax.errors import UserError


class MetricError(UserError):
    """Pictures or features that cannot be measured; the message names the files."""
