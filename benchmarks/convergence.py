"""Prints the distance of each solver's few-step result to the result of many steps.

    python -m benchmarks.convergence --checkpoint=runs/multi --pictures=PHOTOS \
        --task=colorize --steps=8,16

A solver of the differential equation has one result for a given noise. The numbers are
the root mean square distance, of 255, to the result of 200 steps of UniPC-3, over the
first pictures of a folder by name, by the exponent of the steps' spacing. The schedule
is `trimmed`, without levels below the trained ones.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from palette_jax import parallel
from palette_jax.config import build, build_restorer
from palette_jax.diffusion import process, sampling
from palette_jax.errors import UserError
from palette_jax.evaluation import folders
from palette_jax.pictures import files, resize
from palette_jax.restoration.batch import image_keys
from palette_jax.tasks import TASKS, UserInputs

_SOLVERS = ("ddim", "dpmpp_2m", "unipc_2", "unipc_3")


def run(argv: list[str]) -> int:
    """Prints the table."""
    args = _arguments().parse_args(argv)
    parallel.use_cpu_cores([args.count])
    checkpoint = args.checkpoint or build_restorer.find_shipped(args.task)
    config, params, _ = build_restorer.load_weights(checkpoint)
    predict = build.make_predictor(config)(params)
    found = folders.pictures(args.pictures).values()
    size = config.data.image_size
    pictures = [
        resize.center_square(files.read(path).pixels, size)
        for path in list(found)[: args.count]
    ]
    hole = np.zeros((size, size, 1), np.uint8)
    hole[size // 4 : -size // 4, size // 4 : -size // 4] = TASKS[args.task].needs_mask
    degraded = [TASKS[args.task].degrade(y, UserInputs(hole)) for y in pictures]
    x = process.to_float(jnp.asarray(np.stack([d.x for d in degraded])))
    mask = process.generation_mask(jnp.asarray(np.stack([d.hole for d in degraded])))
    keys = image_keys(0, jnp.arange(len(pictures), dtype=jnp.uint32))

    def sample(solver: str, num_steps: int, exponent: float) -> Array:
        config.sample.update(
            sampler=solver, num_steps=num_steps, spacing=exponent, schedule="trimmed"
        )
        table = build.make_sampler(config)
        drawn = sampling.sample(keys, predict, x, mask, table, clip=config.sample.clip)
        return jax.block_until_ready(drawn)

    truth = sample("unipc_3", 200, 2.0)
    print(f"{len(pictures)} pictures, {args.task}, on {jax.devices()[0].device_kind}")
    print("steps solver   " + "".join(f"{f'^{e}':>8}" for e in args.exponents))
    for num_steps in args.steps:
        for solver in _SOLVERS:
            errors = [
                127.5
                * float(jnp.sqrt(jnp.mean((sample(solver, num_steps, e) - truth) ** 2)))
                for e in args.exponents
            ]
            row = "".join(f"{error:8.2f}" for error in errors)
            print(f"{num_steps:5} {solver:9}{row}", flush=True)
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Few steps beside many.")
    parser.add_argument("--checkpoint", help="a run or a .safetensors file")
    parser.add_argument("--pictures", required=True, type=pathlib.Path)
    parser.add_argument("--task", default="colorize", choices=TASKS)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=_numbers(int), default=[4, 8, 16, 25])
    parser.add_argument("--exponents", type=_numbers(float), default=[1, 1.5, 2, 3])
    return parser


def _numbers(kind: type) -> Callable[[str], list]:
    return lambda text: [kind(number) for number in text.split(",")]


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
