"""Orbax checkpoints: asynchronous, atomic, and never silently something else."""

import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from palette_jax.errors import UserError
from palette_jax.training.state import TrainState
from palette_jax.types import Params

_METRIC = "held_out_loss"


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another network."""


def open_manager(directory: epath.PathLike, *, keep: int = 3) -> ocp.CheckpointManager:
    """Opens the checkpoints of a run, to write and to read.

    Keeps the newest `keep` and the best by held-out loss. Orbax's own `max_to_keep`
    with a best metric would delete the newest, which a run resumes from.
    """

    def metric(metrics: Mapping[str, float]) -> float:
        return metrics[_METRIC]

    policy = checkpoint_managers.preservation_policy
    return ocp.CheckpointManager(
        epath.Path(directory).absolute(),
        item_handlers=_item_handlers(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(
                [
                    policy.LatestN(keep),
                    policy.BestN(
                        get_metric_fn=metric,
                        reverse=True,
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            best_fn=metric,  # Without it, orbax does not write the metrics.
            best_mode="min",
            cleanup_tmp_directories=True,  # Of a save that was killed.
        ),
    )


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    config: Mapping[str, Any],
    held_out_loss: float,
) -> None:
    """Starts writing a checkpoint; what failed in the last one is raised here.

    Raises:
      CheckpointError: if the one before could not be written.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    finite = held_out_loss if np.isfinite(held_out_loss) else np.finfo(np.float32).max
    try:
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                config=ocp.args.JsonSave({"config": config, "versions": _versions()}),
            ),
            metrics={_METRIC: float(finite)},
            force=True,
        )
    except OSError as error:
        raise _not_written(manager, error) from error


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until what was started is written.

    Raises:
      CheckpointError: if it could not be.
    """
    try:
        manager.wait_until_finished()
        manager.check_for_errors()
    except OSError as error:
        raise _not_written(manager, error) from error


def restore(
    manager: ocp.CheckpointManager, abstract_state: TrainState
) -> TrainState | None:
    """Restores the newest checkpoint that can be read, None if there is none at all.

    Args:
      manager: of the run.
      abstract_state: shapes, types and shardings to restore to.

    Raises:
      CheckpointError: if it is of another network, or none of them can be read.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        try:
            _check_leaves(manager, step, abstract_state)
            return _restore_tree(manager, step, abstract_state)
        except CheckpointError:
            raise
        except Exception as error:
            logging.warning(
                "checkpoint %s cannot be read (%s); going back to the one before",
                manager.directory / str(step),
                str(error).splitlines()[0],
            )
    if steps:
        raise CheckpointError(
            f"expected a readable checkpoint in {manager.directory}, got {len(steps)}"
            " that cannot be read; move them away to start from the beginning"
        )
    return None


def restore_params(
    directory: epath.PathLike, abstract_params: Params, *, ema: bool = True
) -> tuple[Params, int]:
    """Restores the weights alone from the newest checkpoint that can be read.

    Returns:
      The averaged weights, unless asked for the raw ones, and the step they are of.
    """
    name = "ema_params" if ema else "params"
    with _open_to_read(directory) as manager:
        for step in _steps_or_raise(epath.Path(directory)):
            try:
                _check_leaves(manager, step, {name: abstract_params})
                restored = _restore_tree(manager, step, {name: abstract_params})
                return restored[name], step
            except CheckpointError:
                raise
            except Exception as error:
                logging.warning(
                    "checkpoint %s of %s cannot be read (%s); trying the one before",
                    step,
                    directory,
                    str(error).splitlines()[0],
                )
    raise CheckpointError(f"none of the checkpoints in {directory} can be read")


def load_config(directory: epath.PathLike) -> dict[str, Any]:
    """Returns the configuration that the newest checkpoint was made with.

    Reads one small file: it is asked for before a device may be touched.
    """
    root = epath.Path(directory)
    for step in _steps_or_raise(root):
        path = root / str(step) / "config" / "metadata"
        try:
            return json.loads(path.read_text())["config"]
        except (OSError, ValueError, KeyError) as error:
            logging.warning("cannot read %s (%s); trying the one before", path, error)
    raise CheckpointError(f"none of the checkpoints in {root} has a configuration")


def _open_to_read(directory: epath.PathLike) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(read_only=True)
    path = epath.Path(directory).absolute()
    return ocp.CheckpointManager(path, item_handlers=_item_handlers(), options=options)


def _item_handlers() -> dict[str, ocp.CheckpointHandler]:
    return {
        "state": ocp.PyTreeCheckpointHandler(),
        "config": ocp.JsonCheckpointHandler(),
    }


def _restore_tree(manager: ocp.CheckpointManager, step: int, abstract: Any) -> Any:
    """Restores the leaves asked for, with their shardings."""
    args = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return manager.restore(step, args=ocp.args.Composite(state=args))["state"]


def _steps_or_raise(root: epath.Path) -> list[int]:
    """Returns the steps of all finished checkpoints, the newest first."""
    names = [path.name for path in root.iterdir()] if root.exists() else []
    steps = sorted((int(name) for name in names if name.isdigit()), reverse=True)
    if not steps:
        raise CheckpointError(
            f"expected checkpoints in {root}, got none; train first, or give the"
            " --workdir that a run was started with"
        )
    return steps


def _check_leaves(manager: ocp.CheckpointManager, step: int, abstract: Any) -> None:
    """Raises if a leaf is missing or of another shape: that is no damage."""
    stored = dict(_leaves(manager.item_metadata(step)["state"].tree))
    wrong = []
    for path, leaf in _leaves(abstract):
        shape = tuple(stored[path].shape) if path in stored else None
        if shape != tuple(leaf.shape):
            wrong.append(f"{path}: expected {tuple(leaf.shape)}, got {shape or 'none'}")
    if wrong:
        raise CheckpointError(
            f"checkpoint {manager.directory / str(step)} is of another network: "
            + "; ".join(wrong[:5])
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            + "; use the config it was trained with, or another --workdir"
        )


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    flat = jax.tree.leaves_with_path(tree)
    return [("/".join(_name(key) for key in path), leaf) for path, leaf in flat]


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _versions() -> dict[str, str]:
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: metadata.version(name) for name in names}


def _not_written(manager: ocp.CheckpointManager, error: OSError) -> CheckpointError:
    steps = manager.all_steps(read=True)
    kept = f"step {max(steps)} is" if steps else "none is"
    return CheckpointError(
        f"could not write a checkpoint to {manager.directory}: {error}; {kept} the last"
        " finished one; make room and run the same command again"
    )
