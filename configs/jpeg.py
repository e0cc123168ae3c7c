"""The config `jpeg`; its text is palette_jax/configs/jpeg.py."""

from palette_jax.configs.jpeg import get_config

__all__ = ["get_config"]
