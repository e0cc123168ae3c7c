"""`palette-jax import`: weights of another project become a run of ours."""

import argparse
import pprint
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax.config import base as base_config
from palette_jax.config import build
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from palette_jax.interop.convert import SUPPORTED, import_weights
from palette_jax.interop.mapping import Imported
from palette_jax.interop.saved_outputs import FORM, compare
from palette_jax.tasks import TASKS
from palette_jax.training.checkpoint_writer import CheckpointWriter
from palette_jax.training.state import make_state

REPORT = "import_report.txt"

# Written into the folder of the run, for further training.
_CONFIG_FILE = '''\
"""Continues training of imported weights, described in import_report.txt.

    python main.py --config=DIR/config.py --workdir=DIR

Batch sizes and step counts are those of the variant in config/base.py.
"""

import ml_collections

from palette_jax.configs import {task}

IMPORTED = {groups}


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant with the imported network."""
    config = {task}.get_config(variant)
    for group, values in IMPORTED.items():
        config[group].update(values)
    return config
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.epilog = SUPPORTED
    parser.add_argument(
        "weights", metavar="FILE", help="or the folder of a diffusers model"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the new run"
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="what the network was trained for (default: inpaint)",
    )
    parser.add_argument(
        "--verify",
        metavar="IO.npz",
        help=f"compares with outputs of its original code: {FORM}",
    )
    unsaid = parser.add_argument_group(
        "settings that the file may lack", "an error names those that are needed"
    )
    unsaid.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="in pixels; for an export of palette_jax, a new size",
    )
    unsaid.add_argument(
        "--head-features", type=int, metavar="N", help="channels of an attention head"
    )
    unsaid.add_argument(
        "--num-heads", type=int, metavar="N", help="if it is the same at every level"
    )
    unsaid.add_argument(
        "--new-attention-order",
        action="store_true",
        help="guided-diffusion was run with use_new_attention_order",
    )
    unsaid.add_argument(
        "--noisy-first",
        action="store_true",
        help="the diffusers network takes the noisy picture first, then the source",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the run and the report, and prints the next commands."""
    out = epath.Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"expected a new or an empty folder, got {out}, which is not empty; set"
            " another --out"
        )
    imported = import_weights(
        args.weights,
        image_size=args.image_size,
        head_features=args.head_features,
        num_heads=args.num_heads,
        new_attention_order=args.new_attention_order,
        noisy_first=args.noisy_first,
    )
    config = make_config(imported.config, args.task)
    if config.task != "paired":  # The user sets its folders later.
        checked = from_dict(config.to_dict())
        checked.data.source = "sample_photos"  # The checks need no other pictures.
        build.check(checked)
    lines = [f"file: {args.weights}", *imported.report.lines()]
    if args.verify:
        lines += compare(imported, args.verify, noisy_first=args.noisy_first)
    _save(imported, config, out)
    (out / REPORT).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"this report is saved in {out / REPORT}")
    print(f"restore:  palette-jax restore PHOTO --checkpoint={out}")
    if config.task != "paired":
        (out / "config.py").write_text(_config_file(imported, config))
        print(f"train on: python main.py --config={out}/config.py --workdir={out}")
    return 0


def make_config(
    values: Mapping[str, Any], task: str | None
) -> ml_collections.ConfigDict:
    """Returns a complete config for the network of a file.

    Args:
      values: of the groups of config/base.py; a complete config, with a task, for our
        own exports.
      task: of the network, unless the config contains it.

    Raises:
      UserError: if our own export has a configuration of another version.
    """
    try:
        if "task" in values:
            config = from_dict(values)
            return _with_task(config, task) if task else config
        config = base_config.get_config()
        for group, changes in values.items():
            config[group].update(changes)
        return _with_task(config, task or "inpaint")
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(
            f"expected a configuration with the keys of this version, got {error};"
            " export the weights again"
        ) from error


def _with_task(
    config: ml_collections.ConfigDict, task: str
) -> ml_collections.ConfigDict:
    config.task = task
    if task == "paired":
        config.data.source = "paired"
    return config


def _save(
    imported: Imported, config: ml_collections.ConfigDict, out: epath.Path
) -> None:
    optimizer = build.make_optimizer(config)
    shapes = jax.eval_shape(lambda p: make_state(p, optimizer), imported.params)
    # Step and moments of Adam start at zero, and numpy's zeros take no memory.
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = state.replace(params=imported.params, ema_params=imported.params)
    with CheckpointWriter(out / "checkpoints") as writer:
        writer.save(state, config.to_dict(), None)


def _config_file(imported: Imported, config: ml_collections.ConfigDict) -> str:
    groups = {
        group: {key: config[group][key] for key in imported.config[group]}
        for group in ("model", "diffusion", "sample", "mix")
        if group in imported.config
    }
    keys = ("image_size", "hints", "gray")
    groups["data"] = {key: config.data[key] for key in keys}
    # The variants have other objectives; the imported network keeps its own.
    learned = {"objective": config.diffusion.objective}
    groups["diffusion"] = groups.get("diffusion", {}) | learned
    # With clipping, the state of the optimizer is of another form.
    groups["optim"] = {"clip_norm": config.optim.clip_norm}
    return _CONFIG_FILE.format(task=config.task, groups=pprint.pformat(groups))
