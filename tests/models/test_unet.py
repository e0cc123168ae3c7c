"""The network: the paper's size, where attention is, and how it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.models import blocks, embeddings
from palette_jax.models.unet import UNet

SMALL = {
    "base_features": 16,
    "feature_multipliers": (1, 2, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (8, 4),
    "image_size": 16,
    "head_features": 8,
}


def _init(network: UNet, size: int = 16) -> dict:
    image = jnp.zeros((1, size, size, 3))
    return jax.jit(network.init)(jax.random.key(0), image, image, jnp.ones(1))["params"]


def _random(params: dict) -> dict:
    """Returns parameters none of which is zero, as training would leave them."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


def _inputs(count: int = 2, height: int = 16, width: int = 16) -> tuple:
    keys = jax.random.split(jax.random.key(2), 2)
    shape = (count, height, width, 3)
    gamma = jnp.linspace(0.01, 0.99, count)
    return *(jax.random.normal(key, shape) for key in keys), gamma


def test_the_papers_network_has_as_many_parameters_as_adms() -> None:
    shapes = jax.eval_shape(lambda: _init(UNet(), size=256))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 552_814_083


@pytest.mark.parametrize(
    ("resolutions", "count"),
    # Per resolution one block down and two up, and always one in the middle.
    [((), 1), ((4,), 4), ((8,), 4), ((16, 8), 7), ((16, 8, 4), 10)],
)
def test_attention_is_at_the_configured_resolutions(
    resolutions: tuple[int, ...], count: int
) -> None:
    network = UNet(**{**SMALL, "attn_resolutions": resolutions})
    params = jax.eval_shape(lambda: _init(network))
    names = [name for name in params if name.endswith("attention")]
    assert len(names) == count
    levels = {16 >> int(name.split("_")[1]) for name in names if "middle" not in name}
    assert levels == set(resolutions)


def test_the_paper_attends_at_32_16_and_8_pixels() -> None:
    params = jax.eval_shape(lambda: _init(UNet(), size=256))
    names = [name for name in params if name.endswith("attention")]
    levels = sorted(256 >> int(n.split("_")[1]) for n in names if "middle" not in n)
    assert levels == [8] * 5 + [16] * 5 + [32] * 5
    assert "middle_attention" in names


def test_a_new_network_predicts_nothing_and_its_blocks_pass_their_input() -> None:
    network = UNet(**SMALL)
    params = _init(network)
    np.testing.assert_array_equal(
        jax.jit(network.apply)({"params": params}, *_inputs()), 0.0
    )
    last = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(params)
        if any(f"'{name}'" in str(path) for name in ("conv_out", "out"))
    ]
    blocks_with_one = [n for n in params if n.startswith(("down", "middle", "up"))]
    assert len(last) == 2 * (len(blocks_with_one) + 1)  # Kernel and bias; the head.
    for leaf in last:
        np.testing.assert_array_equal(leaf, 0.0)


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    network = UNet(**SMALL)
    params = _random(_init(network))
    x, y_t, gamma = _inputs(3)
    together = jax.jit(network.apply)({"params": params}, x, y_t, gamma)
    alone = jax.jit(network.apply)({"params": params}, x[1:2], y_t[1:2], gamma[1:2])
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_everything_the_network_is_given_matters() -> None:
    network = UNet(**SMALL)
    params = _random(_init(network))
    x, y_t, gamma = _inputs()
    out = jax.jit(network.apply)({"params": params}, x, y_t, gamma)
    for changed in ((x + 1, y_t, gamma), (x, y_t + 1, gamma), (x, y_t, 0.5 * gamma)):
        other = jax.jit(network.apply)({"params": params}, *changed)
        assert float(jnp.abs(other - out).mean()) > 1e-3


def test_other_sizes_and_shapes_than_the_trained_one_run() -> None:
    network = UNet(**SMALL)
    params = _random(_init(network))
    out = jax.jit(network.apply)({"params": params}, *_inputs(1, 8, 24))
    assert out.shape == (1, 8, 24, 3)


def test_bfloat16_is_near_float32_and_remat_changes_nothing() -> None:
    params = _random(_init(UNet(**SMALL)))
    inputs = _inputs()

    def run(**fields: object) -> np.ndarray:
        network = UNet(**{**SMALL, **fields})
        return np.asarray(jax.jit(network.apply)({"params": params}, *inputs))

    whole = run()
    # bfloat16 keeps 8 bits; some twenty layers add up their roundings at random.
    half = run(dtype=jnp.bfloat16)
    assert half.dtype == np.float32
    assert np.sqrt(np.mean((half - whole) ** 2)) < 0.03 * whole.std()
    np.testing.assert_allclose(run(remat=True), whole, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    network = UNet(**{**SMALL, "dropout": 0.5})
    params = _random(_init(network))
    inputs = _inputs()
    sure = jax.jit(network.apply)({"params": params}, *inputs)
    np.testing.assert_array_equal(
        sure, jax.jit(network.apply)({"params": params}, *inputs)
    )
    rngs = {"dropout": jax.random.key(0)}
    drawn = network.apply({"params": params}, *inputs, False, rngs=rngs)
    assert float(jnp.abs(drawn - sure).mean()) > 1e-3


def test_resizing_undoes_itself_and_keeps_the_mean() -> None:
    h = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    np.testing.assert_allclose(blocks.downsample(blocks.upsample(h)), h, rtol=1e-6)
    np.testing.assert_allclose(
        blocks.downsample(h).mean((1, 2)), h.mean((1, 2)), atol=1e-6
    )


def test_attention_of_one_head_is_the_textbooks() -> None:
    block = blocks.AttentionBlock(head_features=8)
    h = jax.random.normal(jax.random.key(0), (1, 3, 4, 8))
    params = _random(block.init(jax.random.key(1), h)["params"])
    normed = blocks.GroupNorm().apply({"params": params["norm"]}, h)
    tokens = np.asarray(normed, np.float64).reshape(12, 8)
    qkv = tokens @ np.asarray(params["qkv"]["kernel"]) + np.asarray(
        params["qkv"]["bias"]
    )
    q, k, v = np.split(qkv, 3, axis=1)
    weights = np.exp(q @ k.T / np.sqrt(8))
    weights /= weights.sum(1, keepdims=True)
    out = weights @ v @ np.asarray(params["out"]["kernel"]) + np.asarray(
        params["out"]["bias"]
    )
    expected = np.asarray(h) + out.reshape(1, 3, 4, 8)
    np.testing.assert_allclose(
        block.apply({"params": params}, h), expected, rtol=1e-4, atol=1e-5
    )


def test_the_level_embedding_tells_all_trained_levels_apart() -> None:
    gamma = np.cumprod(1 - np.linspace(1e-6, 0.01, 2000))
    position = embeddings.log_snr_position(jnp.asarray(gamma, jnp.float32))
    assert np.all(np.diff(position) > 0)
    assert 0 < float(position[0]) and float(position[-1]) < 1000
    # What float32 cannot express any more is clipped and stays finite.
    ends = embeddings.log_snr_position(jnp.array([0.0, 1.0, 6.6e-21]))
    np.testing.assert_allclose(ends, [1000.0, 0.0, 1000.0], rtol=1e-6)
