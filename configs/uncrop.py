"""The config `uncrop`; its text is palette_jax/configs/uncrop.py."""

from palette_jax.configs.uncrop import get_config

__all__ = ["get_config"]
