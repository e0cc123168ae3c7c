"""The steps that a config would run, traced and compiled for devices elsewhere."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from palette_jax import atomic, parallel
from palette_jax.config import build, build_training
from palette_jax.planning import roofline
from palette_jax.planning.topology import Topology, peak_flops
from palette_jax.restoration.batch import image_keys, restore_batch
from palette_jax.types import Params

_O0 = 9  # As `jax_optimization_level` counts.
_FORMAT = "2"  # Of what is stored: raise it when a number is counted in another way.


class Step(NamedTuple):
    """A step, traced by JAX, and the shapes of its arguments with their shardings."""

    traced: Any
    arguments: tuple
    options: dict[str, Any]


@dataclasses.dataclass
class Compiled:
    """What a compiler says of a step, for each device.

    Attributes:
      memory: bytes by kind; empty if it gave up for lack of memory.
      needed: bytes at once.
      flops: by the compiler's count, which takes a loop for one run.
      collectives: `roofline.Collective` by kind.
      seconds: that compiling took.
    """

    memory: dict[str, int]
    needed: float
    flops: float
    traffic: float
    collectives: Any
    seconds: float


def training_step(config: ml_collections.ConfigDict, topology: Topology) -> Step:
    """Traces the training step of a config."""
    mesh = build.make_mesh(config, devices=topology.devices)
    optimizer = build.make_optimizer(config)
    state, shardings = build_training.abstract_state(config, optimizer, mesh)
    platform = topology.platform
    if config.parallel.compile == "pmap":
        # What `jax.pmap` compiles: the step of a device's share, under shard_map. pmap
        # itself wants the devices to be this host's.
        axis = parallel.PMAP_AXIS
        flat = Mesh(mesh.devices.reshape(-1), axis)
        state = parallel.with_shardings(
            state, jax.tree.map(lambda _: parallel.replicated(flat), state)
        )
        batch = _batch(config, NamedSharding(flat, PartitionSpec(axis)))
        mapped = jax.shard_map(
            build_training.make_step(config, axis_name=axis, platform=platform),
            mesh=flat,
            in_specs=(PartitionSpec(), PartitionSpec(axis)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        step: Any = jax.jit(mapped, donate_argnums=0)
    else:
        batch = _batch(config, parallel.batch_sharding(mesh))
        step = parallel.jit_step(
            build_training.make_step(config, platform=platform), mesh, shardings
        )
    options = parallel.compiler_options(mesh)
    return Step(step.trace(state, batch), (state, batch), options)


def sampling_step(config: ml_collections.ConfigDict, topology: Topology) -> Step:
    """Traces the sampler of a config, over all its steps, for an evaluation batch."""
    mesh = build.make_mesh(config, devices=topology.devices)
    predictor, sampler = (
        build.make_predictor(config, mesh=mesh),
        build.make_sampler(config),
    )
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    params = parallel.with_shardings(shapes, parallel.param_shardings(mesh, shapes))

    def restore(params: Params, x: Array, hole: Array, ids: Array) -> Array:
        return restore_batch(
            image_keys(config.seed, ids),
            predictor(params),
            x,
            hole,
            sampler,
            clip=config.sample.clip,
        )

    count, size = config.eval.batch_size, config.data.image_size
    sharding = parallel.batch_sharding(mesh)
    arguments = (
        params,
        jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8, sharding=sharding),
        jax.ShapeDtypeStruct((count, size, size, 1), jnp.uint8, sharding=sharding),
        jax.ShapeDtypeStruct((count,), jnp.uint32, sharding=sharding),
    )
    jitted = jax.jit(restore, out_shardings=sharding)
    options = parallel.compiler_options(mesh)
    return Step(jitted.trace(*arguments), arguments, options)


def best_seconds(config: ml_collections.ConfigDict) -> float | None:
    """Returns the seconds of a step at the peak rate of the devices.

    Forward and backward, three times the work forward; what `model.remat` computes
    twice counts once. None for devices whose peak is not known.
    """
    rate = peak_flops(jax.devices()[0].device_kind)
    if rate is None:
        return None
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    level = jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    network = build.make_network(config)
    forward = jax.make_jaxpr(
        lambda params, *args: network.apply({"params": params}, *args)
    )(params, image, image, level)
    flops = 3 * config.train.batch_size * roofline.count_work(forward).flops
    return flops / rate / jax.device_count()


def _batch(
    config: ml_collections.ConfigDict, sharding: NamedSharding
) -> dict[str, jax.ShapeDtypeStruct]:
    count, size = config.train.batch_size, config.data.image_size
    return {
        name: jax.ShapeDtypeStruct(
            (count, size, size, channels), jnp.uint8, sharding=sharding
        )
        for name, channels in (("x", 3), ("y", 3), ("hole", 1))
    }


def compile_step(step: Step, topology: Topology) -> Compiled:
    """Compiles a step, or says again what was found when it was."""
    lowered = step.traced.lower()
    options = dict(step.options)
    if topology.platform == "tpu" and topology.effort == "quick":
        options["optimization_level"] = _O0
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    described = [_FORMAT, jax.__version__, topology.name, topology.compiler, *flags]
    described.append(json.dumps(options, sort_keys=True))
    text = "\n".join([*described, lowered.as_text()])
    parent = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/palette_jax")
    cache = epath.Path(parent).expanduser() / "plans"
    stored = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # Missing, or damaged.
        return Compiled(**json.loads(stored.read_text()))
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if not needed:
            raise
        found = Compiled({}, needed, 0.0, 0.0, {}, time.perf_counter() - start)
    else:
        found = _read(compiled, time.perf_counter() - start)
    cache.mkdir(parents=True, exist_ok=True)
    atomic.write_text(stored, json.dumps(dataclasses.asdict(found)))
    return found


def _read(compiled: Any, seconds: float) -> Compiled:
    stats = compiled.memory_analysis()
    memory = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "generated code": stats.generated_code_size_in_bytes,
    }
    held = memory["arguments"] + memory["outputs"] - memory["aliased"]
    peak = getattr(stats, "peak_memory_in_bytes", 0)
    # Small temporaries may live beside the memory; the peak of others has no kind.
    memory["temporaries"] = max(memory["temporaries"], peak - held)
    cost = compiled.cost_analysis() or {}
    return Compiled(
        memory=memory,
        needed=float(held + memory["temporaries"] + memory["generated code"]),
        flops=float(cost.get("flops", 0.0)),
        traffic=float(cost.get("bytes accessed", 0.0)),
        collectives=roofline.count_collectives(compiled.as_text()),
        seconds=seconds,
    )


def _needed(message: str) -> float:
    """Returns the bytes that a compiler complains to lack room for; 0 of others."""
    if "RESOURCE_EXHAUSTED" not in message:
        return 0.0
    number = re.search(r"(?:Used |\()([\d.]+)([KMGT])", message)
    if not number:
        return 0.0
    return float(number.group(1)) * 1024.0 ** (1 + "KMGT".index(number.group(2)))
