"""The `palette-jax restore` command that repeats a computation of the page."""

import shlex
from collections.abc import Mapping
from typing import Any

from palette_jax.restoration.settings import Settings


def as_command(name: str, settings: Settings, about: Mapping[str, Any]) -> str:
    """Returns the command that writes the same file.

    Args:
      name: the photo's file name.
      settings: of one result.
      about: the metadata of the result: names of checkpoint, mask and hints.
    """
    given = {
        "task": settings.task,
        "checkpoint": about.get("checkpoint"),
        "mask": about.get("mask"),
        "hints": about.get("hints"),
        "quality-preset": settings.quality,
        "sampler": settings.sampler,
        "num-steps": settings.num_steps,
        "seed": settings.seed or None,
        "extend": ",".join(
            f"{side}={share!r}"
            for side, share in settings.extend._asdict().items()
            if share
        ),
        "large": None if settings.large == "auto" else settings.large,
    }
    flags = [f"--{flag}={value}" for flag, value in given.items() if value]
    if settings.keep_luminance:
        flags.append("--keep-luminance")
    photo = f"./{name}" if name.startswith("-") else name
    return shlex.join(["palette-jax", "restore", photo, *flags])
