"""Convolutions by Winograd and their gradients, beside XLA's."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.models import winograd


def _by_xla(h, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        h, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


@pytest.mark.parametrize(
    "size", [(4, 4), (16, 16), (8, 20), (1, 1), (5, 7), (3, 18), (2, 6)]
)
def test_the_gradient_is_that_of_the_convolution(size: tuple[int, int]) -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    h = jax.random.normal(keys[0], (3, *size, 5))
    d_out = jax.random.normal(keys[1], (3, *size, 7))
    (want,) = jax.vjp(lambda k: _by_xla(h, k), jnp.zeros((3, 3, 5, 7)))[1](d_out)
    got = jax.jit(winograd.kernel_gradient)(h, d_out)
    # The points +-2 of the transform cost some 5 bits of the 24.
    np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    ("size", "c_in", "c_out"),
    [
        ((8, 8), 4, 4),
        ((8, 8), 64, 64),
        ((9, 13), 64, 96),
        ((5, 70), 96, 64),
        ((1, 64), 64, 64),
        ((43, 3), 96, 64),
    ],
)
def test_small_and_large_layers_are_the_convolution(
    size: tuple[int, int], c_in: int, c_out: int
) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    h = jax.random.normal(keys[0], (2, *size, c_in))
    kernel = jax.random.normal(keys[1], (3, 3, c_in, c_out))
    d_out = jax.random.normal(keys[2], (2, *size, c_out))
    out, gradients = jax.vjp(winograd.convolve, h, kernel)
    expected_out, expected = jax.vjp(_by_xla, h, kernel)
    results = [
        (out, expected_out),
        *zip(gradients(d_out), expected(d_out), strict=True),
    ]
    for got, want in results:
        np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()))
        # Only XLA's own convolution has its bits.
        assert (c_in == 4) == np.array_equal(got, want)


def test_it_is_exact_in_whole_numbers() -> None:
    """In float64 nothing is left of the difference but rounding."""
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        h = jnp.asarray(random.integers(-9, 9, (2, 8, 12, 3)), jnp.float64)
        d_out = jnp.asarray(random.integers(-9, 9, (2, 8, 12, 4)), jnp.float64)
        kernel = jnp.zeros((3, 3, 3, 4))
        got = winograd.kernel_gradient(h, d_out)
        (want,) = jax.vjp(lambda k: _by_xla(h, k), kernel)[1](d_out)
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_in_16_bits_only_the_result_is_rounded(dtype: jnp.dtype) -> None:
    """The transform would cost most of the 8 or 11 bits."""
    keys = jax.random.split(jax.random.key(0), 3)
    h = jax.random.normal(keys[0], (2, 8, 8, 64), dtype)
    d_out = jax.random.normal(keys[1], (2, 8, 8, 64), dtype)
    kernel = jax.random.normal(keys[2], (3, 3, 64, 64), dtype)
    out, pull = jax.vjp(winograd.convolve, h, kernel)
    wide = (a.astype(jnp.float32) for a in (h, kernel, d_out))
    wide_h, wide_kernel, wide_d_out = wide
    exact_out, exact_pull = jax.vjp(winograd.convolve, wide_h, wide_kernel)
    pairs = zip((out, *pull(d_out)), (exact_out, *exact_pull(wide_d_out)), strict=True)
    for got, exact in pairs:
        assert got.dtype == dtype
        error, eps = got.astype(jnp.float32) - exact, jnp.finfo(dtype).eps
        np.testing.assert_allclose(error, 0, atol=eps * abs(exact).max())


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_devices_compile_what_they_did(platform: str) -> None:
    h, kernel = jnp.zeros((2, 8, 8, 64)), jnp.zeros((3, 3, 64, 64))

    def program(convolve):
        gradients = jax.grad(lambda h, k: convolve(h, k).sum(), argnums=(0, 1))
        exported = jax.export.export(jax.jit(gradients), platforms=[platform])
        return exported(h, kernel).mlir_module()

    def operations(text):
        # A branch that is chosen by the platform remains as one with a single case.
        names = re.findall(r"stablehlo\.(\w+)", text)
        return Counter(n for n in names if n not in ("case", "return", "constant"))

    assert operations(program(winograd.convolve)) == operations(program(_by_xla))
