"""Writes checkpoints in the background and deletes the old ones."""

import contextlib
import json

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from palette_jax.training import manifest

METRIC = "held_out_loss"


class Manager(contextlib.AbstractContextManager["Manager"]):
    """Writes and reads the checkpoints of a run.

    Attributes:
      directory: of the checkpoints.
    """

    def __init__(self, directory: epath.PathLike, keep: int):
        """Removes leftovers of killed saves and deletions; see `open_manager`."""
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

    def save(self, step: int, args: ocp.args.Composite) -> None:
        """Starts a save; first waits for the previous one, and raises its error."""
        self.wait()
        self._prune(step, max(self._keep - 1, 1))
        self._saving = step
        # A damaged checkpoint of the same step may exist.
        self._writer.save(self.directory / str(step), args=args, force=True)

    def wait(self) -> None:
        """Waits until the save is committed; raises its error."""
        self._writer.wait_until_finished()
        if self._saving is not None:
            self._prune(self._saving + 1, self._keep)
            self._saving = None

    def close(self) -> None:
        """Waits for the running save, and ends the threads."""
        self.wait()
        self._writer.close()

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
            return float(json.loads(path.read_text())[METRIC])
        except (OSError, ValueError, KeyError):
            return float("inf")


def handler() -> ocp.CompositeCheckpointHandler:
    """Returns orbax's handler for the parts of a checkpoint."""
    return ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(),
        config=ocp.JsonCheckpointHandler(),
        metrics=ocp.JsonCheckpointHandler("metrics"),
    )
