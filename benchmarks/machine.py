"""The machine of a benchmark: its description and its speed."""

import datetime
import functools
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from palette_jax import parallel


class Timing(NamedTuple):
    """Medians over some runs.

    Attributes:
      seconds: wall time.
      cpu_seconds: of all threads of this process, for comparisons on a shared machine.
    """

    seconds: float
    cpu_seconds: float


def measure(function: Callable[[], Any], count: int) -> Timing:
    """Times a function that has run before; waits for the arrays it returns."""
    return median([run_once(function) for _ in range(count)])


def run_once(function: Callable[[], Any]) -> Timing:
    """Times one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def median(timings: list[Timing]) -> Timing:
    """Returns the medians of several runs."""
    return Timing(*(statistics.median(column) for column in zip(*timings, strict=True)))


def matrix_rate(dtype: DTypeLike, *, size: int = 0, seconds: float = 1.0) -> float:
    """Returns the operations per second of large matrix products on all devices.

    Returns the best rate within some seconds. Measure it in the run whose share you
    need, because clocks and other processes change.
    """
    mesh = parallel.make_mesh()
    size = size or (1024 if jax.default_backend() == "cpu" else 8192)
    spec = PartitionSpec(mesh.axis_names)
    # Of random numbers: devices multiply ones and zeros with less power, and faster.
    matrices = jax.device_put(
        jax.random.normal(jax.random.key(0), (mesh.size, size, size), dtype),
        parallel.batch_sharding(mesh),
    )

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def product(matrices: jax.Array) -> jax.Array:
        return (matrices[0] @ matrices[0])[None]

    jax.block_until_ready(product(matrices))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        best = min(best, run_once(lambda: product(matrices)).seconds)
    return mesh.size * 2 * size**3 / best


def peak_memory() -> int:
    """Returns bytes: of one accelerator, or of this process up to now."""
    stats = jax.local_devices()[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return stats.get("peak_bytes_in_use") or resident


def describe() -> dict[str, Any]:
    """Returns the description of machine, versions and date for a table."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": _cpu_name() if device.platform == "cpu" else device.device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _cpu_name() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
