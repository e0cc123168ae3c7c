"""`palette-jax diff RUN RUN`: lists the differences between two runs."""

import argparse
from typing import Any

from etils import epath

from palette_jax.config import identity
from palette_jax.config.values import flatten, from_dict
from palette_jax.errors import UserError, some_of
from palette_jax.training import checkpoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two runs."""
    for name, which in (("first", "one run"), ("second", "the other run")):
        parser.add_argument(name, metavar="RUN", help=f"the --workdir of {which}")


def run(args: argparse.Namespace) -> int:
    """Prints a line for each difference; returns 1 if there are any, like diff."""
    lines = differences(_load(args.first), _load(args.second))
    print("\n".join(lines) or "no differences")
    return 1 if lines else 0


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns a line for each difference in config, pictures, versions and hosts."""
    lines = []
    for name in sorted({*first, *second} - {"held_out_names"}):
        if first.get(name) != second.get(name):
            lines.append(f"{name}: {first.get(name)!r} and {second.get(name)!r}")
    a, b = (set(about.get("held_out_names") or ()) for about in (first, second))
    for which, only in (("first", a - b), ("second", b - a)):
        if only:
            shown = some_of(sorted(only))
            lines.append(f"held out in the {which} run only: {len(only)}: {shown}")
    return lines


def _load(workdir: str) -> dict[str, Any]:
    """Returns everything that defines a run, under names such as `config.seed`."""
    about = checkpoints.load_about(epath.Path(workdir).expanduser() / "checkpoints")
    if not about:
        raise UserError(
            f"expected the folder of a run, got {workdir}, which has no checkpoints;"
            " name the --workdir of a run"
        )
    data = about.pop("data", {})
    about["config"] = from_dict(about["config"]).to_dict()
    about["meaning_of_the_weights"] = identity.digest(
        identity.meaning(from_dict(about["config"]))
    )
    found = dict(flatten(about))
    found["held_out_names"] = data.get("held_out_names")
    for index, source in enumerate(data.get("train", [])):
        found |= {f"data.train.{index}.{key}": value for key, value in source.items()}
    held_out = data.get("held_out", {})
    return found | {f"data.held_out.{key}": value for key, value in held_out.items()}
