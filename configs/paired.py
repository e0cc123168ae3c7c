"""The config `paired`; its text is palette_jax/configs/paired.py."""

from palette_jax.configs.paired import get_config

__all__ = ["get_config"]
