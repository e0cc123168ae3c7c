"""3x3 convolutions with a kernel gradient by Winograd, with a quarter of the products.

On a CPU, XLA computes that gradient at 15 to 70 GFLOP/s and the convolution itself at
80 to 150. Other devices keep XLA's gradient.
"""

import functools
import math

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
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0]])
_OUTPUT = np.concatenate([_OUTPUT, [[0, 1, -1, 8, -8, 1]]])


# Products of one tap in a picture: below 8 x 8 pixels with 64 features there is no
# gain, and each shape takes a second to compile.
_SMALL = 2**18


@jax.custom_vjp
def convolve(
    h: Float[Array, "b h w c_in"], kernel: Float[Array, "3 3 c_in c_out"]
) -> Float[Array, "b h w c_out"]:
    """Returns the convolution with zeros around the picture, with stride 1."""
    return _by_xla(h, kernel)


def _by_xla(h: Array, kernel: Array) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        h, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


def _forward(h: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_xla(h, kernel), (h, kernel)


def _backward(saved: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    h, kernel = saved
    (d_h,) = jax.linear_transpose(lambda h: _by_xla(h, kernel), h)(d_out)
    if math.prod(h.shape[1:]) * d_out.shape[-1] < _SMALL:
        return d_h, _kernel_gradient_by_xla(h, d_out)
    d_kernel = jax.lax.platform_dependent(
        h, d_out, cpu=kernel_gradient, default=_kernel_gradient_by_xla
    )
    return d_h, d_kernel


convolve.defvjp(_forward, _backward)


def _kernel_gradient_by_xla(h: Array, d_out: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((3, 3, h.shape[-1], d_out.shape[-1]), h.dtype)
    (d_kernel,) = jax.linear_transpose(lambda k: _by_xla(h, k), kernel)(d_out)
    return d_kernel


def kernel_gradient(
    h: Float[Array, "b h w c_in"], d_out: Float[Array, "b h w c_out"]
) -> Float[Array, "3 3 c_in c_out"]:
    """Returns G^T [(B^T d B) (A dy A^T)] G: equation 12 there, transposed."""
    dtype, c_in, c_out = h.dtype, h.shape[-1], d_out.shape[-1]
    # The sums of the transform would cost most digits of 16 bits.
    wide = jnp.promote_types(dtype, jnp.float32)
    h, d_out = h.astype(wide), d_out.astype(wide)
    # Rows and columns of zeros up to a multiple of 4 have no gradient.
    more = [(0, -size % 4) for size in h.shape[1:3]]
    d_out = jnp.pad(d_out, ((0, 0), *more, (0, 0)))
    b, height, width, _ = d_out.shape
    around = [(1, after + 1) for _, after in more]
    squares = _squares(jnp.pad(h, ((0, 0), *around, (0, 0))))
    squares = _transform(_PIXELS, squares, 2, 4).reshape(36, -1, c_in)
    d_out = d_out.reshape(b, height // 4, 4, width // 4, 4, c_out)
    d_out = _transform(_OUTPUT.T, d_out, 2, 4).reshape(36, -1, c_out)
    products = jnp.einsum("ptc,ptd->pcd", squares, d_out)
    products = products.reshape(6, 6, c_in, c_out)
    return _transform(_KERNEL.T, products, 0, 1).astype(dtype)


def _squares(h: Array) -> Float[Array, "b m 6 n 6 c"]:
    """Returns the squares of 6 x 6 pixels, with stride 4, of 4 m + 2 by 4 n + 2."""
    for axis in (1, 3):
        count = h.shape[axis] // 4
        shape = (*h.shape[:axis], count, 4, *h.shape[axis + 1 :])
        end, zeros = 4 * count, [(0, 0)] * h.ndim
        zeros[axis] = (0, 2)
        first = jax.lax.slice_in_dim(h, 0, end, axis=axis).reshape(shape)
        after = jax.lax.slice_in_dim(h, 4, end + 2, axis=axis)
        after = jnp.pad(after, zeros).reshape(shape)
        after = jax.lax.slice_in_dim(after, 0, 2, axis=axis + 1)
        h = jnp.concatenate([first, after], axis + 1)
    return h


def _transform(matrix: np.ndarray, array: Array, rows: int, columns: int) -> Array:
    """Returns matrix @ array @ matrix.T over two axes, moved to the front."""
    array = _combine(matrix, array, columns)
    # Fused with the next pass, each entry would be computed six times, in a program
    # that takes seconds to compile.
    array = jax.lax.optimization_barrier(array)
    return _combine(matrix, array, rows + 1)


def _combine(matrix: np.ndarray, array: Array, axis: int) -> Array:
    """Returns matrix @ array over one axis, moved to the front.

    Sums the entries one by one: a matrix product with 6 x 6 entries would move the
    array twice, and most entries are 0 or 1.
    """
    parts = [
        jax.lax.index_in_dim(array, i, axis, keepdims=False)
        for i in range(matrix.shape[1])
    ]
    rows = [[(x, p) for x, p in zip(row, parts, strict=True) if x] for row in matrix]
    return jnp.stack(
        [functools.reduce(jnp.add, [float(x) * p for x, p in row]) for row in rows]
    )
