"""The mesh of devices, and the shardings of batches and parameters."""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from palette_jax.errors import UserError
from palette_jax.types import Params

PMAP_AXIS = "devices"
_AXES = ("data", "fsdp")

MIN_SHARDED = 2**16  # Elements of a leaf that `fsdp` splits.

Step = Callable[[Any, Any], tuple[Any, Any]]
"""`step(state, batch) -> state, metrics`."""


def make_mesh(
    *, fsdp: int = 1, slices: int = 0, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Arranges devices as data x fsdp; one device is a mesh of one.

    Args:
      fsdp: number of devices that share one copy of the parameters, all in one slice.
        So each step sends only one gradient of each parameter between slices, over the
        slower network.
      slices: of TPUs; 0: the number of the devices.
      devices: the default is all devices of all hosts.

    Raises:
      UserError: if the devices have another number of slices, or `fsdp` does not divide
        the devices of a slice.
    """
    # Ordered by slice and host, unlike the ids of a TPU slice: so the rows of a host's
    # batch stay together, and an image has the same position on any machine.
    devices = sorted(
        devices or jax.devices(), key=lambda d: (_slice(d), d.process_index, d.id)
    )
    found = len({_slice(device) for device in devices})
    slices = slices or found
    if found not in (1, slices) or len(devices) % slices:
        raise UserError(
            f"expected parallel.slices to be that of the devices, {len(devices)} in"
            f" {found} slices, got {slices}; set it to 0 to read it from the devices"
        )
    if len(devices) // slices % fsdp:
        raise UserError(
            f"expected parallel.fsdp to divide the {len(devices) // slices} devices of"
            f" a slice, got {fsdp}; set it to 1 to keep the parameters whole on each"
            " device"
        )
    return Mesh(np.array(devices).reshape(-1, fsdp), _AXES)


def _slice(device: jax.Device) -> int:
    # For GPUs it numbers hosts, and `fsdp` may span hosts.
    return getattr(device, "slice_index", 0) if device.platform == "tpu" else 0


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding with a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(_AXES))


def param_shardings(mesh: Mesh, tree: Params) -> Params:
    """Returns a sharding for each leaf: its longest divisible axis over `fsdp`.

    Leaves below `MIN_SHARDED` elements are replicated: gathering them takes more time
    than it saves, and more than half of the leaves of a U-Net are that small.

    Args:
      mesh: the devices.
      tree: parameters, or a tree that contains them (their moments, their average), as
        arrays or shapes; leaves without a divisible axis are replicated.
    """
    fsdp = mesh.shape["fsdp"]

    def sharding(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        divisible = [i for i, size in enumerate(leaf.shape) if size % fsdp == 0]
        if fsdp > 1 and divisible and math.prod(leaf.shape) >= MIN_SHARDED:
            spec[max(divisible, key=lambda i: leaf.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, tree)


def with_shardings(shapes: Params, shardings: Params) -> Params:
    """Returns the shapes with their shardings, the target of restored checkpoints."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


def to_global(mesh: Mesh, host_batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Joins the hosts' shares of a batch to global arrays, split over the devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in host_batch.items()
    }


def to_host(array: jax.Array) -> np.ndarray:
    """Returns this host's share of an array that is split over the first axis."""
    shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Returns XLA's compiler options for a network on these devices."""
    if mesh.devices.flat[0].platform != "tpu":
        return {}
    # Both only add memory traffic (docs/performance.md): padded tiles where a chip has
    # four images or fewer, and loops over the parts of kernels that `fsdp` splits.
    return {
        "xla_disable_hlo_passes": "space-to-batch-converter",
        "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    }


def in_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns a function that is traced with the mesh as JAX's abstract mesh.

    A kernel that XLA cannot split over devices splits itself over that mesh.
    """

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def jit_step(step: Step, mesh: Mesh, state_shardings: Any) -> Any:
    """Compiles the step of a whole batch; the state is donated."""
    return jax.jit(
        in_mesh(step, mesh),
        donate_argnums=0,
        out_shardings=(state_shardings, replicated(mesh)),
        compiler_options=compiler_options(mesh),
    )


def pmap_step(step: Step, mesh: Mesh) -> Step:
    """Compiles a training step by `jax.pmap`; it takes the host's share of a batch.

    Args:
      step: of a device's share of the batch; it averages over `PMAP_AXIS` itself.
      mesh: the devices, each with a copy of the state.
    """
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(
        step,
        PMAP_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=devices,
    )
    local = [d for d in devices if d.process_index == jax.process_index()]
    on_host = replicated(Mesh(np.array(local), PMAP_AXIS))

    # pmap takes compiler options only ahead of time, which several hosts cannot do: the
    # program takes their joined batch, and they are called with their own share.
    options = compiler_options(mesh) if jax.process_count() == 1 else None
    compiled: Any = None if options else mapped

    def run(state: Any, host_batch: dict[str, np.ndarray]) -> tuple[Any, Any]:
        stacked = {
            name: value.reshape(len(local), -1, *value.shape[1:])
            for name, value in host_batch.items()
        }
        # With several hosts, pmap takes and returns only the copies of this host.
        state = _relabel(state, on_host)
        nonlocal compiled
        if compiled is None:
            compiled = mapped.lower(state, stacked).compile(compiler_options=options)
        results = compiled(state, stacked)
        return _relabel(results, replicated(mesh))

    return run


def _relabel(tree: Any, sharding: NamedSharding) -> Any:
    """Returns replicated arrays with another sharding, without moving data."""

    def relabel(array: jax.Array) -> jax.Array:
        copies = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)

    return jax.tree.map(relabel, tree)


def gather(host_share: np.ndarray) -> np.ndarray:
    """Joins the hosts' shares along the first axis, on every host."""
    if jax.process_count() == 1:
        return host_share
    if host_share.dtype.kind == "U" or host_share.dtype.itemsize == 8:
        # Devices have no text and would round 64 bits, so this sends codes.
        codes = np.ascontiguousarray(host_share).view(np.uint32)
        joined = np.ascontiguousarray(gather(codes.reshape(len(host_share), -1)))
        return joined.view(host_share.dtype).reshape(-1, *host_share.shape[1:])
    return np.asarray(multihost_utils.process_allgather(host_share, tiled=True))


def gather_batch(host_batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins the hosts' shares of a batch, on every host."""
    return {name: gather(host_batch[name]) for name in sorted(host_batch)}


def from_host_0(value: float) -> float:
    """Returns host 0's value on every host, for example of a clock."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def use_cpu_cores(batch_sizes: Sequence[int]) -> None:
    """Makes each CPU core a device, as many as divide the batches.

    XLA computes a convolution with few channels on one core; split over two devices, a
    small network trains 1.4 times as fast on two cores. Does nothing for accelerators,
    or if the number of devices is set by hand. Call it before using a device.
    """
    by_hand = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if by_hand or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    divisor = math.gcd(*batch_sizes)
    # macOS does not report the cores of a process.
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    count = max(n for n in range(1, cores + 1) if divisor % n == 0)
    jax.config.update("jax_num_cpu_devices", count)


def cache_compilations(*, workdir: str | None = None) -> None:
    """Caches compiled programs for the next start, unless another cache is set.

    Args:
      workdir: local or gs://, of a run on preemptible machines, whose home folders are
        lost; the default is the user's home.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        directory = os.path.expanduser("~/.cache/palette_jax/compiled")
        if workdir:
            directory = str(epath.Path(workdir) / "compiled")
        jax.config.update("jax_compilation_cache_dir", directory)
    _replace_unreadable_programs()


def _replace_unreadable_programs() -> None:
    """Deletes unreadable cached programs, so that they are compiled again.

    JAX warns about them at every start, and keeps the files.
    """
    # Nothing public knows the file; the versions that setup.py allows have this.
    from jax._src import compilation_cache

    jax_cache: Any = compilation_cache
    read = jax_cache.get_executable_and_time
    if hasattr(read, "__wrapped__"):
        return  # Already done.

    @functools.wraps(read)
    def read_or_delete(cache_key: str, *args: Any) -> Any:
        try:
            return read(cache_key, *args)
        except Exception as error:
            folder = epath.Path(jax.config.values["jax_compilation_cache_dir"])
            path = folder / f"{cache_key}-cache"
            logging.info("compiling again: %s cannot be read (%s)", path, error)
            path.unlink(missing_ok=True)
            return None, None

    jax_cache.get_executable_and_time = read_or_delete
