"""Plans a run: the memory, time and communication that it takes on a machine."""

import math
from typing import Literal

import jax
import ml_collections

from palette_jax.config import build
from palette_jax.config.values import from_dict
from palette_jax.planning import roofline, steps
from palette_jax.planning.load import Load, advice, largest, measure
from palette_jax.planning.steps import Step
from palette_jax.planning.topology import Topology, find

USUAL_SHARE = 0.4  # Of the roofline; what large networks reach when they train well.
_USUAL = f"at {USUAL_SHARE:.0%} of it, as good runs reach"


def plan(
    config: ml_collections.ConfigDict,
    topology_name: str,
    *,
    search_batch: bool = False,
    effort: Literal["quick", "full"] = "quick",
) -> int:
    """Prints parameters, memory, operations, communication, time and what to change.

    Returns:
      0 if training and sampling fit, 1 if they do not.
    """
    topology = find(topology_name, effort=effort)
    count = len(topology.devices)
    with config.unlocked():
        config.parallel.slices = config.parallel.slices or topology.slices
    build.check(config, num_devices=count)
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    chip = topology.chip
    print(f"{topology.name}: {count} x {chip.name}")
    print(
        f"  each {chip.flops / 1e12:.4g} TFLOP/s, {chip.bandwidth / 1e9:.4g} GB/s,"
        f" {_gib(chip.memory)} for a program"
    )
    if not topology.compiles:
        print(
            "  AN ESTIMATE: nothing compiles for a GPU where there is none, so memory"
        )
        print("  is that of the traced program, unfused, and may be off by a third")
    print(f"parameters: {parameters:,}, {config.model.dtype} computation")

    fits = _print_training(config, topology)
    fits = _print_sampling(config, topology) and fits
    if search_batch:
        _search_batch(config, topology)
    return 0 if fits else 1


def _print_training(config: ml_collections.ConfigDict, topology: Topology) -> bool:
    batch_size, count = config.train.batch_size, config.train.num_steps
    parallel = config.parallel
    print(
        f"\ntraining step: batch {batch_size}, accumulated {config.optim.accumulate}x,"
        f" fsdp {parallel.fsdp}, {parallel.compile},"
        f" remat {'on' if config.model.remat else 'off'}"
    )
    load = _print_load(steps.training_step(config, topology), topology)
    if load.needed > topology.chip.memory:
        print(f"  does not fit: {advice(config, len(topology.devices), load)}")
        return False
    print(f"  fits; at best {batch_size / load.seconds:,.1f} images/s")
    for share, words in ((1.0, "at the roofline"), (USUAL_SHARE, _USUAL)):
        hours = load.seconds * count / 3600 / share
        print(
            f"  {count:,} steps {words}: {_duration(hours)},"
            f" {hours * len(topology.devices):,.4g} chip-hours"
        )
    return True


def _print_sampling(config: ml_collections.ConfigDict, topology: Topology) -> bool:
    sample, batch_size = config.sample, config.eval.batch_size
    count = build.make_sampler(config).num_steps
    print(f"\nsampling: batch {batch_size}, {count} steps of {sample.sampler}")
    load = _print_load(steps.sampling_step(config, topology), topology)
    if load.needed > topology.chip.memory:
        devices = len(topology.devices)
        if batch_size > devices:
            smaller = max(batch_size // 2 // devices, 1) * devices
            print(f"  does not fit: try --config.eval.batch_size={smaller}")
        else:
            print("  does not fit: try a larger --config.parallel.fsdp")
        return False
    print(
        f"  fits; at best {batch_size / load.seconds:,.4g} images/s;"
        f" {USUAL_SHARE * batch_size / load.seconds:,.4g} {_USUAL}"
    )
    return True


def _print_load(step: Step, topology: Topology) -> Load:
    devices = len(topology.devices)
    counted = roofline.count_work(step.traced.jaxpr)
    own = roofline.Work(
        counted.flops / devices,
        counted.traffic / devices + 2 * roofline.tree_bytes(step.arguments),
    )
    compiled = None
    if topology.compiles:
        compiled = steps.compile_step(step, topology)
        quick = topology.platform == "tpu" and topology.effort == "quick"
        print(
            f"  compiled by {topology.compiler} in {compiled.seconds:.0f} s"
            + (", with little effort: see --effort" if quick else "")
        )
    load = measure(step, own, compiled, topology)
    print("  memory of each chip:")
    for kind, size in load.memory.items():
        print(f"    {kind:<15}{_gib(size):>12}")
    print(
        f"    {'needed':<15}{_gib(load.needed):>12}"
        f" of {_gib(topology.chip.memory)}, {load.needed / topology.chip.memory:.0%}"
    )
    print(
        f"  work of each chip: {load.flops / 1e12:,.4g} TFLOP,"
        f" {load.traffic / 1e9:,.4g} GB, by {load.source}"
    )
    if compiled and compiled.memory:
        print(
            "  communication of each chip:" + ("" if compiled.collectives else " none")
        )
        for kind, (count, traffic) in compiled.collectives.items():
            print(f"    {kind:<20}{count:>8,} times{traffic / 1e6:>14,.2f} MB")
    elif not topology.compiles:
        print("  communication: none, it is one chip")
    print(f"  roofline: {load.seconds:.4g} s, bound by {load.bound}")
    return load


def _search_batch(config: ml_collections.ConfigDict, topology: Topology) -> None:
    unit = len(topology.devices) * config.optim.accumulate
    how = "compiled" if topology.compiles else "estimated"
    print(f"\nlargest batch that fits, to an eighth, by {unit}; each is {how}:")

    def needed(units: int) -> float:
        trial = from_dict(config.to_dict())
        with trial.unlocked():
            trial.train.batch_size = units * unit
        step = steps.training_step(trial, topology)
        if topology.compiles:
            memory = steps.compile_step(step, topology).needed
        else:
            memory = float(roofline.peak_bytes(step.traced.jaxpr))
        print(f"  {units * unit}: {_gib(memory)}", flush=True)
        return memory

    units = largest(needed, topology.chip.memory)
    if units:
        print(f"  --config.train.batch_size={units * unit}")
    else:
        print("  not even the smallest fits: change what is named above first")


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:,.2g} minutes"
    return f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:,.1f} hours"


def _gib(size: float) -> str:
    if abs(size) < 2**30:
        return f"{size / 2**20:.1f} MiB"
    return f"{size / 2**30:.2f} GiB"
