"""The config `old_photo`; its text is palette_jax/configs/old_photo.py."""

from palette_jax.configs.old_photo import get_config

__all__ = ["get_config"]
