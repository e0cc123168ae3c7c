"""`palette-jax verify`: repeats the last steps of a run, or a result, bit by bit."""

import argparse
import sys

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax.config import build, build_training
from palette_jax.config.build_restorer import SHIPPED, load_restorer
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from palette_jax.programs.run import use_cpu_cores
from palette_jax.restoration import verification
from palette_jax.training import checkpoints
from palette_jax.training.checkpoint_writer import versions
from palette_jax.training.state import TrainState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments: a run, or a result and its photo."""
    parser.add_argument(
        "source",
        metavar="RUN|RESULT",
        help="the --workdir of a run; or a file that `palette-jax restore` or the page"
        " wrote",
    )
    parser.add_argument(
        "photo", nargs="?", metavar="PHOTO", help="the input of the result"
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR|FILE", help="the weights of the result"
    )
    parser.add_argument(
        "--mask", metavar="FILE", help="of a result without a stored hole"
    )
    parser.add_argument("--hints", metavar="FILE", help="colour hints of the result")


def run(args: argparse.Namespace) -> int:
    """Prints whether the bits are equal; returns 1 if a bit differs."""
    if args.photo is not None:
        return _verify_result(args)
    if epath.Path(args.source).is_file():
        raise UserError(
            f"expected a photo beside a result, got {args.source} alone; write"
            " `palette-jax verify RESULT PHOTO`"
        )
    return _verify_run(args.source)


def _verify_result(args: argparse.Namespace) -> int:
    stored = verification.load(args.source, args.photo, mask=args.mask)
    if not stored.is_same_photo:
        print(f"{args.photo} is another file than the result was made from")
    known = stored.compare_known()
    print(known.text)
    for flag in ("checkpoint", "hints"):
        if (name := stored.about.get(flag)) and not getattr(args, flag):
            print(
                f"not regenerated: expected --{flag}, because the result was made with"
                f" one named {name}; add --{flag}=PATH",
                file=sys.stderr,
            )
            return 1
    # A file name alone: a result of a stranger does not choose other files.
    weights = stored.about.get("weights")
    shipped = SHIPPED / epath.Path(str(weights)).name
    if not args.checkpoint and not shipped.is_file():
        print(
            f"not regenerated: this package has no weights {weights!r}; add"
            " --checkpoint=PATH",
            file=sys.stderr,
        )
        return 1
    restorer = load_restorer(args.checkpoint or shipped)
    repeated = stored.compare_repeated(restorer, args.hints)
    print(repeated.text)
    return 0 if known.is_equal and repeated.is_equal else 1


def _verify_run(workdir: str) -> int:
    directory = epath.Path(workdir).expanduser() / "checkpoints"
    config = from_dict(checkpoints.load_config(directory))
    about = checkpoints.load_about(directory)
    use_cpu_cores(config)
    build.check(config, num_devices=jax.device_count())
    _check_machine(about)
    steps = sorted(checkpoints.committed_steps(directory))
    start, stop = (0, *steps)[-2:]
    print(f"repeating steps {start + 1} to {stop} of {workdir}", flush=True)
    expected, got = _repeat(config, directory, start, stop)
    wrong = _different(expected, got)
    if wrong:
        shown = "; ".join(wrong[:5])
        print(f"{len(wrong)} arrays of step {stop} differ from its checkpoint: {shown}")
        return 1
    print(f"step {stop} has the same bits as its checkpoint")
    return 0


def _check_machine(about: dict) -> None:
    """Raises if the machine differs, so that the bits cannot be equal."""
    now = {"devices": jax.device_count(), "versions": versions()}
    for name, value in now.items():
        if about.get(name, value) != value:
            raise UserError(
                f"expected the {name} that the run was trained with, {about[name]}, got"
                f" {value}: sums come out in another order; verify it where it was"
                " trained"
            )


def _repeat(
    config: ml_collections.ConfigDict, directory: epath.Path, start: int, stop: int
) -> tuple[TrainState, TrainState]:
    """Returns the state of a checkpoint, and the one that its last steps lead to."""
    # TensorFlow, which makes the batches, takes seconds to import.
    from palette_jax.config import build_data

    mesh = build.make_mesh(config)
    optimizer = build.make_optimizer(config)
    teacher, _ = build_training.load_teacher(config, mesh)
    abstract, shardings = build_training.abstract_state(config, optimizer, mesh)
    expected = checkpoints.restore_step(directory, stop, abstract)
    if start:
        state = checkpoints.restore_step(directory, start, abstract)
    else:
        state = build_training.init_state(config, optimizer, shardings, teacher=teacher)
    step = build_training.compile_step(config, mesh, shardings, teacher=teacher)
    batches = build_data.train_batches(config, start_step=start)
    for _ in range(start, stop):
        state, _ = step(state, next(batches))
    return expected, state


def _different(expected: TrainState, got: TrainState) -> list[str]:
    """Returns the path and the difference of each array that differs."""
    wrong = []
    for (path, a), (_, b) in zip(
        jax.tree.leaves_with_path(expected), jax.tree.leaves_with_path(got), strict=True
    ):
        a, b = np.asarray(a), np.asarray(b)
        if a.tobytes() != b.tobytes():
            by = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            wrong.append(f"{jax.tree_util.keystr(path)} by up to {by:.3g}")
    return wrong
