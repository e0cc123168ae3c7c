"""The command line: a config, a working directory, and what to do with them.

python main.py --config=configs/uncrop.py:tiny --workdir=runs/tiny
python main.py --mode=evaluate --workdir=runs/tiny
"""

import os
import sys

# Before TensorFlow is imported: nothing that is not about the run.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
import ml_collections
from absl import app, flags

from palette_jax import parallel, processes
from palette_jax.config import build
from palette_jax.config import flags as program_flags
from palette_jax.errors import UserError
from palette_jax.training import logs


def main(argv: list[str]) -> int:
    """Checks the config and hands over to the program."""
    del argv
    logs.set_up_logging()
    config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
    build.check(config)
    if flags.FLAGS.mode == "plan":
        return plan_run(config)
    processes.join(
        coordinator=flags.FLAGS.coordinator,
        num_processes=flags.FLAGS.num_processes,
        process_id=flags.FLAGS.process_id,
        timeout=flags.FLAGS.join_timeout,
    )
    if not processes.are_joined():
        parallel.use_cpu_cores(
            [config.train.batch_size // config.optim.accumulate, config.eval.batch_size]
        )
    with processes.together():
        return run(config, workdir)


def plan_run(config: ml_collections.ConfigDict) -> int:
    """Plans for devices that need not exist; touches none but the CPU."""
    jax.config.update("jax_platforms", "cpu")
    parallel.use_cpu_cores(
        [config.train.batch_size // config.optim.accumulate, config.eval.batch_size]
    )
    from palette_jax.programs import plan

    topology, search_batch = flags.FLAGS.topology, flags.FLAGS.search_batch
    return plan.plan(config, topology, search_batch=search_batch)


def run(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Runs the program that the flags name; 75 means that it is to be run again."""
    build.check(config, num_devices=jax.device_count())
    parallel.cache_compilations()

    # The programs import TensorFlow: seconds that a wrong config should not cost.
    from palette_jax.programs import describe, evaluate, sample, train

    if flags.FLAGS.dry_run:
        return describe.describe(config)
    programs = {
        "train": train.train,
        "sample": sample.sample,
        "evaluate": evaluate.evaluate,
    }
    try:
        return programs[flags.FLAGS.mode](config, workdir)
    except processes.Stopped:
        return processes.EXIT_STOPPED


if __name__ == "__main__":
    program_flags.define()
    try:
        app.run(main, flags_parser=program_flags.parse)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
