"""Prints the speed of self-attention, by implementation.

python -m benchmarks.attention --dtype=float32
python -m benchmarks.attention --dtype=bfloat16 --batch_size=64    (on an accelerator)

If an implementation does not run here, such as cuDNN's without a GPU, the program
prints the reason.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention
from jaxtyping import Array

from benchmarks import machine, report
from palette_jax.__main__ import use_huge_pages
from palette_jax.models import attention

# Pixels on a side and heads, of 64 channels: the paper's three levels; the small one's.
_SHAPES = ((32, 8), (16, 16), (8, 16), (32, 6), (16, 8))


def explicit(q: Array, k: Array, v: Array) -> Array:
    """Computes attention by explicit products."""
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits / math.sqrt(q.shape[-1])).astype(q.dtype)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v)


def pallas_tpu(q: Array, k: Array, v: Array) -> Array:
    """Calls the flash kernel for TPUs, which has heads before tokens."""
    q, k, v = (array.swapaxes(1, 2) for array in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    return flash_attention.flash_attention(q, k, v, sm_scale=scale).swapaxes(1, 2)


IMPLEMENTATIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "ours": attention.attend,
    "explicit": explicit,
    "jax.nn, xla": functools.partial(
        jax.nn.dot_product_attention, implementation="xla"
    ),
    "jax.nn, cudnn": functools.partial(
        jax.nn.dot_product_attention, implementation="cudnn"
    ),
    "pallas, TPU": pallas_tpu,
}


def measure(
    name: str, side: int, heads: int, *, batch_size: int, dtype: str, count: int
) -> report.Row:
    """Times attention over the pixels of pictures, and its gradients."""
    attend = IMPLEMENTATIONS[name]
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (batch_size, side * side, heads, 64)
    q, k, v = (jax.random.normal(key, shape, jnp.dtype(dtype)) for key in keys)

    def loss(q: Array, k: Array, v: Array) -> Array:
        return jnp.square(attend(q, k, v).astype(jnp.float32)).sum()

    forward, backward = jax.jit(attend), jax.jit(jax.grad(loss, (0, 1, 2)))
    jax.block_until_ready((forward(q, k, v), backward(q, k, v)))
    rate = machine.matrix_rate(dtype, seconds=0.2)
    once = machine.measure(lambda: forward(q, k, v), count)
    with_gradients = machine.measure(lambda: backward(q, k, v), count)
    flops = 2 * 2 * batch_size * heads * side**4 * 64  # Two products.
    return {
        "pixels": f"{side} x {side}",
        "heads": heads,
        "type": dtype,
        "batch": batch_size,
        "implementation": name,
        "forward, ms": 1e3 * once.seconds,
        "CPU-ms": 1e3 * once.cpu_seconds,
        "share": flops / once.seconds / rate,
        "with gradients, ms": 1e3 * with_gradients.seconds,
        "their CPU-ms": 1e3 * with_gradients.cpu_seconds,
        "peak GiB": machine.peak_memory() / 2**30,
    }


def main() -> None:
    """Prints a row for each shape and implementation."""
    parser = report.make_parser(__doc__, "attention")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--count", type=int, default=10, help="of runs timed")
    parser.add_argument(
        "--shapes", nargs="+", default=[f"{side}x{heads}" for side, heads in _SHAPES]
    )
    args = parser.parse_args()
    rows, missing = [], {}
    for shape in args.shapes:
        side, heads = map(int, shape.split("x"))
        for name in IMPLEMENTATIONS:
            try:
                row = measure(
                    name,
                    side,
                    heads,
                    batch_size=args.batch_size,
                    dtype=args.dtype,
                    count=args.count,
                )
            except Exception as error:
                # An implementation that does not run here is a result too.
                missing[name, shape] = str(error).strip().splitlines()[0][:120]
                continue
            rows.append(row)
    left_out = {f"{name}, {shape}": why for (name, shape), why in missing.items()}
    report.finish(args.json, rows, left_out=left_out)
    for case, why in left_out.items():
        print(f"left out: {case}: {why}")


if __name__ == "__main__":
    use_huge_pages()
    main()
