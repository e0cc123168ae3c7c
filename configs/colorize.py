"""The config `colorize`; its text is palette_jax/configs/colorize.py."""

from palette_jax.configs.colorize import get_config

__all__ = ["get_config"]
