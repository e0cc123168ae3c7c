"""Trains a model; the same command resumes it."""

import contextlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from clu import parameter_overview
from etils import epath
from jaxtyping import Array

import palette_jax
from palette_jax import parallel, processes
from palette_jax.config import build, build_data, build_training, identity
from palette_jax.config.values import ConfigError, flatten, from_dict
from palette_jax.pictures import sheets
from palette_jax.planning import steps
from palette_jax.training import checkpoints, logs, pace
from palette_jax.training.agreement import agree
from palette_jax.training.checkpoint_writer import CheckpointWriter, versions
from palette_jax.training.lock import RunLock
from palette_jax.training.state import TrainState
from palette_jax.training.watchdog import Watchdog
from palette_jax.types import Params


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    profile: tuple[int, int] | None = None,
) -> int:
    """Trains to the last step, or until a request to stop.

    Returns:
      0 when the run is complete, 75 when a signal stopped it: the checkpoint is
      written, and the same command resumes.
    """
    stop = processes.StopFlag()
    with contextlib.ExitStack() as held:
        is_host_0 = jax.process_index() == 0
        lock = held.enter_context(RunLock(workdir)) if is_host_0 else None
        watchdog = held.enter_context(Watchdog(workdir))
        tracer = pace.Profile(workdir, profile)
        return _train(config, workdir, stop, lock, watchdog, tracer)


def _train(
    config: ml_collections.ConfigDict,
    workdir: str,
    stop: processes.StopFlag,
    lock: RunLock | None,
    watchdog: Watchdog,
    profile: pace.Profile,
) -> int:
    directory = epath.Path(workdir) / "checkpoints"
    config, about = _identify(config, directory)
    agree(dict(flatten({"config": config.to_dict(), **about})))
    mesh = build.make_mesh(config)
    optimizer = build.make_optimizer(config)

    writer = CheckpointWriter(directory, keep=config.train.keep)
    teacher, teacher_crc32 = build_training.load_teacher(config, mesh)
    about |= _check_teacher(config, directory, teacher_crc32)
    state, shardings = _init_or_restore(config, optimizer, mesh, writer, teacher)
    start_step = int(state.step)

    compiled_step = build_training.compile_step(
        config, mesh, shardings, teacher=teacher
    )
    batches = build_data.train_batches(config, start_step=start_step)
    held_out = _HeldOut(config, mesh, teacher)
    log = logs.TrainingLog(
        workdir,
        start_step=start_step,
        num_steps=config.train.num_steps,
        batch_size=config.train.batch_size,
        log_every=config.train.log_every,
        best_step_seconds=steps.best_seconds(config),
    )
    due = _Due(config)
    if start_step < config.train.num_steps:
        logging.info("compiling the training step; the first one takes a while")
    for step in range(start_step + 1, config.train.num_steps + 1):
        watchdog.pause()
        profile.before(step)
        watchdog.step(log.clock.usual)
        with log.clock.waiting():
            batch = next(batches)
        state, metrics = compiled_step(state, batch)
        log.add(step, metrics)
        last = step == config.train.num_steps
        stop.poll()
        if last or stop.is_set or due.is_due(step):
            log.flush()
            watchdog.pause()
            with log.clock.paused():
                loss = None if stop.is_set else held_out.loss(state.ema_params, stop)
                if loss is not None:
                    log.scalars(step, {"held_out_loss": loss})
                if lock:
                    lock.check()
                if is_sound(state, loss):
                    saved = config.to_dict()
                    writer.save(state, saved, loss, about=about)
                else:
                    logging.warning("step %d is not saved: it is not finite", step)
        if last or (step % config.train.preview_every == 0 and not stop.is_set):
            log.flush()
            watchdog.pause()
            with log.clock.paused():
                log.preview(step, held_out.preview(state.ema_params))
        if stop.is_set:
            break
    log.flush()
    watchdog.pause()
    profile.stop()
    with log.clock.paused():
        writer.close()
    newest = max(checkpoints.committed_steps(directory), default=0)
    logging.info("the last checkpoint is step %d in %s", newest, directory)
    return processes.EXIT_STOPPED if int(state.step) < config.train.num_steps else 0


def _check_teacher(
    config: ml_collections.ConfigDict, directory: epath.Path, crc32: int
) -> dict[str, int]:
    """Returns the teacher's hash, for the checkpoint."""
    if not config.distill.steps:
        return {}
    if checkpoints.load_about(directory).get("teacher_crc32", crc32) != crc32:
        raise ConfigError(
            "expected the teacher that the student was started with, got other weights"
            f" in {config.distill.teacher}; use another --out, or the old weights"
        )
    return {"teacher_crc32": crc32}


class _Due:
    """Schedules checkpoints by steps and by the clock."""

    def __init__(self, config: ml_collections.ConfigDict):
        self._train = config.train
        self._last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns whether to save; looks at the clock at the steps that are logged."""
        due = step % self._train.checkpoint_every == 0
        is_logged = step % self._train.log_every == 0
        if not due and self._train.checkpoint_minutes and is_logged:
            minutes = parallel.from_host_0((time.monotonic() - self._last) / 60)
            due = minutes >= self._train.checkpoint_minutes
        if due:
            self._last = time.monotonic()
        return due


class _HeldOut:
    """The held-out pictures: their loss and previews with the averaged weights."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        mesh: jax.sharding.Mesh,
        teacher: tuple[Params, ...],
    ):
        self._teacher = teacher
        self._batches = list(build_data.held_out_batches(config))
        self._mesh = mesh
        self._restore = build.make_restore(config, mesh)
        self._num_previews = config.train.num_previews
        self._loss = build_training.make_held_out_loss(config, mesh)

    def loss(self, params: Params, stop: processes.StopFlag) -> float | None:
        """Returns the mean loss with fixed noise; None on a request to stop."""
        total, count = 0.0, 0
        for batch in self._batches:
            if stop.poll():
                return None
            arrays = {name: batch[name] for name in ("x", "y", "hole", "id", "valid")}
            arrays = parallel.to_global(self._mesh, arrays)
            losses, valid = self._loss(params, arrays, *self._teacher)
            total += float(losses)
            count += int(valid)
        return total / max(count, 1)

    def preview(self, params: Params) -> np.ndarray:
        """Returns a contact sheet: degraded, restored, original."""
        batch = self._batches[0]
        restored = parallel.gather(self._restore(params, batch))
        batch = parallel.gather_batch(batch)
        shown = min(self._num_previews, int(batch["valid"].sum()))
        return sheets.contact_sheet(sheets.rows(batch, restored[None])[:shown])


def is_sound(state: TrainState, held_out_loss: float | None) -> bool:
    """Returns whether training can resume from a state; equal on all hosts.

    A diverged state stays diverged with any learning rate, so it must not take the
    place of the one before.
    """
    finite = all_finite((state.params, state.ema_params, state.opt_state))
    loss_is_finite = held_out_loss is None or np.isfinite(held_out_loss)
    return bool(finite and loss_is_finite and state.bad_steps == 0)


@jax.jit
def all_finite(tree: Any) -> Array:
    """Returns whether every number of a tree is finite."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()


def _init_or_restore(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    writer: CheckpointWriter,
    teacher: tuple[Params, ...],
) -> tuple[TrainState, Any]:
    """Returns the state, from the newest checkpoint or a new one, and its shardings."""
    abstract, shardings = build_training.abstract_state(config, optimizer, mesh)
    state = checkpoints.restore(writer.directory, abstract)
    if state is not None:
        logging.info("resuming from step %d in %s", state.step, writer.directory)
        return state, shardings
    state = build_training.init_state(config, optimizer, shardings, teacher=teacher)
    logging.info(
        "%s parameters", f"{parameter_overview.count_parameters(state.params):,}"
    )
    return state, shardings


def _identify(
    config: ml_collections.ConfigDict, directory: epath.Path
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """Returns the config to train with, and the identity of the run."""
    config = from_dict(config.to_dict())
    before = checkpoints.load_about(directory)
    if before:
        old = from_dict(before["config"])
        config.data.held_out_below = old.data.held_out_below
        changed = identity.check_resume(old, config, directory)
        if checkpoints.committed_steps(directory) == [0]:
            logging.info("training starts from the weights that were imported")
        elif changed:
            logging.warning("changed since the run was started: %s", "; ".join(changed))
    if not config.data.held_out_below:
        config.data.held_out_below = build_data.held_out_below(config)
    about = {
        "data": build_data.identity(config),
        "code": palette_jax.__version__,
        "versions": versions(),
        "hosts": jax.process_count(),
        "devices": jax.device_count(),
    }
    if before.get("data"):
        _tell_changed_pictures(before["data"], about["data"])
    return config, about


def _tell_changed_pictures(before: dict[str, Any], now: dict[str, Any]) -> None:
    for part in ("train", "held_out"):
        if before[part] != now[part]:
            logging.warning(
                "the %s pictures changed since the last checkpoint: expected %s, got"
                " %s; pictures that were held out stay so",
                part,
                before[part],
                now[part],
            )
