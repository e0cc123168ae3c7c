"""Writes checkpoints in the background and deletes the old ones."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from palette_jax.errors import UserError
from palette_jax.training import manifest
from palette_jax.training.state import TrainState

_METRIC = "held_out_loss"


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another network."""


class CheckpointWriter(contextlib.AbstractContextManager["CheckpointWriter"]):
    """Writes the checkpoints of a run.

    Keeps the newest few and the best by held-out loss.
    """

    def __init__(self, directory: epath.PathLike, *, keep: int = 3):
        """Removes leftovers of killed saves and deletions."""
        self.directory = manifest.absolute(directory)
        self._keep = keep
        self._saving: int | None = None
        # Orbax calls this on host 0 when all hosts have written, before it commits.
        finish = ocp.options.AsyncOptions(post_finalization_callback=self._finish)
        self._writer = ocp.AsyncCheckpointer(handler(), async_options=finish)
        if jax.process_index() == 0 and self.directory.exists():
            for path in self.directory.iterdir():
                name = path.name.removesuffix(ocp.utils.TMP_DIR_SUFFIX)
                if name.isdigit() and not manifest.is_committed(path):
                    logging.info("removing %s, which was never finished", path)
                    while path.exists():
                        # A failed save may still be deleting its own files.
                        with contextlib.suppress(FileNotFoundError):
                            path.rmtree()

    def __exit__(self, *error: object) -> None:
        """Waits for the running save."""
        self.close()

    def save(
        self,
        state: TrainState,
        config: Mapping[str, Any],
        held_out_loss: float | None,
        *,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts writing a checkpoint; first waits for the previous one.

        Args:
          state: may be donated to the next step at once.
          config: the resolved one.
          held_out_loss: the lowest is kept; None is worse than any.
          about: what else the run is made of, such as the identity of its pictures.

        Raises:
          CheckpointError: if this or the previous one could not be written.
        """
        worst = float(np.finfo(np.float32).max)
        loss = worst if held_out_loss is None else float(held_out_loss)
        loss = loss if np.isfinite(loss) else worst
        notes = {"versions": versions(), **(about or {}), "config": config}
        items = {
            "state": ocp.args.PyTreeSave(state),
            "config": ocp.args.JsonSave(notes),
            "metrics": ocp.args.JsonSave({_METRIC: loss}),
        }
        self.wait()
        step = int(state.step)
        with self._clear_errors():
            self._prune(step, max(self._keep - 1, 1))
            self._saving = step
            # A damaged checkpoint of the same step may exist.
            self._writer.save(
                self.directory / str(step), args=ocp.args.Composite(**items), force=True
            )

    def wait(self) -> None:
        """Waits until the checkpoint is written.

        Raises:
          CheckpointError: if it could not be.
        """
        with self._clear_errors():
            self._writer.wait_until_finished()
            if self._saving is not None:
                self._prune(self._saving + 1, self._keep)
                self._saving = None

    def close(self) -> None:
        """Waits for the running save, and ends the threads."""
        self.wait()
        self._writer.close()

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # The latter is how tensorstore fails.
            raise CheckpointError(
                f"could not write a checkpoint to {self.directory}: {error};"
                f" {manifest.last_finished(self.directory)}; make room and run the same"
                " command again"
            ) from error

    def _finish(self) -> None:
        name = str(self._saving)
        unfinished = self.directory / (name + ocp.utils.TMP_DIR_SUFFIX)
        # A bucket cannot rename: there the files are already in the final folder.
        here = unfinished if unfinished.exists() else self.directory / name
        manifest.write(here)

    def _prune(self, before: int, keep: int) -> None:
        """Deletes all steps except the newest few and the best before a step.

        Newer steps are damaged: they do not count and are written again.
        """
        if jax.process_index() != 0:
            return
        found = manifest.committed_steps(self.directory)
        steps = [step for step in found if step < before]
        losses = {step: self._held_out_loss(step) for step in steps}
        best = sorted(steps, key=lambda step: losses[step])[:1]
        for step in steps[keep:]:
            if step not in best:
                manifest.delete(self.directory / str(step))

    def _held_out_loss(self, step: int) -> float:
        try:
            path = self.directory / str(step) / "metrics" / "metrics"
            return float(json.loads(path.read_text())[_METRIC])
        except (OSError, ValueError, KeyError):
            return float("inf")


def handler() -> ocp.CompositeCheckpointHandler:
    """Returns orbax's handler for the parts of a checkpoint."""
    return ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(),
        config=ocp.JsonCheckpointHandler(),
        metrics=ocp.JsonCheckpointHandler("metrics"),
    )


def versions() -> dict[str, str]:
    """Returns the versions of the packages that numbers depend on."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: metadata.version(name) for name in names}
