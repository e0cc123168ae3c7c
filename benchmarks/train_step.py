"""Prints the speed of the training step, and the time to trace and compile it.

python -m benchmarks.train_step --size=tiny
python -m benchmarks.train_step --size small paper    (on an accelerator)
"""

from collections.abc import Callable

import jax

from benchmarks import machine, report, sizes
from palette_jax.__main__ import use_huge_pages


def measure(
    size: str,
    *,
    batch_size: int,
    dtype: str | None,
    count: int,
    remat: bool = False,
    on_compiled: Callable[[report.Row], None] = lambda row: None,
) -> report.Row:
    """Compiles and times the training step of a size.

    Args:
      size: of the network.
      batch_size: 0 for that of the size.
      dtype: None for that of the size.
      count: number of timed steps.
      remat: whether the network is rematerialized.
      on_compiled: called with the times of compiling, before the first step.
    """
    config = sizes.get_config(size, batch_size=batch_size, dtype=dtype, remat=remat)
    step = sizes.training_step(config)
    compiling = {"trace s": step.trace_seconds, "compile s": step.compile_seconds}
    on_compiled({"batch": config.train.batch_size, **compiling})
    jax.block_until_ready(step.run())
    before = machine.matrix_rate(config.model.dtype)
    timing = machine.measure(step.run, count)
    rate = max(before, machine.matrix_rate(config.model.dtype))
    return {
        "size": size,
        "type": config.model.dtype,
        "batch": config.train.batch_size,
        "remat": "yes" if remat else "no",
        "ms a step": 1e3 * timing.seconds,
        "CPU-ms a step": 1e3 * timing.cpu_seconds,
        "images/s": config.train.batch_size / timing.seconds,
        "GFLOP a step": step.flops / 1e9,
        "GFLOP/s": step.flops / timing.seconds / 1e9,
        "products, GFLOP/s": rate / 1e9,
        "share": step.flops / timing.seconds / rate,
        "peak GiB": machine.peak_memory() / 2**30,
        **compiling,
    }


def main() -> None:
    """Prints a row for each size."""
    parser = report.make_parser(__doc__, "train_step")
    report.add_network_flags(parser)
    parser.add_argument("--remat", action="store_true", help="recompute activations")
    args = parser.parse_args()
    sizes.use_all_cores(
        [sizes.get_config(s, batch_size=args.batch_size) for s in args.size]
    )
    rows = [
        measure(
            size,
            batch_size=args.batch_size,
            dtype=args.dtype,
            count=args.count,
            remat=args.remat,
        )
        for size in args.size
    ]
    report.finish(args.json, rows)


if __name__ == "__main__":
    use_huge_pages()
    main()
