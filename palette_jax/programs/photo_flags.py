"""The flags of commands that restore a user's own pictures."""

import argparse
import dataclasses
from typing import Any

from palette_jax.programs import flag_types
from palette_jax.restoration.settings import (
    LARGE,
    MAX_STEPS,
    QUALITY_PRESETS,
    SAMPLERS,
    Settings,
)
from palette_jax.tasks import Sides


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the network and the sampler."""
    parser.add_argument(
        "--checkpoint",
        metavar="DIR|FILE",
        help="folder of a run, or a file of `palette-jax export` (default: the weights"
        " of the package)",
    )
    presets = "; ".join(
        f"{name}: {p['num_steps']} steps of {p['sampler']}"
        for name, p in QUALITY_PRESETS.items()
    )
    parser.add_argument(
        "--quality-preset",
        dest="quality",
        choices=QUALITY_PRESETS,
        help=f"{presets} (default: {Settings.quality})",
    )
    parser.add_argument("--sampler", choices=SAMPLERS, help="instead of the preset's")
    parser.add_argument(
        "--num-steps",
        type=flag_types.whole(1, high=MAX_STEPS),
        metavar="N",
        help="instead of the preset's",
    )
    parser.add_argument(
        "--seed",
        type=flag_types.whole(0, high=2**32 - 1),
        metavar="N",
        help="default: 0",
    )
    parser.add_argument(
        "--large",
        choices=LARGE,
        help="restores a picture larger than the network's at its own size in tiles, or"
        " from a small copy (auto, the default: shrink to colorize and for holes wider"
        " than half of the network; else tiles)",
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the results."""
    parser.add_argument(
        "--out",
        default="restored",
        metavar="DIR",
        help="folder of the results (default %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")


def settings(
    args: argparse.Namespace, task: str, *, like: Settings | None = None, **others: Any
) -> Settings:
    """Returns the settings of the flags; `like` provides the others.

    Raises:
      UserError: for an invalid value.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    flags = {name: getattr(args, name, None) for name in names} | others
    given: dict[str, Any] = {k: v for k, v in flags.items() if v is not None}
    given["task"] = task
    if like is None:
        return Settings(**given)
    if {"sampler", "num_steps", "quality"} & set(given) == {"quality"}:
        given |= {"sampler": None, "num_steps": None}  # The preset's own.
    return dataclasses.replace(like, **given)


def share(text: str) -> float:
    """Parses `50%` or `0.5`.

    Raises:
      argparse.ArgumentTypeError: if it is neither.
    """
    try:
        is_percent = text.endswith("%")
        return float(text.removesuffix("%")) / (100 if is_percent else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a share such as 50% or 0.5, got {text!r}"
        ) from None


def extension(text: str) -> float | Sides:
    """Parses `50%` or `0.5`, of a side named elsewhere, or `left=50%,top=0.25`.

    Raises:
      argparse.ArgumentTypeError: if it is none of these.
    """
    if "=" not in text:
        return share(text)
    shares: dict[str, float] = {}
    for part in text.split(","):
        side, _, amount = part.partition("=")
        if side not in Sides._fields:
            raise argparse.ArgumentTypeError(
                f"expected sides out of {', '.join(Sides._fields)}, got {side!r}"
            )
        if side in shares:
            raise argparse.ArgumentTypeError(f"expected each side once, got {text!r}")
        shares[side] = share(amount)
    return Sides(**shares)
