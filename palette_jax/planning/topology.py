"""Machines to plan for: peak rates of chips, and virtual devices."""

import dataclasses
import importlib.metadata
import os
import re
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from palette_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one device can do at best, in a second, and the bytes for a program.

    The operations are in bfloat16 unless `name` says otherwise.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float


# Rates: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x, read in
# November 2026. Memory: the limit that the compiler of libtpu 0.0.42 states when a
# program exceeds it; of 32, 16, 95 and 32 GB. A chip of TPU7x is two devices, each with
# half of its rates and 96 of its 192 GB.
_GIB = 2.0**30
TPUS = {
    "v4": Chip("TPU v4", 275e12, 1200e9, 30.75 * _GIB),
    "v5e": Chip("TPU v5e", 197e12, 819e9, 15.75 * _GIB),
    "v5p": Chip("TPU v5p", 459e12, 2765e9, 95e9),
    "v6e": Chip("TPU v6e", 918e12, 1638e9, 31.25 * _GIB),
    "tpu7x": Chip("half of a TPU7x", 1153.5e12, 3690e9, 94.75 * _GIB),
}
_WITH_TWO_CORES = ("v4", "v5p")  # One device of JAX, which libtpu calls "megacore".
_IN_THREE_DIMENSIONS = (*_WITH_TWO_CORES, "tpu7x")

# Dense bfloat16 rates of NVIDIA's data sheets: L4 (24 GB), A100 40 GB, L40S (48 GB),
# A100 80 GB SXM, H200 SXM (141 GB). Of each size the slowest that is common, so that
# an H100 (80 GB, 989e12, 3350e9) does better. A twentieth is left to the driver.
GPUS = {
    24: Chip("GPU of 24 GB, as an L4", 121e12, 300e9, 0.95 * 24e9),
    40: Chip("GPU of 40 GB, as an A100", 312e12, 1555e9, 0.95 * 40e9),
    48: Chip("GPU of 48 GB, as an L40S", 362e12, 864e9, 0.95 * 48e9),
    80: Chip("GPU of 80 GB, as an A100", 312e12, 2039e9, 0.95 * 80e9),
    141: Chip("GPU of 141 GB, as an H200", 989e12, 4800e9, 0.95 * 141e9),
}
_COUNT = "[1-9][0-9]{0,3}"  # Of chips or slices.
_VALID = (
    "cpu, "
    + ", ".join(f"gpu:{size}GB" for size in GPUS)
    + ", v5e:AxB and v6e:AxB (such as v5e:4x4), v4:AxBxC, v5p:AxBxC and tpu7x:AxBxC"
    " (v4:2x2x4), each also as several slices (2*v5e:4x4)"
)


# By the start of what JAX calls them; the longer names first.
_KINDS = {
    "TPU v5 lite": TPUS["v5e"].flops,
    "TPU v6 lite": TPUS["v6e"].flops,
    "TPU v4": TPUS["v4"].flops,
    "TPU v5": TPUS["v5p"].flops,
    "TPU7x": TPUS["tpu7x"].flops,
    "NVIDIA A100": GPUS[80].flops,
    "NVIDIA H100": GPUS[141].flops,
    "NVIDIA H200": GPUS[141].flops,
    "NVIDIA L40S": GPUS[48].flops,
    "NVIDIA L4": GPUS[24].flops,
}


def peak_flops(device_kind: str) -> float | None:
    """Returns the operations a second of a device in bfloat16; None of unknown ones."""
    found = [rate for name, rate in _KINDS.items() if device_kind.startswith(name)]
    return found[0] if found else None


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to plan for.

    Attributes:
      devices: of JAX, to compile for; one of this machine's CPU stands for a GPU.
      compiles: whether there is a compiler for them here; if not, all is estimated.
      effort: of a TPU's compiler. `quick` takes a tenth of the time of `full`, which a
        run has, and schedules worse: more memory, a little more traffic.
    """

    name: str
    chip: Chip
    devices: list[Any]
    compiles: bool
    effort: Literal["quick", "full"] = "quick"

    @property
    def slices(self) -> int:
        """How many slices of TPUs the devices are in; 1 of others."""
        slices, _, _ = _parts(self.name)
        return slices

    @property
    def platform(self) -> str:
        """What JAX calls such devices."""
        _, kind, _ = _parts(self.name)
        return kind if kind in ("cpu", "gpu") else "tpu"

    @property
    def compiler(self) -> str:
        """The compiler's package and its version."""
        package = "libtpu" if self.platform == "tpu" else "jaxlib"
        return f"{package} {importlib.metadata.version(package)}"


def find(name: str, *, effort: Literal["quick", "full"] = "quick") -> Topology:
    """Returns virtual devices by name.

    Raises:
      UserError: if it is unknown, or the package that compiles for it is missing.
    """
    slices, kind, size = _parts(name)
    if name == "cpu":
        return Topology(name, _measured_cpu(), jax.devices("cpu"), True)
    if kind == "gpu":
        chip = {f"{gigabytes}GB": chip for gigabytes, chip in GPUS.items()}.get(size)
        if chip is not None:
            return Topology(name, chip, jax.devices("cpu")[:1], False)
    elif kind in TPUS:
        sides = 3 if kind in _IN_THREE_DIMENSIONS else 2
        if re.fullmatch(_COUNT + f"x{_COUNT}" * (sides - 1), size):
            devices = _tpus(slices, kind, size)
            return Topology(name, TPUS[kind], devices, True, effort)
    raise UserError(f"expected --topology out of {_VALID}, got {name!r}")


def _parts(name: str) -> tuple[int, str, str]:
    """Returns the number of slices, the kind of chip and the size of a slice."""
    several = re.fullmatch(rf"({_COUNT})\*(\w+:\d+(?:x\d+)+)", name)
    slices, one = several.groups() if several else (1, name)
    kind, _, size = one.partition(":")
    return int(slices), kind, size


def _tpus(slices: int, kind: str, size: str) -> list[Any]:
    name = f"{kind}:{size}"
    try:
        import libtpu  # noqa: F401  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise UserError(
            f"expected the package libtpu, whose compiler --topology={name} needs, got"
            " none; install the extra: pip install 'palette-jax[tpu]'"
        ) from error
    # A plain machine has no server to ask what it is, and asking it takes minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {}
    if kind in _WITH_TWO_CORES:
        options["chip_config_name"] = "megacore"
    if set(size.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(
            topologies.get_topology_desc(
                platform="tpu", topology_name=name, num_slices=slices, **options
            ).devices
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"expected a slice that there is, of whole hosts of 2 x 2 chips, got"
            f" {name!r}: {str(error).splitlines()[0]}; take e.g. {kind}:"
            + ("2x2x4" if kind in _IN_THREE_DIMENSIONS else "4x4")
        ) from error


def _measured_cpu() -> Chip:
    matrix = jnp.ones((1024, 1024), jnp.float32)
    flops = 2 * 1024**3 / _seconds(jax.jit(jnp.matmul), matrix, matrix)
    long = jnp.ones(2**24, jnp.float32)
    bandwidth = 2 * long.nbytes / _seconds(jax.jit(lambda a: a + 1), long)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = jax.device_count("cpu")
    name = "CPU, measured just now in float32"
    return Chip(name, flops / count, bandwidth / count, memory / count)


def _seconds(function: Callable[..., jax.Array], *args: jax.Array) -> float:
    function(*args).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(*args).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)
