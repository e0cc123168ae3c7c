"""The history of a run: its evaluated checkpoints, and its log of losses."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from palette_jax.evaluation.table import Values

_TAGS = ("loss", "held_out_loss", "loss_at_level/")


def of_task(
    workdir: epath.Path, task: str, results: Mapping[str, Any]
) -> dict[int, dict[str, Values]]:
    """Returns a task's rows by step, of evaluations that differ only in the step."""
    past = {}
    for path in sorted((workdir / "evaluation").glob("step_*/table.json")):
        try:
            other = json.loads(path.read_text())
            found = other["tasks"][task]
            is_like = _conditions(other, task) == _conditions(results, task)
            if is_like:
                past[int(other["step"])] = found["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # From a first version, or damaged: the plot lacks this point.
    return past or {int(results["step"]): results["tasks"][task]["rows"]}


def losses(workdir: epath.Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the logged losses of the training: steps and values by name.

    If a run resumed from an earlier step, the later value counts.
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
