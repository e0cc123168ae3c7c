"""The attention study (Table 5 of the paper), and the fields for foreign weights."""

import flax.linen as nn
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
KINDS = ("global", "local", "dilated", "more_blocks", "none")


def _shapes(network: UNet, size: int) -> dict:
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    gamma = jax.ShapeDtypeStruct((1,), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), image, image, gamma)[
        "params"
    ]


def _random_like(shapes: dict) -> dict:
    """Returns parameters none of which is zero, as training would leave them."""
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [
        0.2 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


@pytest.mark.parametrize(
    ("kind", "millions"),
    [("global", 552), ("local", 552), ("dilated", 624), ("more_blocks", 603)],
)
def test_parameters_are_as_many_as_in_table_5(kind: str, millions: int) -> None:
    shapes = _shapes(UNet(attention=kind), 256)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # The paper cuts the digits off: it prints 552 for ADM's 552.8.
    assert count // 10**6 == millions
    if kind in ("global", "local"):
        assert count == 552_814_083


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_where_the_variant_has_it(kind: str) -> None:
    names = _shapes(UNet(**SMALL, attention=kind), 16)
    attention = [name for name in names if name.endswith("attention")]
    dilated = [name for name in names if name.endswith("dilated")]
    more = [name for name in names if "more" in name]
    # Two resolutions, each with one block on the way down and two on the way up.
    counts = {"global": 7, "local": 7, "dilated": 1, "more_blocks": 1, "none": 0}
    assert len(attention) == counts[kind]
    assert len(dilated) == (6 if kind == "dilated" else 0)
    assert len(more) == (8 if kind == "more_blocks" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_network_predicts_zero(kind: str) -> None:
    network = UNet(**SMALL, attention=kind)
    image = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    gamma = jnp.full((1,), 0.5)
    params = jax.jit(network.init)(jax.random.key(1), image, image, gamma)
    assert not np.any(jax.jit(network.apply)(params, image, image, gamma))


def test_local_attention_is_global_attention_of_each_quarter() -> None:
    h = jax.random.normal(jax.random.key(0), (2, 8, 12, 16))
    whole = blocks.AttentionBlock(head_features=8)
    shapes = jax.eval_shape(whole.init, jax.random.key(1), h)
    params = _random_like(shapes)
    # The norm sees the whole picture in both; without it, only attention is compared.
    whole = blocks.AttentionBlock(head_features=8, norm=_NoNorm)
    local = blocks.AttentionBlock(head_features=8, norm=_NoNorm, blocks_per_side=2)
    del params["params"]["norm"]
    out = local.apply(params, h)
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 6), slice(6, 12)):
            quarter = whole.apply(params, h[:, rows, columns])
            np.testing.assert_allclose(out[:, rows, columns], quarter, atol=1e-5)
    assert np.abs(out - whole.apply(params, h)).max() > 1e-2


def test_local_attention_refuses_a_size_it_cannot_halve() -> None:
    h = jnp.zeros((1, 7, 8, 16))
    with pytest.raises(ValueError, match="got 7 x 8"):
        blocks.AttentionBlock(blocks_per_side=2).init(jax.random.key(0), h)


@pytest.mark.parametrize("kind", ["attention", "dilated"])
def test_a_new_block_changes_nothing(kind: str) -> None:
    h = jax.random.normal(jax.random.key(0), (1, 8, 8, 16))
    if kind == "attention":
        block, args = blocks.AttentionBlock(blocks_per_side=2), (h,)
    else:
        block, args = blocks.DilatedBlock(2), (h, jnp.ones((1, 4)))
    params = block.init(jax.random.key(1), *args)
    np.testing.assert_array_equal(block.apply(params, *args), h)


def test_a_dilated_block_sees_just_as_far_as_its_dilation() -> None:
    h = jax.random.normal(jax.random.key(0), (1, 17, 17, 8))
    emb = jnp.ones((1, 4))
    block = blocks.DilatedBlock(dilation=4, norm=_NoNorm)
    shapes = jax.eval_shape(block.init, jax.random.key(1), h, emb)
    params = _random_like(shapes)
    moved = block.apply(params, h.at[0, 8, 8].add(1.0), emb) - block.apply(
        params, h, emb
    )
    rows, columns = np.nonzero(np.abs(moved[0]).max(-1))
    assert set(zip(rows, columns, strict=True)) == {
        (r, c) for r in (4, 8, 12) for c in (4, 8, 12)
    }


def test_a_dilated_block_is_its_definition() -> None:
    h = jax.random.normal(jax.random.key(0), (2, 9, 9, 8))
    emb = jax.random.normal(jax.random.key(1), (2, 4))
    block = blocks.DilatedBlock(dilation=2)
    params = _random_like(jax.eval_shape(block.init, jax.random.key(2), h, emb))
    own = params["params"]
    shift = nn.Dense(8).apply({"params": own["shift"]}, nn.silu(emb))
    normed = nn.GroupNorm(8, epsilon=1e-5).apply({"params": own["norm"]["norm"]}, h)
    out = nn.silu(normed + shift[:, None, None])
    conv = nn.Conv(8, (3, 3), kernel_dilation=2)
    expected = h + conv.apply({"params": own["conv"]}, out)
    np.testing.assert_allclose(block.apply(params, h, emb), expected, atol=1e-5)


@pytest.mark.parametrize("pad_end", [False, True])
def test_convolutions_resize_as_their_padding_says(pad_end: bool) -> None:
    h = jax.random.normal(jax.random.key(0), (1, 6, 8, 2))
    down = blocks.Resize(2, "down", pad_end)
    params = jax.tree.map(jnp.zeros_like, down.init(jax.random.key(1), h))
    # A kernel that copies the pixel at its centre.
    kernel = params["params"]["conv"]["kernel"].at[1, 1].set(jnp.eye(2))
    params["params"]["conv"]["kernel"] = kernel
    start = 1 if pad_end else 0
    np.testing.assert_array_equal(down.apply(params, h), h[:, start::2, start::2])
    up = blocks.Resize(2, "up").apply(params, h)
    np.testing.assert_array_equal(up[:, 1::2, ::2], h)
    np.testing.assert_array_equal(up[:, ::2, 1::2], h)


@pytest.mark.parametrize("step", [0, 3, 500, 711, 999])
def test_the_step_of_adm_is_found_from_its_gamma(step: int) -> None:
    gamma = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[step]
    found = embeddings.step_position(jnp.asarray([gamma], jnp.float32))
    np.testing.assert_allclose(found, [step], atol=2e-3)


def test_a_level_between_two_steps_of_adm_lies_between_them() -> None:
    """Samplers ask at levels that no step has."""
    gamma = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    steps = np.array([0, 3, 500, 998])
    between = np.sqrt(gamma[steps] * gamma[steps + 1])
    for levels, wanted in ((gamma[steps], steps), (between, steps + 0.5)):
        found = embeddings.step_position(jnp.asarray(levels, jnp.float32))
        np.testing.assert_allclose(found, wanted, atol=0.02)


def test_levels_beyond_adms_are_its_first_and_last_step() -> None:
    found = embeddings.step_position(jnp.asarray([1.0, 1e-12]))
    np.testing.assert_array_equal(found, [0, 999])


def test_gamma_itself_can_be_embedded() -> None:
    gamma = jnp.asarray([0.25, 0.5])
    embed = embeddings.LevelEmbedding(8, position="gamma")
    params = embed.init(jax.random.key(0), gamma)
    first = params["params"]["dense_0"]
    h = embeddings.sinusoids(gamma, 8) @ first["kernel"] + first["bias"][None]
    second = params["params"]["dense_1"]
    expected = jax.nn.silu(h) @ second["kernel"] + second["bias"][None]
    np.testing.assert_allclose(embed.apply(params, gamma), expected, atol=1e-6)


class _NoNorm(nn.Module):
    @nn.compact
    def __call__(self, h: jax.Array, **_: object) -> jax.Array:
        return h


def test_the_dilations_are_2_4_and_8_in_turns() -> None:
    dilations = {}

    def look(call, args, kwargs, context):
        if isinstance(context.module, blocks.DilatedBlock):
            dilations[context.module.name] = context.module.dilation
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        _shapes(UNet(**SMALL | {"num_res_blocks": 3}, attention="dilated"), 16)
    for level in (1, 2):
        for way, count in (("down", 3), ("up", 4)):
            found = [dilations[f"{way}_{level}_{i}_dilated"] for i in range(count)]
            assert found == [2, 4, 8, 2][:count]


def test_squares_of_pixels_count_as_pixels_where_attention_is() -> None:
    names = _shapes(UNet(**SMALL, patch_size=2), 16)
    # The levels have 8, 4 and 2 squares on a side.
    names = [name for name in names if name.endswith("attention")]
    assert {name.split("_")[1] for name in names} == {"0", "1", "attention"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_norms_have_the_groups_and_the_epsilon_of_the_network(kind: str) -> None:
    found = set()

    def look(call, args, kwargs, context):
        if isinstance(context.module, blocks.GroupNorm):
            found.add((context.module.groups, context.module.epsilon))
        return call(*args, **kwargs)

    network = UNet(**SMALL, attention=kind, norm_groups=4, norm_epsilon=3e-4)
    with nn.intercept_methods(look):
        _shapes(network, 16)
    assert found == {(4, 3e-4)}
