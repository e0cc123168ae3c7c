"""From a user's own picture to the model's input, and back to a picture.

`files` and `masks` read, `Settings` say what is wanted, and a `Restorer`, which
`palette_jax.config.build_restorer` loads, does it.
"""

from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides

__all__ = ["Settings", "Sides"]
