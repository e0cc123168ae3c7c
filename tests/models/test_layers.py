"""Layers: Flax's, but for the gradients of biases."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.models import layers
from palette_jax.models.unet import UNet

_PAIRS = {
    "dense": (nn.Dense(5), layers.Dense(5, kernel_init=nn.initializers.lecun_normal())),
    "pointwise": (
        nn.Conv(5, (1, 1), kernel_init=layers.kernel_init),
        layers.Pointwise(5),
    ),
    "conv": (nn.Conv(5, (3, 3), kernel_init=layers.kernel_init), layers.Conv(5)),
    "strided": (
        nn.Conv(5, (3, 3), 2, padding=((0, 1), (0, 1)), kernel_init=layers.kernel_init),
        layers.Conv(5, strides=2, padding=((0, 1), (0, 1))),
    ),
    "dilated": (
        nn.Conv(5, (3, 3), kernel_dilation=2, kernel_init=layers.kernel_init),
        layers.Conv(5, kernel_dilation=2),
    ),
}


@pytest.mark.parametrize("pair", _PAIRS.values(), ids=list(_PAIRS))
def test_a_layer_is_that_of_flax_with_its_weights(pair: tuple) -> None:
    theirs, ours = pair
    h = jax.random.normal(jax.random.key(1), (2, 8, 6, 3))
    weights = theirs.init(jax.random.key(0), h)
    jax.tree.map(
        np.testing.assert_array_equal, weights, ours.init(jax.random.key(0), h)
    )
    weights = jax.tree.map(lambda w: w + 0.1, weights)  # A bias is not 0.
    np.testing.assert_allclose(
        ours.apply(weights, h), theirs.apply(weights, h), rtol=1e-5, atol=1e-5
    )


def test_the_convolution_between_repeated_pixels_is_that_of_the_large_picture() -> None:
    h, kernel = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 5, 4, 3), (3, 3, 3, 6)])
    )

    def gradients(convolve: Callable[..., jax.Array]) -> tuple:
        out, pull_back = jax.vjp(convolve, h, kernel)
        return out, *pull_back(
            jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        )

    for ours, theirs in zip(
        gradients(layers._convolve_between),
        gradients(layers._convolve_upsampled),
        strict=True,
    ):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_columns_of_the_projections_are_head_by_head() -> None:
    tokens = jax.random.normal(jax.random.key(1), (2, 7, 12))
    module = layers.HeadProjections(3)
    weights = module.init(jax.random.key(0), tokens)
    weights = jax.tree.map(lambda w: w + 0.1, weights)
    columns = layers.Dense(36).apply(weights, tokens).reshape(2, 7, 3, 3, 4)
    for found, expected in zip(
        module.apply(weights, tokens), jnp.moveaxis(columns, 3, 0), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


_IN_BFLOAT16 = {
    "dense": layers.Dense(8, jnp.bfloat16),
    "pointwise": layers.Pointwise(8, jnp.bfloat16),
    "conv": layers.Conv(8, dtype=jnp.bfloat16),
}


@pytest.mark.parametrize("layer", _IN_BFLOAT16.values(), ids=list(_IN_BFLOAT16))
def test_the_gradient_of_a_bias_is_that_of_float64(layer: nn.Module) -> None:
    h = jnp.zeros((3, 52, 52, 8), jnp.bfloat16)
    cotangent = jax.random.uniform(jax.random.key(1), h.shape, jnp.bfloat16)
    weights = layer.init(jax.random.key(0), h)
    _, pull_back = jax.vjp(lambda w: layer.apply(w, h), weights)
    found = jax.jit(pull_back)(cotangent)[0]["params"]["bias"]
    exact = np.asarray(cotangent, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_the_shift_of_the_noise_level_has_the_gradient_of_float64() -> None:
    h = jnp.zeros((2, 64, 64, 8), jnp.bfloat16)
    shift = jnp.zeros((2, 1, 1, 8))
    cotangent = jax.random.uniform(jax.random.key(1), h.shape, jnp.bfloat16)
    _, pull_back = jax.vjp(lambda s: layers.add_bias(h, s), shift)
    exact = np.asarray(cotangent, np.float64).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(jax.jit(pull_back)(cotangent)[0], exact, rtol=1e-4)


@pytest.mark.parametrize("conditioning", ["scale_shift", "shift"])
def test_no_sum_over_pixels_of_a_network_is_in_bfloat16(conditioning: str) -> None:
    network = UNet(
        base_features=8,
        feature_multipliers=(1, 2),
        num_res_blocks=1,
        attn_resolutions=(8,),
        image_size=16,
        conditioning=conditioning,
        dtype=jnp.bfloat16,
    )
    image = jnp.ones((2, 16, 16, 3))
    weights = network.init(jax.random.key(0), image, image, jnp.ones(2))

    def loss(weights: dict) -> jax.Array:
        return jnp.square(network.apply(weights, image, image, jnp.ones(2))).mean()

    sums = list(_bfloat16_sums(jax.make_jaxpr(jax.grad(loss))(weights).jaxpr))
    # Of up-sampling: the four pixels that one became.
    assert max(sums, default=0) <= 4, sums


def _bfloat16_sums(jaxpr: jax.extend.core.Jaxpr) -> list[int]:
    """Returns the number of summands of every sum in bfloat16."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "reduce_sum":
            operand = equation.invars[0].aval
            if operand.dtype == jnp.bfloat16:
                found.append(operand.size // equation.outvars[0].aval.size)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += _bfloat16_sums(inner)
    return found
