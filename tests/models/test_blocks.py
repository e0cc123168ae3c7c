"""Blocks that are written for speed, against their plain definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.models import blocks, layers


def _draw(count: int, shape: tuple[int, ...]) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), count)
    return [jax.random.normal(key, shape) for key in keys]


def _plain_norm(
    h: np.ndarray, gain: np.ndarray, bias: np.ndarray, groups: int, epsilon: float
) -> np.ndarray:
    """Wu & He (2018), in float64: a group of channels is normalised over all pixels."""
    grouped = np.asarray(h, np.float64).reshape(len(h), -1, groups, len(gain) // groups)
    mean = grouped.mean((1, 3), keepdims=True)
    var = grouped.var((1, 3), keepdims=True)
    normed = ((grouped - mean) / np.sqrt(var + epsilon)).reshape(h.shape)
    return normed * np.asarray(gain) + np.asarray(bias)


# The last has 24 channels, which 32 groups do not divide: 8 is the power of two.
@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (16, 16), (24, 8)])
def test_the_norm_is_its_definition_with_scale_and_shift(
    channels: int, groups: int
) -> None:
    (h,) = _draw(1, (3, 5, 7, channels))
    h = 2 * h + 3  # A mean as large as features have.
    scale, shift = _draw(2, (3, channels))
    gain, bias = _draw(2, (channels,))
    params = {"params": {"norm": {"scale": gain, "bias": bias}}}
    norm = blocks.GroupNorm(epsilon=1e-3)
    plain = _plain_norm(h, gain, bias, groups, 1e-3)
    np.testing.assert_allclose(norm.apply(params, h), plain, rtol=1e-4, atol=2e-5)
    modulated = plain * (1 + np.asarray(scale)[:, None, None]) + np.asarray(
        shift[:, None, None]
    )
    np.testing.assert_allclose(
        norm.apply(params, h, scale, shift), modulated, rtol=1e-4, atol=5e-5
    )


def test_the_gradients_of_the_norm_are_those_of_its_definition() -> None:
    (h,) = _draw(1, (2, 4, 4, 16))
    scale, shift = _draw(2, (2, 16))
    weights = _draw(1, (2, 4, 4, 16))[0][::-1]
    params = blocks.GroupNorm(groups=4).init(jax.random.key(0), h)

    def loss(params: dict, h: jax.Array, scale: jax.Array, shift: jax.Array):
        norm = blocks.GroupNorm(groups=4)
        return (weights * nn.silu(norm.apply(params, h, scale, shift))).sum()

    def plain_loss(params: dict, h: jax.Array, scale: jax.Array, shift: jax.Array):
        plain = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
        normed = plain.apply({"params": params["params"]["norm"]}, h)
        return (
            weights
            * nn.silu(normed * (1 + scale)[:, None, None] + shift[:, None, None])
        ).sum()

    arguments = (params, h, scale, shift)
    found = jax.grad(loss, (0, 1, 2, 3))(*arguments)
    expected = jax.grad(plain_loss, (0, 1, 2, 3))(*arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


def test_the_norm_computes_in_float32_whatever_it_is_given() -> None:
    (h,) = _draw(1, (2, 32, 32, 8))
    h = h.astype(jnp.bfloat16)
    norm = blocks.GroupNorm()
    params = norm.init(jax.random.key(0), h)
    out = norm.apply(params, h)
    assert out.dtype == jnp.bfloat16
    exact = norm.apply(params, h.astype(jnp.float32))
    # Rounded once, at the end: to half of the last of bfloat16's eight digits.
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=1.001 * 2**-8)


@pytest.mark.parametrize("silu", [False, True])
def test_the_gradient_of_the_norm_is_that_of_its_formula(silu: bool) -> None:
    h, cotangent = _draw(2, (2, 6, 4, 64))
    scale, shift = _draw(2, (2, 64))
    norm = blocks.GroupNorm()
    params = norm.init(jax.random.key(0), h)

    def formula(params: dict, *args: jax.Array) -> jax.Array:
        h, scale, shift = args
        grouped = h.reshape(2, -1, 32, 2)
        mean, var = grouped.mean((1, 3)), grouped.var((1, 3))
        mean, var = (jnp.repeat(a, 2, 1)[:, None, None] for a in (mean, var))
        gain, bias = (params["params"]["norm"][name] for name in ("scale", "bias"))
        out = (h - mean) / jnp.sqrt(var + norm.epsilon)
        out = out * gain[None, None, None] + bias[None, None, None]
        out = out * (1 + scale[:, None, None]) + shift[:, None, None]
        return jax.nn.silu(out) if silu else out

    args = params, h + 0.5, scale, shift
    _, theirs = jax.vjp(formula, *args)
    _, ours = jax.vjp(lambda *args: norm.apply(*args, silu=silu), *args)
    for found, expected in zip(
        jax.tree.leaves(ours(cotangent)),
        jax.tree.leaves(theirs(cotangent)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_two_ways_to_halve_a_picture_agree(dtype: jnp.dtype) -> None:
    (h,) = _draw(1, (2, 8, 6, 5))
    h = h.astype(dtype)
    by_reshaping = blocks._downsample_by_reshaping(h)
    # In bfloat16, a last digit may be rounded the other way.
    np.testing.assert_allclose(
        blocks._downsample_by_convolution(h).astype(jnp.float32),
        by_reshaping.astype(jnp.float32),
        rtol=2**-7 if dtype == jnp.bfloat16 else 1e-6,
        atol=1e-6,
    )


def test_a_pointwise_convolution_is_a_convolution() -> None:
    (h,) = _draw(1, (2, 3, 5, 8))
    convolution, pointwise = nn.Conv(6, (1, 1)), layers.Pointwise(6)
    (weights,) = _draw(1, (2, 3, 5, 6))
    params = convolution.init(jax.random.key(1), h)
    params["params"]["bias"] = jnp.arange(6.0)
    shapes = jax.eval_shape(pointwise.init, jax.random.key(1), h)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)

    def value_and_gradients(module: nn.Module) -> tuple:
        loss = lambda params, h: (weights * module.apply(params, h)).sum()  # noqa: E731
        return module.apply(params, h), jax.grad(loss, (0, 1))(params, h)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value_and_gradients(pointwise),
        value_and_gradients(convolution),
    )


def test_dropout_is_before_the_last_convolution_as_in_adm() -> None:
    """So a new block, whose last kernel is 0, ignores it, and keeps its bias."""
    h, level = _draw(1, (2, 4, 4, 8))[0], jnp.ones((2, 4))
    block = blocks.ResBlock(8, dropout=0.5)
    params = block.init(jax.random.key(0), h, level)
    params["params"]["conv_out"]["bias"] += 3.0
    args = (params, h, level, False)
    out = block.apply(*args, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(out, h + 3)
    params["params"]["conv_out"]["kernel"] += 1.0
    one, other = (
        block.apply(*args, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 2)
    )
    assert (one != other).mean() > 0.9


def test_squares_of_pixels_become_one_and_come_back() -> None:
    h = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    small = blocks.pixel_unshuffle(jnp.asarray(h), 2)
    for row, column in np.ndindex(2, 3):
        square = h[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(small[:, row, column], square.reshape(2, -1))
    np.testing.assert_array_equal(blocks.pixel_shuffle(small, 2), h)
    np.testing.assert_array_equal(blocks.pixel_unshuffle(jnp.asarray(h), 1), h)


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e4])
def test_the_norm_keeps_its_digits_beside_a_large_mean(ratio: float) -> None:
    (h,) = _draw(1, (2, 16, 16, 32))
    h = h + ratio
    params = {"params": {"norm": {"scale": jnp.ones(32), "bias": jnp.zeros(32)}}}
    out = blocks.GroupNorm(groups=8).apply(params, h)
    plain = _plain_norm(h, np.ones(32), np.zeros(32), 8, 1e-5)
    # The input itself has this error: what float32 keeps of a number near the ratio.
    np.testing.assert_allclose(out, plain, atol=1e-5 + 2e-7 * ratio)
