"""3x3 convolutions on a CPU by Winograd, with a quarter of the products.

XLA takes 1.3 to 2.4 times as long for the convolution and the gradient of its input,
and up to 8 times for the gradient of its kernel. Other devices keep XLA's convolution.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# F(4 x 4, 3 x 3) of Lavin & Gray 2016 (arXiv 1509.09308), section 4.2: a square of
# 6 x 6 pixels with stride 4 is multiplied in the space of these points at 0, +-1, +-2
# and infinity.
_PIXELS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4]]) / 24
_KERNEL = np.concatenate([_KERNEL, [[0, 0, 1]]])
_KERNEL = np.kron(_KERNEL, _KERNEL)  # Rows and columns at once.
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0]])
_OUTPUT = np.concatenate([_OUTPUT, [[0, 1, -1, 8, -8, 1]]])


@jax.custom_vjp
def convolve(
    h: Float[Array, "b h w c_in"], kernel: Float[Array, "3 3 c_in c_out"]
) -> Float[Array, "b h w c_out"]:
    """Returns the convolution with zeros around the picture, with stride 1."""
    faster = _is_convolution_faster(h, kernel)
    return _choose(faster, _by_winograd, _by_xla, h, kernel)


def _forward(h: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(h, kernel), (h, kernel)


def _backward(saved: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    h, kernel = saved
    faster = _is_convolution_faster(h, kernel)
    d_h = _choose(faster, input_gradient, _input_gradient_by_xla, d_out, kernel)
    faster = _is_large(h, kernel)
    d_kernel = _choose(faster, kernel_gradient, _kernel_gradient_by_xla, h, d_out)
    return d_h, d_kernel


convolve.defvjp(_forward, _backward)


def _is_large(h: Array, kernel: Array) -> bool:
    # Each layer takes 0.3 seconds to compile, which small pictures do not repay.
    return math.prod(h.shape[1:3]) * math.prod(kernel.shape[2:]) >= 2**18


def _is_convolution_faster(h: Array, kernel: Array) -> bool:
    # Products of fewer features are slower than XLA's convolution; in pictures of fewer
    # pixels, the transform of the kernel takes most of the time.
    features, pixels = kernel.shape[2:], math.prod(h.shape[1:3])
    narrow, deep = min(features) < 32, max(features) > 4 * pixels
    return _is_large(h, kernel) and not narrow and not deep


def _choose(
    faster: bool,
    on_a_cpu: Callable[[Array, Array], Array],
    elsewhere: Callable[[Array, Array], Array],
    *arrays: Array,
) -> Array:
    if not faster:
        return elsewhere(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=on_a_cpu, default=elsewhere)


def _by_xla(h: Array, kernel: Array) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        h, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


def _input_gradient_by_xla(d_out: Array, kernel: Array) -> Array:
    h = jax.ShapeDtypeStruct((*d_out.shape[:3], kernel.shape[2]), d_out.dtype)
    (d_h,) = jax.linear_transpose(lambda h: _by_xla(h, kernel), h)(d_out)
    return d_h


def _kernel_gradient_by_xla(h: Array, d_out: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((3, 3, h.shape[-1], d_out.shape[-1]), h.dtype)
    (d_kernel,) = jax.linear_transpose(lambda k: _by_xla(h, k), kernel)(d_out)
    return d_kernel


@jax.jit
def _by_winograd(h: Array, kernel: Array) -> Array:
    return _multiply(h, _KERNEL, kernel, "ptc,pcd->ptd")


@jax.jit
def input_gradient(
    d_out: Float[Array, "b h w c_out"], kernel: Float[Array, "3 3 c_in c_out"]
) -> Float[Array, "b h w c_in"]:
    """Returns the convolution of `d_out` with the kernel turned around."""
    return _multiply(d_out, _KERNEL[:, ::-1], kernel, "ptd,pcd->ptc")


def _multiply(h: Array, matrix: np.ndarray, kernel: Array, products: str) -> Array:
    """Returns A^T [(G g G^T) (B^T d B)] A: equation 12 there."""
    b, height, width, _ = h.shape
    squares = _transform(_PIXELS, _with_border(_widen(h), 1), _pixels(6))
    rows, columns = squares.shape[3:5]
    squares = squares.reshape(36, -1, h.shape[-1])
    c_in, c_out = kernel.shape[2:]
    kernel = _widen(kernel).reshape(9, -1)
    kernel = jnp.asarray(matrix, kernel.dtype) @ kernel
    out = jnp.einsum(products, squares, kernel.reshape(36, c_in, c_out))
    out = _transform(_OUTPUT, out.reshape(6, 6, b, rows, columns, -1), _entries)
    out = out.transpose(2, 3, 0, 4, 1, 5).reshape(b, 4 * rows, 4 * columns, -1)
    return out[:, :height, :width].astype(h.dtype)


@jax.jit
def kernel_gradient(
    h: Float[Array, "b h w c_in"], d_out: Float[Array, "b h w c_out"]
) -> Float[Array, "3 3 c_in c_out"]:
    """Returns G^T [(B^T d B) (A dy A^T)] G: the transpose over the kernel."""
    dtype, c_in, c_out = h.dtype, h.shape[-1], d_out.shape[-1]
    squares = _transform(_PIXELS, _with_border(_widen(h), 1), _pixels(6))
    d_out = _transform(_OUTPUT.T, _with_border(_widen(d_out), 0), _pixels(4))
    squares, d_out = squares.reshape(36, -1, c_in), d_out.reshape(36, -1, c_out)
    products = jnp.einsum("ptc,ptd->pcd", squares, d_out).reshape(36, -1)
    d_kernel = jnp.asarray(_KERNEL.T, products.dtype) @ products
    return d_kernel.reshape(3, 3, c_in, c_out).astype(dtype)


def _widen(array: Array) -> Array:
    # The sums of a transform would cost most digits of 16 bits.
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _with_border(h: Array, border: int) -> Array:
    """Adds zeros around, and more below and to the right up to a multiple of 4."""
    sides = [(border, -size % 4 + border) for size in h.shape[1:3]]
    return jnp.pad(h, ((0, 0), *sides, (0, 0)))


def _transform(
    matrix: np.ndarray, array: Array, split: Callable[[Array], list[Array]]
) -> Array:
    """Returns matrix @ array @ matrix.T, with the new rows and columns in front.

    Args:
      matrix: the matrix.
      array: has rows in axis 0 and columns in axis 1, or is a picture.
      split: returns the columns; applied to the result, the rows.
    """
    array = _combine(matrix, split(array))
    # Fused with the next pass, each entry would be computed six times, in a program
    # that takes seconds to compile.
    return _combine(matrix, split(jax.lax.optimization_barrier(array)))


def _entries(array: Array) -> list[Array]:
    return [array[:, i] for i in range(array.shape[1])]


def _pixels(width: int) -> Callable[[Array], list[Array]]:
    """Returns the split into the pixels of squares of that width, with stride 4."""

    def split(h: Array) -> list[Array]:
        end = h.shape[2] - width + 1
        return [jax.lax.slice_in_dim(h, i, end + i, 4, 2) for i in range(width)]

    return split


def _combine(matrix: np.ndarray, parts: list[Array]) -> Array:
    """Returns the matrix times the parts, stacked.

    Sums the entries one by one: a matrix product with 6 x 6 entries would move the
    array twice, and most entries are 0 or 1.
    """
    rows = [[(x, p) for x, p in zip(row, parts, strict=True) if x] for row in matrix]
    return jnp.stack(
        [functools.reduce(jnp.add, [float(x) * p for x, p in row]) for row in rows]
    )
