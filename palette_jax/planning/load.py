"""The load of a step on each device, and what to change where it does not fit."""

import math
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from palette_jax.planning import roofline
from palette_jax.planning.steps import Compiled, Step
from palette_jax.planning.topology import Topology


class Load(NamedTuple):
    """The load of a step on each device.

    Attributes:
      memory: bytes by kind.
      needed: bytes at once.
      traffic: bytes read and written.
      source: of flops and traffic, in words.
      seconds: at the roofline, whose `bound` is computing or memory traffic.
    """

    memory: dict[str, int]
    needed: float
    flops: float
    traffic: float
    source: str
    seconds: float
    bound: str


def measure(
    step: Step, own: roofline.Work, compiled: Compiled | None, topology: Topology
) -> Load:
    """Joins our counts with the compiler's, where there are any.

    The compiler's count is taken where its operations agree with those counted: then
    neither a loop was taken for one run nor did a number overflow.
    """
    if compiled is None:
        arguments = roofline.tree_bytes(step.arguments)
        needed = float(roofline.peak_bytes(step.traced.jaxpr))
        temporaries = max(int(needed) - arguments, 0)
        memory = {"arguments": arguments, "temporaries": temporaries}
    else:
        memory, needed = compiled.memory, compiled.needed
    work, source = own, "our own count of products and convolutions"
    if compiled and 0.5 * own.flops <= compiled.flops <= 2 * own.flops:
        if compiled.traffic >= roofline.tree_bytes(step.arguments):
            work = roofline.Work(compiled.flops, compiled.traffic)
            source = "the compiler's count"
    chip = topology.chip
    computing, moving = work.flops / chip.flops, work.traffic / chip.bandwidth
    return Load(
        memory=memory,
        needed=needed,
        flops=work.flops,
        traffic=work.traffic,
        source=source,
        seconds=max(computing, moving),
        bound="computing" if computing >= moving else "memory traffic",
    )


def advice(config: ml_collections.ConfigDict, num_devices: int, load: Load) -> str:
    """Returns the next flag to change so that training needs less memory.

    Args:
      config: that does not fit.
      num_devices: of the mesh.
      load: its memory by kind; where arguments alone take most of what is needed, they
        are to be split, since nothing else makes them smaller.
    """
    fsdp, accumulate = config.parallel.fsdp, config.optim.accumulate
    batch_size = config.train.batch_size
    in_slice = num_devices // (config.parallel.slices or 1)
    can_split = config.parallel.compile == "jit" and fsdp < in_slice
    divisors = [n for n in range(fsdp + 1, in_slice + 1) if in_slice % n == 0]
    wider = min((n for n in divisors if n % fsdp == 0), default=fsdp)
    split = f"try --config.parallel.fsdp={wider}, which splits the state over chips"
    if can_split and load.memory.get("arguments", 0) > load.needed / 2:
        return split
    if not config.model.remat:
        return "try --config.model.remat, which computes activations twice"
    parts = 2 * accumulate
    if batch_size % (num_devices * parts) == 0:
        return f"try --config.optim.accumulate={parts}, parts of half the size"
    if can_split:
        return split
    smaller = max(batch_size // 2 // num_devices, 1) * num_devices
    if smaller < batch_size:
        return (
            f"try --config.train.batch_size={smaller} --config.optim.accumulate=1, a"
            " smaller batch"
        )
    return "no flag is left; take chips with more memory, or a smaller network"


def largest(needed: Callable[[int], float], room: float) -> int:
    """Returns the largest count whose need fits the room, to an eighth; 0 if none.

    Args:
      needed: of a count; taken to grow with it. Called as seldom as can be, where a
        line through the last two needs meets the room.
      room: in the same unit.
    """
    low, high, count = 0, math.inf, 1
    before = (0, 0.0)
    while True:
        now = (count, needed(count))
        low, high = (count, high) if now[1] <= room else (low, count)
        gap = max(1, low // 8)
        if high - low <= gap:
            return low
        slope = (now[1] - before[1]) / (now[0] - before[0])
        guess = now[0] + (room - now[1]) / slope if slope > 0 else math.inf
        if count == 1:  # One need tells nothing of what comes on top of the state.
            guess = 2
        before, count = now, int(min(max(guess, low + gap), 64 * count, high - gap))
