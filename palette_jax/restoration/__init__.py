"""Restores a user's own picture: to the model's input and back to a picture.

A `Restorer`, loaded by `palette_jax.config.build_restorer`, restores pictures by
`Settings` and returns a `Result`.
"""

from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides

__all__ = ["Settings", "Sides"]
