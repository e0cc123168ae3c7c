"""`palette-jax distill RUN`: trains a student that samples in few steps."""

import argparse

import ml_collections

from palette_jax.config import build, build_restorer, checks, flags
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from palette_jax.programs import flag_types
from palette_jax.programs import run as runs
from palette_jax.training import logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the teacher, the student and the processes."""
    parser.add_argument(
        "teacher",
        metavar="RUN",
        help="the --workdir of the run to learn from, or a .safetensors file of it",
    )
    parser.add_argument(
        "--steps",
        type=flag_types.whole(1, high=1000),
        default=4,
        metavar="N",
        help="that the student takes for a picture (default %(default)s)",
    )
    parser.add_argument(
        "--out",
        dest="workdir",
        required=True,
        metavar="DIR",
        help="the new run; the same command resumes it",
    )
    parser.set_defaults(profile=None)
    runs.add_start_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Trains the student; returns 75 to request the same command again."""
    teacher = build_restorer.load_config(args.teacher)
    config = student_config(teacher, args.teacher, args.steps)
    flags.override(config, args.overrides)
    build.check(config)
    logs.set_up_logging()
    return runs.start(config, args)


def student_config(
    teacher: ml_collections.ConfigDict, place: str, steps: int
) -> ml_collections.ConfigDict:
    """Returns the config of a student: the teacher's data and network, a short run.

    It starts with the teacher's weights, so a tenth of the steps at a fifth of the rate
    is enough; the rate falls over the second half.

    Raises:
      UserError: if the teacher is a student itself.
    """
    if teacher.distill.steps:
        raise UserError(
            f"expected a teacher that takes many steps, got the student {place}; use"
            f" its own teacher, {teacher.distill.teacher}"
        )
    config = from_dict(teacher.to_dict()).unlock()
    config.distill.update(
        teacher=str(place), steps=steps, teacher_steps=steps * max(64 // steps, 1)
    )
    config.sample.update(checks.student_sampling(steps))
    config.model.dropout = 0.0
    num_steps = max(teacher.train.num_steps // 10, 1000)
    config.train.num_steps = num_steps
    config.optim.update(
        muon=False,
        learning_rate=teacher.optim.learning_rate / 5,
        warmup_steps=min(teacher.optim.warmup_steps, num_steps // 10),
        decay_steps=num_steps // 2,
    )
    return config.lock()
