"""`palette-jax train|sample|evaluate|plan`: starts a program from a config."""

import argparse
import functools
import importlib.util
import os

import jax
import ml_collections
from etils import epath

from palette_jax import parallel, processes
from palette_jax.config import build, flags
from palette_jax.config.values import ConfigError, from_dict
from palette_jax.errors import UserError
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.programs import flag_types
from palette_jax.training import checkpoints, logs

MODES = ("train", "sample", "evaluate", "plan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of all four; `--config.KEY=VALUE` is split off earlier."""
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder of the run, a local path or gs://; planning needs none",
    )
    parser.add_argument(
        "--config",
        metavar="NAME|FILE",
        help=f"of train and plan: one of {', '.join(flags.names())}, or a file, each"
        " with a variant, as in uncrop:tiny; --config.KEY=VALUE changes a key",
    )
    parser.add_argument(
        "--topology",
        default="",
        metavar="MACHINE",
        help="of plan: the machine, such as v5e:4x4, 2*v5e:4x4, cpu or gpu:80GB",
    )
    parser.add_argument(
        "--effort",
        choices=("quick", "full"),
        default="quick",
        help="of plan: effort of the compiler for a TPU; a run gets full, which takes"
        " ten times as long or more",
    )
    parser.add_argument(
        *("--search-batch", "--search_batch"),
        action="store_true",
        help="of plan: look for the largest training batch that fits",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="of evaluate: crop and inputs of networks, as --config.eval.protocol",
    )
    parser.add_argument(
        "--profile",
        type=_steps,
        metavar="START:STOP",
        help="of train: trace these steps (the last one not) into DIR/profile, which"
        " TensorBoard and XProf open",
    )
    add_start_flags(parser)


def add_start_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a dry run and of several processes."""
    parser.add_argument(
        *("--dry-run", "--dry_run"),
        action="store_true",
        help="check everything, print the resolved config, and stop",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of the first of several processes, if JAX does not find it",
    )
    parser.add_argument(
        *("--num-processes", "--num_processes"),
        type=flag_types.whole(1),
        metavar="N",
        help="number of processes",
    )
    parser.add_argument(
        *("--process-id", "--process_id"),
        type=flag_types.whole(0),
        metavar="I",
        help="number of this process, from 0",
    )
    parser.add_argument(
        *("--join-timeout", "--join_timeout"),
        type=flag_types.whole(1, high=604_800),  # A week.
        default=1800,
        metavar="SECONDS",
        help="how long to wait for the other processes (default %(default)s)",
    )


def _steps(text: str) -> tuple[int, int]:
    try:
        start, stop = map(flag_types.whole(1), text.split(":"))
        if start < stop:
            return start, stop
    except (ValueError, argparse.ArgumentTypeError):
        pass
    raise argparse.ArgumentTypeError(
        f"expected two steps such as 100:110, got {text[:40]!r}"
    )


def run(args: argparse.Namespace) -> int:
    """Checks the config and runs the program; returns 75 to request a restart."""
    config = _config(args)
    build.check(config, trains=_trains(args))
    logs.set_up_logging()
    if args.command == "plan":
        return _plan(config, args)
    return start(config, args)


def start(config: ml_collections.ConfigDict, args: argparse.Namespace) -> int:
    """Joins the other processes and runs the program of `args.command`."""
    check_training_packages()
    processes.join(
        coordinator=args.coordinator,
        num_processes=args.num_processes,
        process_id=args.process_id,
        timeout=args.join_timeout,
    )
    if not processes.are_joined():
        use_cpu_cores(config)
    with processes.together():
        return _run(config, args)


def _config(args: argparse.Namespace) -> ml_collections.ConfigDict:
    """Returns the config of `--config`, or that of the run, with the overrides."""
    if args.workdir is None and args.command != "plan":
        raise ConfigError("expected --workdir=DIR, the folder of the run, got none")
    if args.command in ("train", "plan"):
        if args.config is None:
            raise ConfigError(
                "expected --config=NAME or --config=FILE.py, got none; write e.g."
                " --config=uncrop:tiny"
            )
        config = flags.load(args.config)
    else:
        if args.config is not None:
            raise ConfigError(
                f"expected no --config with {args.command}, which uses the config of"
                f" the checkpoint, got {args.config}; change keys with"
                " --config.KEY=VALUE"
            )
        directory = epath.Path(args.workdir).expanduser() / "checkpoints"
        config = from_dict(checkpoints.load_config(directory))
    flags.override(config, args.overrides)
    if args.protocol:
        if args.command != "evaluate":
            raise UserError(
                f"expected no --protocol with {args.command}, which measures nothing;"
                " to store it with a run, set --config.eval.protocol"
            )
        config.eval.protocol = args.protocol
    return config


def check_training_packages() -> None:
    """Raises `UserError` if a package for training is missing."""
    missing = [
        name
        for name in ("tensorflow", "tensorflow_datasets", "clu", "tensorboard")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(
            f"expected the packages for training, got no {', '.join(missing)}; pip"
            " install 'palette-jax[train]'"
        )


def use_cpu_cores(config: ml_collections.ConfigDict) -> None:
    """Makes the CPU cores devices, as many as divide the batches."""
    parallel.use_cpu_cores(
        [config.train.batch_size // config.optim.accumulate, config.eval.batch_size]
    )


def _plan(config: ml_collections.ConfigDict, args: argparse.Namespace) -> int:
    """Plans for devices that need not exist; uses only the CPU."""
    jax.config.update("jax_platforms", "cpu")
    use_cpu_cores(config)
    from palette_jax.planning import plan

    return plan.plan(
        config, args.topology, search_batch=args.search_batch, effort=args.effort
    )


def _trains(args: argparse.Namespace) -> bool:
    return args.command not in ("sample", "evaluate")


def _run(config: ml_collections.ConfigDict, args: argparse.Namespace) -> int:
    share = config.parallel.fsdp * (config.parallel.slices or 1)
    if args.command in ("sample", "evaluate") and jax.device_count() % share:
        # Trained on another machine: replicated parameters fit any number of devices.
        config.parallel.fsdp, config.parallel.slices = 1, 0
    build.check(config, num_devices=jax.device_count(), trains=_trains(args))
    workdir = str(epath.Path(args.workdir).expanduser())
    on_pod = jax.process_count() > 1 or jax.default_backend() == "tpu"
    parallel.cache_compilations(workdir=workdir if on_pod else None)

    # Before TensorFlow is imported, to silence its log. Only the programs import it, so
    # that a wrong config does not wait for the import.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = args.tensorflow_log_level or "2"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # For gs://: by default each open picture has a buffer of 64 MB.
    os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", "1")
    from palette_jax.evaluation import of_run
    from palette_jax.programs import describe, sample, train

    if args.dry_run:
        return describe.describe(config, trains=_trains(args))
    programs = {
        "train": functools.partial(train.train, profile=args.profile),
        "distill": train.train,
        "sample": sample.sample,
        "evaluate": of_run.evaluate,
    }
    try:
        return programs[args.command](config, workdir)
    except processes.Stopped:
        return processes.EXIT_STOPPED
