"""What libtpu makes of a block and of a step, on any machine: copies, bytes moved.

The limits are a tenth above what libtpu 0.0.42 gave in November 2026 with little effort
(`optimization_level` O0). A change that breaks one costs memory traffic on every TPU.
"""

import importlib.util
import math
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from palette_jax import parallel
from palette_jax.diffusion import schedules
from palette_jax.models import blocks
from palette_jax.planning import topology
from palette_jax.training.optimizer import make_optimizer
from palette_jax.training.state import make_state
from palette_jax.training.step import make_train_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="expected the package libtpu, which compiles for TPUs without them;"
        " install the extra: pip install 'palette-jax[tpu]'",
    ),
]

PICTURES = 4  # Where XLA's space-to-batch pass would cut activations up.
BLOCKS = {
    "residual": blocks.ResBlock(256, dtype=jnp.bfloat16),
    "up": blocks.ResBlock(256, resize="up", dtype=jnp.bfloat16),
    "down": blocks.ResBlock(256, resize="down", dtype=jnp.bfloat16),
    "attention": blocks.AttentionBlock(dtype=jnp.bfloat16),
}
_SIDES = {"residual": 64, "up": 64, "down": 64, "attention": 32}

# Of each block, forward and backward: copies of whole features, float32 of that size in
# memory, megabytes a picture. Those of attention are around its kernel: tokens after
# heads, and two sums of each row. The float32 of v4 is half of a norm's gradient, which
# its compiler computes at the end of a convolution; to forbid it costs others more.
_LIMITS = {
    ("residual", "v4"): (2, 1, 90),
    ("residual", "v5e"): (2, 0, 71),
    ("residual", "v6e"): (2, 0, 71),
    ("up", "v4"): (3, 1, 320),
    ("up", "v5e"): (3, 0, 265),
    ("up", "v6e"): (3, 0, 265),
    ("down", "v4"): (2, 1, 47),
    ("down", "v5e"): (2, 0, 44),
    ("down", "v6e"): (2, 0, 44),
    ("attention", "v4"): (8, 5, 79),
    ("attention", "v5e"): (8, 5, 79),
    ("attention", "v6e"): (8, 5, 79),
}


class Program(NamedTuple):
    """What is read in the text of a compiled program."""

    copies: int
    wide: list[str]
    megabytes: float


@pytest.mark.parametrize(("name", "chip"), list(_LIMITS))
def test_a_block_moves_no_more_bytes_than_it_did(name: str, chip: str) -> None:
    program = compile_block(name, chip)
    copies, wide, megabytes = _LIMITS[name, chip]
    assert program.copies <= copies
    assert len(program.wide) <= wide, program.wide
    assert program.megabytes <= megabytes


def compile_block(name: str, chip: str) -> Program:
    """Compiles a block with its gradients for one chip, as a training step does."""
    machine = topology.find(f"{chip}:" + ("1x1x1" if chip == "v4" else "1x1"))
    mesh = parallel.make_mesh(devices=machine.devices)
    whole = parallel.replicated(mesh)
    side, block = _SIDES[name], BLOCKS[name]

    def on_chip(tree: Any) -> Any:
        return parallel.with_shardings(tree, jax.tree.map(lambda _: whole, tree))

    features = jax.ShapeDtypeStruct((PICTURES, side, side, 256), jnp.bfloat16)
    level = jax.ShapeDtypeStruct((PICTURES, 1024), jnp.bfloat16)
    inputs = on_chip((features,) if name == "attention" else (features, level))
    weights = on_chip(jax.eval_shape(block.init, jax.random.key(0), *inputs))
    cotangent = on_chip(jax.eval_shape(block.apply, weights, *inputs))

    def both_ways(weights: Any, inputs: tuple, cotangent: jax.Array) -> Any:
        out, pull_back = jax.vjp(nn.apply(_call, block), weights, *inputs)
        return out, pull_back(cotangent)

    options: Any = parallel.compiler_options(mesh) | {"optimization_level": 9}
    jitted = jax.jit(parallel.in_mesh(both_ways, mesh))
    lowered = jitted.lower(weights, inputs, cotangent)
    compiled = lowered.compile(compiler_options=options)
    text = compiled.as_text()
    entry = text[text.index("\nENTRY ") :].splitlines()
    size = min(math.prod(features.shape), math.prod(cotangent.shape))
    copies = [line for line in entry if re.search(r" copy\(", line)]
    return Program(
        copies=sum(_largest(line, "bf16") >= size for line in copies),
        wide=[line for line in entry if _largest(line, "f32") >= size],
        megabytes=compiled.cost_analysis()["bytes accessed"] / PICTURES / 1e6,
    )


def test_split_kernels_are_gathered_and_not_convolved_part_by_part() -> None:
    """With `fsdp=8`, XLA by itself makes loops that write the activations in each."""
    mesh = parallel.make_mesh(devices=topology.find("v5e:2x4").devices, fsdp=8)
    block = BLOCKS["residual"]
    batch = parallel.batch_sharding(mesh)
    inputs = (
        jax.ShapeDtypeStruct((8, 64, 64, 256), jnp.bfloat16, sharding=batch),
        jax.ShapeDtypeStruct((8, 1024), jnp.bfloat16, sharding=batch),
    )
    weights = jax.eval_shape(block.init, jax.random.key(0), *inputs)
    weights = parallel.with_shardings(weights, parallel.param_shardings(mesh, weights))
    options: Any = parallel.compiler_options(mesh) | {"optimization_level": 9}
    jitted = jax.jit(parallel.in_mesh(block.apply, mesh))
    program = jitted.lower(weights, *inputs).compile(compiler_options=options)
    text = program.as_text()
    assert "all-gather" in text and "collective-permute" not in text


class _Weights(nn.Module):
    """A network of many weights and hardly any work."""

    @nn.compact
    def __call__(
        self, x: jax.Array, y_t: jax.Array, gamma: jax.Array, deterministic: bool
    ) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.ones, (2048, 2048))
        numbers = jnp.tile(y_t.reshape(len(y_t), -1), 11)[:, :2048]
        return (numbers @ kernel)[:, : 8 * 8 * 3].reshape(y_t.shape)


def test_a_step_reads_and_writes_each_number_of_the_state_once() -> None:
    mesh = parallel.make_mesh(devices=topology.find("v5e:1x1").devices)
    optimizer, network = make_optimizer(1e-4, 0), _Weights()
    step = make_train_step(
        jax.random.key(0),
        network,
        optimizer,
        schedules.linear_schedule(10, 1e-4, 0.1),
        platform="tpu",
    )
    picture = jnp.zeros((1, 8, 8, 3))
    state = jax.eval_shape(
        lambda key: make_state(
            network.init(key, picture, picture, jnp.ones(1), True)["params"], optimizer
        ),
        jax.random.key(0),
    )
    batch = {
        name: jax.ShapeDtypeStruct((8, 8, 8, channels), jnp.uint8)
        for name, channels in (("x", 3), ("y", 3), ("hole", 1))
    }
    arguments = parallel.with_shardings(
        (state, batch),
        jax.tree.map(lambda _: parallel.replicated(mesh), (state, batch)),
    )
    options: Any = parallel.compiler_options(mesh) | {"optimization_level": 9}
    lowered = jax.jit(step, donate_argnums=0).lower(*arguments)
    found = lowered.compile(compiler_options=options).cost_analysis()["bytes accessed"]
    # Read are weights, average, two moments and gradients, these once more for their
    # norm; four are written. It is 13.4 where weights are written to be chosen from.
    assert found / (4 * 2048 * 2048) < 11


def _call(block: nn.Module, *inputs: jax.Array) -> jax.Array:
    return block(*inputs)


def _largest(line: str, kind: str) -> int:
    """Returns the elements of the largest result of a type that is in main memory."""
    made = re.match(r"\s+(?:ROOT )?%\S+ = (.+?) ([a-z][\w\-]*)\(", line)
    if not made or made.group(2) in ("get-tuple-element", "bitcast", "parameter"):
        return 0
    sizes = [
        math.prod(int(n) for n in dims.split(","))
        for dims, layout in re.findall(
            kind + r"\[([\d,]+)\](\{[^}]*\})?", made.group(1)
        )
        if "S(1)" not in layout  # The chip's own memory.
    ]
    return max(sizes, default=0)
