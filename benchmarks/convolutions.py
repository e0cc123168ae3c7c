"""Prints the speed of a network's 3x3 convolutions, forward and their gradients.

    python -m benchmarks.convolutions --size=tiny
    python -m benchmarks.convolutions --size=paper --dtype=bfloat16    (an accelerator)

On a CPU, where the network computes them by Winograd, XLA's are timed beside. Other
compilers are slowest at the gradient of the kernel (openxla/xla#34273), so it is timed
there as nine products of shifted pictures too. *Share* is of the rate of large matrix
products.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from benchmarks import machine, report, sizes
from palette_jax.__main__ import use_huge_pages
from palette_jax.models import winograd


class Shape(NamedTuple):
    """The shape of a convolution: pixels on a side, channels in and out."""

    side: int
    features_in: int
    features_out: int


def shapes(config: ml_collections.ConfigDict) -> list[Shape]:
    """Returns the shapes of a network: at each level, of the first and last layer."""
    model, size = config.model, config.data.image_size
    side = size // model.patch_size
    widths = [round(model.base_features * m) for m in model.feature_multipliers]
    levels = [Shape(side >> i, width, width) for i, width in enumerate(widths)]
    channels = 3 * model.patch_size**2
    ends = [Shape(side, 2 * channels, widths[0]), Shape(side, widths[0], channels)]
    return list(dict.fromkeys([*levels, *ends]))


def by_xla(
    picture: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c k"]
) -> Float[Array, "b h w k"]:
    """Returns XLA's convolution."""
    return jax.lax.conv_general_dilated(
        picture, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def kernel_gradient_by_products(
    picture: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"]
) -> Float[Array, "3 3 c k"]:
    """Returns the gradient of the kernel as nine products of shifted pictures."""
    height, width = picture.shape[1:3]
    padded = jnp.pad(picture, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        jnp.einsum(
            "bhwc,bhwk->ck",
            padded[:, row : row + height, column : column + width],
            gradient,
            preferred_element_type=jnp.float32,
        )
        for row in range(3)
        for column in range(3)
    ]
    stacked = jnp.stack(taps).reshape(3, 3, *taps[0].shape)
    return stacked.astype(picture.dtype)


def measure(shape: Shape, *, batch_size: int, dtype: str, count: int) -> report.Row:
    """Times one convolution and its two gradients, in two ways."""
    keys = jax.random.split(jax.random.key(0), 3)
    side, features_in, features_out = shape
    picture, kernel, gradient = (
        jax.random.normal(key, dims, jnp.dtype(dtype))
        for key, dims in zip(
            keys,
            (
                (batch_size, side, side, features_in),
                (3, 3, features_in, features_out),
                (batch_size, side, side, features_out),
            ),
            strict=True,
        )
    )

    def by_products(picture: Array, kernel: Array, gradient: Array) -> Array:
        del kernel
        return kernel_gradient_by_products(picture, gradient)

    ways = _directions(winograd.convolve)
    if jax.default_backend() == "cpu":
        others = _directions(by_xla)
        ways |= {f"{name} by XLA": function for name, function in others.items()}
    else:
        ways["kernel's by products"] = by_products
    rate = machine.matrix_rate(dtype, seconds=0.2)
    flops = 2 * 9 * batch_size * side**2 * features_in * features_out
    row: report.Row = {
        "pixels": f"{side} x {side}",
        "channels": f"{features_in} to {features_out}",
        "type": dtype,
        "batch": batch_size,
    }
    for name, function in ways.items():
        jitted = jax.jit(function)
        run = functools.partial(jitted, picture, kernel, gradient)
        jax.block_until_ready(run())
        seconds = machine.measure(run, count).seconds
        row[f"{name}, ms"] = 1e3 * seconds
        row[f"{name}, share"] = flops / seconds / rate
    return row


def _directions(
    convolve: Callable[[Array, Array], Array],
) -> dict[str, Callable[[Array, Array, Array], Array]]:
    """Returns the convolution and the gradients of the picture and of the kernel."""

    def of_picture(picture: Array, kernel: Array, gradient: Array) -> Array:
        return jax.vjp(lambda p: convolve(p, kernel), picture)[1](gradient)[0]

    def of_kernel(picture: Array, kernel: Array, gradient: Array) -> Array:
        return jax.vjp(functools.partial(convolve, picture), kernel)[1](gradient)[0]

    return {
        "forward": lambda picture, kernel, gradient: convolve(picture, kernel),
        "picture's": of_picture,
        "kernel's": of_kernel,
    }


def rows(
    size: str, *, batch_size: int, dtype: str | None, count: int
) -> Iterator[report.Row]:
    """Yields a row for each shape of a network."""
    config = sizes.get_config(size, batch_size=batch_size, dtype=dtype)
    for shape in shapes(config):
        yield measure(
            shape,
            batch_size=config.train.batch_size,
            dtype=config.model.dtype,
            count=count,
        )


def main() -> None:
    """Prints a row for each shape of each size."""
    parser = report.make_parser(__doc__, "convolutions")
    report.add_network_flags(parser)
    args = parser.parse_args()
    found = [
        row
        for size in args.size
        for row in rows(
            size, batch_size=args.batch_size, dtype=args.dtype, count=args.count
        )
    ]
    report.finish(args.json, found)


if __name__ == "__main__":
    use_huge_pages()
    main()
