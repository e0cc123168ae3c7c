"""What a run has shown so far: its evaluated checkpoints, and its log of losses."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from palette_jax.evaluation.table import Values

_TAGS = ("loss", "held_out_loss", "loss_at_level/")


def of_task(
    workdir: epath.Path, task: str, results: Mapping[str, Any]
) -> dict[int, dict[str, Values]]:
    """Returns the rows of a task by step, of evaluations that compare with these.

    Args:
      workdir: of the run.
      task: which must have been degraded in the same way.
      results: of one checkpoint; others count if all but the checkpoint is equal.
    """
    past = {}
    for path in sorted((workdir / "evaluation").glob("step_*/table.json")):
        try:
            other = json.loads(path.read_text())
            found = other["tasks"][task]
            is_like = _conditions(other, task) == _conditions(results, task)
            if is_like:
                past[int(other["step"])] = found["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Of a first version, or damaged: one point less in a plot.
    return past or {int(results["step"]): results["tasks"][task]["rows"]}


def losses(workdir: epath.Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the losses that training has logged: steps and values by name.

    Where a run went back to an earlier step and on from there, the later value counts.
    """
    # Takes a second, and TensorFlow's word for where it looks.
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util

    found: dict[str, dict[int, float]] = {}
    files = sorted(workdir.glob("events.out.tfevents.*"), key=lambda p: p.name)
    for path in files:
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(_TAGS) and value.HasField("tensor"):
                    number = float(tensor_util.make_ndarray(value.tensor))
                    found.setdefault(value.tag, {})[event.step] = number
    return {tag: sorted(values.items()) for tag, values in found.items()}


def _conditions(results: Mapping[str, Any], task: str) -> Any:
    protocol = {k: v for k, v in results["protocol"].items() if k != "checkpoint"}
    return protocol, results["tasks"][task]["degradation"]
