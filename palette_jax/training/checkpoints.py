"""Reads checkpoints, and checks their files.

A checkpoint is read only if it is committed: orbax writes `commit_success.txt` last,
and `manifest.delete` removes that file first. Readers use the newest committed
checkpoint whose files match the hashes in its manifest.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from palette_jax import parallel
from palette_jax.training import manifest
from palette_jax.training.checkpoint_writer import CheckpointError, handler
from palette_jax.training.manifest import committed_steps
from palette_jax.training.state import TrainState
from palette_jax.types import Params

_NO_MANIFEST = "there is no manifest.json to check its files by"


def restore(directory: epath.PathLike, abstract_state: TrainState) -> TrainState | None:
    """Restores the newest checkpoint that is sound, None if there is none at all.

    Args:
      directory: of the checkpoints of a run.
      abstract_state: shapes, types and shardings to restore to, which need not be those
        that it was saved from.

    Raises:
      CheckpointError: if it is of another network, or none of them is sound.
    """
    try:
        restored = _restore_newest(directory, abstract_state)
    except CheckpointError:
        # Without clipping, the first version stored only Adam's state.
        opt_state: Any = abstract_state.opt_state
        older = abstract_state.replace(opt_state=opt_state[-1])
        with contextlib.suppress(CheckpointError):
            if found := _restore_newest(directory, older):
                return found[0].replace(opt_state=(*opt_state[:-1], found[0].opt_state))
        raise
    return None if restored is None else restored[0]


def restore_step(
    directory: epath.PathLike, step: int, abstract_state: TrainState
) -> TrainState:
    """Restores the checkpoint of one step.

    Raises:
      CheckpointError: if it is damaged or of another network.
    """
    path = manifest.absolute(directory) / str(step)
    if not manifest.exists(path):
        logging.warning("%s: %s; it is used unchecked", path, _NO_MANIFEST)
    elif wrong := manifest.problem(path):
        raise CheckpointError(f"expected a sound checkpoint in {path}, got: {wrong}")
    _check_leaves(path, abstract_state)
    return _restore_tree(path, abstract_state)


def restore_params(
    directory: epath.PathLike, abstract_params: Params
) -> tuple[Params, int]:
    """Restores the averaged weights alone, from the newest checkpoint that is sound.

    Returns:
      The weights, and the step they are of.
    """
    _steps_or_raise(epath.Path(directory))
    restored = _restore_newest(directory, {"ema_params": abstract_params})
    assert restored is not None  # There are steps.
    return restored[0]["ema_params"], restored[1]


def load_config(directory: epath.PathLike) -> dict[str, Any]:
    """Returns the configuration that the newest checkpoint was made with.

    Reads one small file and touches no device.

    Raises:
      CheckpointError: if there is no checkpoint.
    """
    _steps_or_raise(epath.Path(directory))
    return load_about(directory)["config"]


def load_about(directory: epath.PathLike) -> dict[str, Any]:
    """Returns the newest checkpoint's notes on its run; empty if there is none.

    That is `config` and `versions`, and of newer runs `data`, the identity of their
    pictures, and `code`, the version of this package.
    """
    root = epath.Path(directory)
    steps = committed_steps(root)
    for step in steps:
        path = root / str(step)
        try:
            found = manifest.exists(path) and manifest.problem(path, below="config/")
            if not found:
                about = json.loads((path / "config/metadata").read_text())
                if "config" in about:
                    return about
                found = "its config is missing"
        except (OSError, ValueError, KeyError) as error:
            found = str(error)
        logging.warning("no config in %s (%s); trying the one before", path, found)
    if not steps:
        return {}
    raise CheckpointError(
        f"expected a config in one of the checkpoints in {root}, got none; they are"
        " damaged: move them away to start from the beginning"
    )


def verify(directory: epath.PathLike) -> list[tuple[int, str | None]]:
    """Reads all files of all checkpoints; touches no device.

    Returns:
      Each finished step, the newest first, with its problem or None.
    """
    root = epath.Path(directory)
    checked: list[tuple[int, str | None]] = []
    for step in _steps_or_raise(root):
        path = root / str(step)
        has_manifest = manifest.exists(path)
        wrong = manifest.problem(path) if has_manifest else _NO_MANIFEST
        checked.append((step, wrong))
    return checked


def _steps_or_raise(root: epath.Path) -> list[int]:
    steps = committed_steps(root)
    if not steps:
        raise CheckpointError(
            f"expected checkpoints in {root}, got none; train first, or give the"
            " --workdir that a run was started with"
        )
    return steps


def _restore_newest(directory: epath.PathLike, abstract: Any) -> tuple[Any, int] | None:
    """Returns the requested tree and its step; None if there are no steps."""
    root, found = manifest.absolute(directory), False
    for step in _on_all_hosts(iter(committed_steps(root))):
        found, path = True, root / str(step)
        has_manifest = manifest.exists(path)
        wrong = manifest.problem(path) if has_manifest and _is_host_0() else None
        if parallel.from_host_0(float(wrong is not None)):
            if wrong:
                logging.warning("%s: %s; going back to the one before", path, wrong)
            continue
        if not has_manifest and _is_host_0():
            logging.warning("%s: %s; it is used unchecked", path, _NO_MANIFEST)
        try:
            _check_leaves(path, abstract)
            return _restore_tree(path, abstract), step
        except CheckpointError:
            raise
        except Exception as error:
            # With sound files this is no damage, such as a device without memory. And
            # hosts that do not all fail would wait for each other.
            if has_manifest or jax.process_count() > 1:
                raise
            logging.warning(
                "%s cannot be read (%s); going back to the one before",
                path,
                (str(error).splitlines() or [repr(error)])[0],
            )
    if found:
        raise CheckpointError(
            f"expected a sound checkpoint in {root}, got only damaged ones; move them"
            " away to start from the beginning"
        )
    return None


def _on_all_hosts(values: Iterator[int]) -> Iterator[int]:
    """Yields host 0's steps on every host, since their views of a disk may differ."""
    if jax.process_count() == 1:
        yield from values
        return
    while True:
        mine = next(values, -1) if _is_host_0() else -1
        value = int(multihost_utils.broadcast_one_to_all(np.int32(mine)))
        if value < 0:
            return
        yield value


def _is_host_0() -> bool:
    return jax.process_index() == 0


def _restore_tree(path: epath.Path, abstract: Any) -> Any:
    """Restores the requested leaves, with their shardings."""
    args = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    with ocp.Checkpointer(handler()) as reader:
        return reader.restore(path, args=ocp.args.Composite(state=args))["state"]


def _check_leaves(path: epath.Path, abstract: Any) -> None:
    """Raises if a leaf is missing or of another shape: that is no damage."""
    with ocp.Checkpointer(handler()) as reader:
        tree = reader.metadata(path).item_metadata["state"].tree
    stored = dict(_leaves(tree))
    wrong = []
    for name, leaf in _leaves(abstract):
        shape = tuple(stored[name].shape) if name in stored else None
        if shape != tuple(leaf.shape):
            wrong.append(f"{name}: expected {tuple(leaf.shape)}, got {shape or 'none'}")
    if wrong:
        raise CheckpointError(
            f"checkpoint {path} is of another network: "
            + "; ".join(wrong[:5])
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            + "; use the config it was trained with, or another --workdir"
        )


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]
