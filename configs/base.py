"""Every key and the three variants; they are in the package, for an installed copy."""

from palette_jax.config.base import get_config

__all__ = ["get_config"]
