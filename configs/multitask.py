"""The config `multitask`; its text is palette_jax/configs/multitask.py."""

from palette_jax.configs.multitask import get_config

__all__ = ["get_config"]
