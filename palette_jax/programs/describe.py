"""Describes the run of a config (`--dry-run`)."""

import math

import jax
import ml_collections

from palette_jax.config import build, build_data
from palette_jax.config.values import flatten


def describe(config: ml_collections.ConfigDict, *, trains: bool) -> int:
    """Prints the resolved config, the network's size and how a batch is split."""
    listed = config.data.source in ("folder", "paired")
    if not trains and (listed or config.data.eval_folder):
        print(f"pictures: {len(build_data.eval_source(config))} to evaluate on")
    elif listed:
        counts = build_data.identity(config)
        train = sum(source["pictures"] for source in counts["train"])
        held_out = counts["held_out"]["pictures"]
        print(f"pictures: {train} to train on, {held_out} held out")
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    devices, hosts = jax.device_count(), jax.process_count()
    batch_size, sampler = config.train.batch_size, build.make_sampler(config)
    for key, value in flatten(config.to_dict()):
        print(f"{key} = {value!r}")
    print(f"parameters: {parameters:,}")
    print(
        f"devices: {devices} ({jax.devices()[0].device_kind}) on {hosts} hosts;"
        f" batch: {batch_size}, {batch_size // hosts} a host,"
        f" {batch_size // devices} a device in {config.optim.accumulate} parts"
    )
    print(
        f"sampling: {sampler.num_steps} steps of {config.sample.sampler},"
        f" gamma {sampler.gamma[0]:.2g} to {sampler.gamma[-1]:.6g}"
    )
    return 0
