"""Devices: one mesh, and where batches and parameters live on it."""

import math
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from palette_jax.types import Params

_AXES = ("data", "fsdp")


def make_mesh(*, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices as data x fsdp; one device is a mesh of one.

    Args:
      fsdp: how many neighbours share one copy of the parameters.
      devices: all devices of all hosts, unless given.

    Raises:
      ValueError: if `fsdp` does not divide the number of devices.
    """
    # Host by host, which the ids of a TPU slice are not: so the rows that a host
    # brings of a batch stay together, and an image has the same place on any machine.
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    if len(devices) % fsdp:
        raise ValueError(
            f"expected parallel.fsdp to divide the {len(devices)} devices, got {fsdp};"
            " set it to 1 to keep the parameters whole on each device"
        )
    return Mesh(np.array(devices).reshape(-1, fsdp), _AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(_AXES))


def param_shardings(mesh: Mesh, tree: Params) -> Params:
    """Returns a sharding for each leaf: its longest divisible axis over `fsdp`.

    Args:
      mesh: the devices.
      tree: parameters, or anything that contains them (their moments, their average),
        as arrays or shapes; what no axis of divides stays whole.
    """
    fsdp = mesh.shape["fsdp"]

    def sharding(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        divisible = [i for i, size in enumerate(leaf.shape) if size % fsdp == 0]
        if fsdp > 1 and divisible:
            spec[max(divisible, key=lambda i: leaf.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, tree)


def with_shardings(shapes: Params, shardings: Params) -> Params:
    """Returns the shapes with their shardings, as checkpoints are restored to."""
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


def use_cpu_cores(batch_sizes: Sequence[int]) -> None:
    """Makes each CPU core a device, as many as divide the batches.

    XLA computes a convolution with few channels on one core; split over two devices, a
    small network trains 1.4 times as fast on two cores. Does nothing to accelerators,
    nor where the number of devices is set by hand. Call it before anything touches a
    device.
    """
    by_hand = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if by_hand or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    divisor = math.gcd(*batch_sizes)
    cores = len(os.sched_getaffinity(0))
    count = max(n for n in range(1, cores + 1) if divisor % n == 0)
    jax.config.update("jax_num_cpu_devices", count)


def cache_compilations() -> None:
    """Keeps compiled programs for the next start, unless a place for them is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = os.path.expanduser("~/.cache/palette_jax/compiled")
        jax.config.update("jax_compilation_cache_dir", directory)
