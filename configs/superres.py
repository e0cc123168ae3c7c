"""The config `superres`; its text is palette_jax/configs/superres.py."""

from palette_jax.configs.superres import get_config

__all__ = ["get_config"]
