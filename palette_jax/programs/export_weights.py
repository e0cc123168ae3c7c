"""`palette-jax export`: the averaged weights of a run as one safetensors file."""

import argparse

import jax
from etils import epath

from palette_jax.config.build_restorer import load_weights
from palette_jax.errors import UserError
from palette_jax.interop.safetensors_file import export_safetensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "checkpoint", metavar="DIR", help="folder of a run, or of its checkpoints"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the new .safetensors file"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the file; bfloat16 takes half the space (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the file, with the configuration in it."""
    out = epath.Path(args.out)
    if out.suffix != ".safetensors":
        raise UserError(f"expected --out to end in .safetensors, got {out}")
    if out.exists():
        raise UserError(f"expected a new file, got {out}, which exists; move it away")
    config, params, step = load_weights(args.checkpoint)
    values = config.to_dict()
    # Paths of pictures do not describe the network, but may reveal private names.
    for name in values["data"]:
        if name.endswith(("folder", "_dir", "_list")):
            values["data"][name] = ""
    export_safetensors(params, out, config=values, dtype=args.dtype)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    of = "" if step is None else f" of step {step}"
    print(f"{out}: {count:,} averaged parameters{of}, in {args.dtype}")
    print(f"back: palette-jax import {out} --out DIR")
    return 0
