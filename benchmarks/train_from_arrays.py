"""Trains for some minutes on pictures in one file, without TensorFlow.

    python -m benchmarks.pack_pictures PHOTOS --out=pictures.zip
    python -m benchmarks.train_from_arrays --minutes=8 --pictures=pictures.zip \
        --config=multitask:small --config.data.image_size=64 --out=trained
    palette-jax import trained/weights-00001-of-00004.safetensors --out=runs/trained
    python -m benchmarks.train_from_arrays --minutes=3 --pictures=pictures.zip \
        --teacher=trained/weights-00001-of-00004.safetensors --out=student

The last command trains a student of four steps, or of --steps, as `palette-jax distill`
does.

This is for a machine that is available only for minutes. Workers make the batches in
numpy and Pillow; the step, the average and the sampler are the project's own. The first
eighth of the time, at most a minute, measures the pace. It determines the number of
steps, and the learning rate falls to 0 over the last 30% of them. These numbers
override `train.num_steps` and `optim.decay_steps`.

Every eighth of the time, and at the end, the program writes the averaged weights in
bfloat16, in parts below 16 MiB, each with its config; `sheet.png`, restored held-out
pictures; `curve.html`; and `log.json`. Ctrl-C and SIGTERM write them too.
"""

import argparse
import json
import math
import os
import sys
import time
from concurrent import futures
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from benchmarks import array_data, machine
from benchmarks.weight_parts import export_parts
from palette_jax import atomic, parallel, processes
from palette_jax.__main__ import use_huge_pages
from palette_jax.config import build, build_restorer, build_training, checks, flags
from palette_jax.config.values import task_names
from palette_jax.errors import UserError
from palette_jax.evaluation import plots
from palette_jax.pictures import sheets
from palette_jax.programs import distill, flag_types
from palette_jax.training import logs
from palette_jax.training.optimizer import make_optimizer
from palette_jax.training.step import StepFn

_PART_BYTES = 2**24 - 2**16
_DECAY = 0.3  # Of the steps, over which the learning rate falls.


class Plan(NamedTuple):
    """The length of a run, and the start of its decay."""

    num_steps: int
    decay_steps: int

    def share(self, step: int) -> float:
        """Returns the factor of the learning rate at a step, counted from 1."""
        return min(1.0, (self.num_steps + 1 - step) / self.decay_steps)


def make_plan(step: int, steps_per_second: float, seconds: float) -> Plan:
    """Returns the plan of a run after `step` steps, with some seconds left.

    Args:
      step: the last finished step.
      steps_per_second: the pace of the remaining steps.
      seconds: for the remaining steps.
    """
    num_steps = step + max(int(steps_per_second * seconds), 1)
    return Plan(num_steps, min(math.ceil(_DECAY * num_steps), num_steps - step))


class Run:
    """A run: its state, its curve, and its files."""

    def __init__(self, config: ml_collections.ConfigDict, pictures: str, out: str):
        """Reads the pictures' names and compiles nothing yet."""
        self.config = config
        self.recipe = array_data.make_recipe(config, pictures)
        self.out = epath.Path(out)
        self.maker = array_data.Maker(self.recipe)
        self.mesh = build.make_mesh(config)
        optimizer = build.make_optimizer(config)
        _, self._shardings = build_training.abstract_state(config, optimizer, self.mesh)
        self._teacher, _ = build_training.load_teacher(config, self.mesh)
        self.state = build_training.init_state(
            config, optimizer, self._shardings, teacher=self._teacher
        )
        self._loss = build_training.make_held_out_loss(config, self.mesh)
        self._restore = build.make_restore(config, self.mesh)
        size = config.eval.batch_size
        starts = range(0, len(self.maker.held_out), size)
        self._held_out = [self.maker.held_out_batch(size, start) for start in starts]
        self.points: list[dict[str, float]] = []
        self.files: list[epath.Path] = []
        self.about: dict[str, Any] = {"pictures": pictures}

    def compile(self, batch: array_data.Batch) -> Any:
        """Returns the step, `step(state, batch, learning_rate)`, for arrays."""

        def step(
            state: Any, batch: Any, learning_rate: Any = 0.0, *teacher: Any
        ) -> Any:
            return _make_step(self.config, learning_rate)(state, batch, *teacher)

        start = time.monotonic()
        jitted = parallel.jit_step(step, self.mesh, self._shardings)
        arrays = parallel.to_global(self.mesh, batch)
        lowered = jitted.lower(self.state, arrays, np.float32(0), *self._teacher)
        compiled = lowered.compile()
        self.about["compile_seconds"] = time.monotonic() - start
        return lambda state, batch, rate: compiled(state, batch, rate, *self._teacher)

    def keep(self, step: int, loss: float | None, seconds: float) -> None:
        """Writes the present weights, sheet and curve."""
        total, count = 0.0, 0
        for batch in self._held_out:
            losses, valid = self._loss(
                self.state.ema_params,
                parallel.to_global(self.mesh, batch),
                *self._teacher,
            )
            total, count = total + float(losses), count + int(valid)
        point = {"step": step, "seconds": seconds, "held_out_loss": total / count}
        if loss is not None:
            point["loss"] = loss
        self.points.append(point)
        self._write_weights()
        sheets.save_png(self.out / "sheet.png", self._sheet())
        lines = [
            plots.Line(
                name, [(int(p["step"]), p[name]) for p in self.points if name in p]
            )
            for name in ("loss", "held_out_loss")
        ]
        chart = plots.chart("Loss", lines, x="step", log_y=True)
        head = '<!doctype html><meta charset="utf-8"><title>Loss</title>'
        atomic.write_text(self.out / "curve.html", head + chart)
        log = {**self.about, "machine": machine.describe(), "points": self.points}
        atomic.write_text(self.out / "log.json", json.dumps(log, indent=1))
        loss_text = f"loss {loss:#.4g}  " if loss is not None else ""
        logging.info(
            "step %d  %sheld-out %#.4g  written to %s",
            *(step, loss_text, point["held_out_loss"], self.out),
        )

    def _write_weights(self) -> None:
        values = self.config.to_dict()
        values["data"]["source"] = "folder"
        self.files = export_parts(
            self.state.ema_params,
            self.out / "weights",
            config=values,
            max_bytes=_PART_BYTES,
        )

    def _sheet(self) -> np.ndarray:
        batch = self._held_out[0]
        restored = self._restore(self.state.ema_params, batch)
        tasks = len(task_names(self.config))
        shown = min(
            max(self.config.train.num_previews, tasks), int(batch["valid"].sum())
        )
        return sheets.contact_sheet(sheets.rows(batch, restored[None])[:shown])


def _make_step(config: ml_collections.ConfigDict, learning_rate: Any) -> StepFn:
    optim = config.optim
    optimizer = make_optimizer(
        learning_rate,
        optim.warmup_steps,
        b1=optim.b1,
        b2=optim.b2,
        clip_norm=optim.clip_norm or None,
        muon=optim.muon,
    )
    return build_training.make_step(config, optimizer=optimizer)


def train(run: Run, feed: array_data.Feed, seconds: float, started: float) -> bool:
    """Trains until the time is over; returns whether it finished.

    Args:
      run: to train.
      feed: its batches.
      seconds: from `started` to the end, including the last files.
      started: by `time.monotonic`.

    Raises:
      DivergedError: after ten steps in a row whose loss is not finite.
    """
    config, stop = run.config, processes.StopFlag()
    with futures.ThreadPoolExecutor(1) as thread:
        # Compiles the sampler in parallel with the step: saves a minute on a GPU.
        kept = thread.submit(run.keep, 0, None, time.monotonic() - started)
        compiled = run.compile(next(feed))
        kept.result()
    every = seconds / 8
    pause = min(every, 60.0)
    since, since_step = time.monotonic(), 0
    cost, plan, step, losses, last = 0.0, None, 0, [], None
    while plan is None or step < plan.num_steps:
        step += 1
        rate = config.optim.learning_rate * (plan.share(step) if plan else 1.0)
        arrays = parallel.to_global(run.mesh, next(feed))
        run.state, metrics = compiled(run.state, arrays, np.float32(rate))
        # The metrics of a step are read while the next one runs.
        if last is not None:
            losses.append(_read(step - 1, last))
        last = metrics
        now = time.monotonic()
        stop.poll()
        if stop.is_set or now - started > seconds - 1.5 * cost:
            break
        if now - since < pause:
            continue
        jax.block_until_ready(run.state)
        pace = (step - since_step) / (time.monotonic() - since)
        cost = _keep(run, step, losses, started)
        since, since_step, pause = time.monotonic(), step, every
        if plan is None or plan.share(step + 1) == 1.0:  # The plan may still change.
            left = seconds - (since - started) - 1.5 * cost
            plan = make_plan(step, pace * every / (every + cost), left)
            _tell(run, plan, pace)
    if last is not None:
        losses.append(_read(step, last))
    run.about["steps"] = step
    run.about["pictures_shown"] = step * config.train.batch_size
    _keep(run, step, losses, started)
    return not stop.is_set


def _tell(run: Run, plan: Plan, pace: float) -> None:
    pictures = pace * run.config.train.batch_size
    with run.config.unlocked():
        run.config.train.num_steps = plan.num_steps
        run.config.optim.decay_steps = plan.decay_steps
    run.about |= {"pictures_per_second": pictures, **plan._asdict()}
    logging.info(
        "%.1f pictures/s: %d steps, the rate falls over the last %d",
        *(pictures, plan.num_steps, plan.decay_steps),
    )


def _keep(run: Run, step: int, losses: list[float], started: float) -> float:
    """Writes everything, with the mean of the losses, and clears the losses."""
    start = time.monotonic()
    good = [loss for loss in losses if np.isfinite(loss)]
    losses.clear()
    run.keep(step, float(np.mean(good)) if good else None, start - started)
    return time.monotonic() - start


def _read(step: int, metrics: Any) -> float:
    bad_steps = int(metrics.bad_steps)
    if bad_steps >= logs.MAX_BAD_STEPS:
        raise logs.DivergedError(
            f"steps {step - bad_steps + 1} to {step} all had a loss that is not finite;"
            " lower --config.optim.learning_rate, or set --config.optim.clip_norm=1.0"
        )
    return float(metrics.loss)


def _config(args: argparse.Namespace) -> ml_collections.ConfigDict:
    if not args.teacher:
        if args.steps is not None:
            raise UserError(
                f"expected --teacher with --steps={args.steps}, a flag for students,"
                " got none; leave --steps out, or use --teacher in place of --config"
            )
        return flags.load(args.config)
    teacher = build_restorer.load_config(args.teacher)
    steps = 4 if args.steps is None else args.steps
    return distill.student_config(teacher, args.teacher, steps)


def main(argv: list[str]) -> int:
    """Trains; returns 0, or 75 after a signal."""
    started = time.monotonic()
    argv, overrides = flags.split(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True, help="in all")
    parser.add_argument("--pictures", required=True, metavar="FILE")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", help="such as multitask:small")
    what.add_argument("--teacher", metavar="FILE", help="weights, to train a student")
    parser.add_argument(
        "--steps",
        type=flag_types.whole(1, high=1000),
        metavar="N",
        help="of the student (4)",
    )
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="that make batches"
    )
    args = parser.parse_args(argv)
    config = _config(args)
    flags.override(config, overrides)
    if args.minutes <= 0 or args.workers < 1:
        got = f"{args.minutes:g} and {args.workers}"
        raise UserError(f"expected --minutes and --workers above 0, got {got}")
    recipe = array_data.make_recipe(config, args.pictures)
    array_data.split(recipe)
    checked = config.copy_and_resolve_references()
    checked.data.source = "sample_photos"  # The checks need no other pictures.
    build.check(checked)
    parallel.use_cpu_cores([config.train.batch_size, config.eval.batch_size])
    parallel.cache_compilations()
    checks.check_batch(config, jax.device_count())
    logs.set_up_logging()
    with array_data.Feed(recipe, workers=args.workers) as feed:
        run = Run(config, args.pictures, args.out)
        finished = train(run, feed, 60 * args.minutes, started)
    print("{steps} steps, {pictures_shown:,} pictures shown".format(**run.about))
    print(f"next: palette-jax import {run.files[0]} --out=RUN")
    return 0 if finished else processes.EXIT_STOPPED


if __name__ == "__main__":
    use_huge_pages()
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
