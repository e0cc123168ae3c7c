"""The config `inpaint`; its text is palette_jax/configs/inpaint.py."""

from palette_jax.configs.inpaint import get_config

__all__ = ["get_config"]
