"""Prints the speed of restoration, by sampler and number of steps.

python -m benchmarks.sample --size=tiny --samplers ddpm:50 ddim:25 dpmpp_2m:16
python -m benchmarks.sample --size=paper --samplers ddpm:1000 dpmpp_2m:25
"""

from benchmarks import machine, report, sizes
from palette_jax import parallel
from palette_jax.__main__ import use_huge_pages
from palette_jax.config import build


def measure(
    size: str, sampler: str, *, batch_size: int, dtype: str | None, count: int
) -> report.Row:
    """Restores a batch, from bytes on the host to bytes on the host."""
    config = sizes.get_config(size, batch_size=batch_size, dtype=dtype)
    name, _, num_steps = sampler.partition(":")
    config.sample.sampler, config.sample.num_steps = name, int(num_steps)
    build.check(config)
    mesh = parallel.make_mesh()
    params, batch = sizes.draw_params(config, mesh), sizes.draw_batch(config)
    restore = build.make_restore(config, mesh)
    first = machine.run_once(lambda: restore(params, batch))
    before = machine.matrix_rate(config.model.dtype)
    timing = machine.measure(lambda: restore(params, batch), count)
    rate = max(before, machine.matrix_rate(config.model.dtype))
    flops = sizes.forward_flops(config) * config.sample.num_steps
    return {
        "size": size,
        "type": config.model.dtype,
        "sampler": name,
        "steps": config.sample.num_steps,
        "batch": config.train.batch_size,
        "s a batch": timing.seconds,
        "ms a step": 1e3 * timing.seconds / config.sample.num_steps,
        "CPU-ms a step": 1e3 * timing.cpu_seconds / config.sample.num_steps,
        "images/s": config.train.batch_size / timing.seconds,
        "products, GFLOP/s": rate / 1e9,
        "share": flops / timing.seconds / rate,
        "peak GiB": machine.peak_memory() / 2**30,
        "trace, compile s": first.seconds - timing.seconds,
    }


def main() -> None:
    """Prints a row for each size and sampler."""
    parser = report.make_parser(__doc__, "sample")
    report.add_network_flags(parser)
    parser.add_argument(
        "--samplers", nargs="+", default=["ddpm:50", "ddim:25", "dpmpp_2m:16"]
    )
    parser.set_defaults(count=3)
    args = parser.parse_args()
    sizes.use_all_cores(
        [sizes.get_config(s, batch_size=args.batch_size) for s in args.size]
    )
    rows = [
        measure(
            size,
            sampler,
            batch_size=args.batch_size,
            dtype=args.dtype,
            count=args.count,
        )
        for size in args.size
        for sampler in args.samplers
    ]
    report.finish(args.json, rows)


if __name__ == "__main__":
    use_huge_pages()
    main()
