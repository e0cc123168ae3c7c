"""Attention is the same by every kernel, and asks only for those that are there."""

import collections
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from palette_jax import parallel
from palette_jax.models import attention


def _qkv(dtype: Any, features: int = 8, tokens: int = 16) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (2, tokens, 2, features), dtype) for key in keys]


def _gpu(capability: str, version: str = "PJRT C API\ncuda 13000") -> Any:
    client = types.SimpleNamespace(platform_version=version)
    return types.SimpleNamespace(client=client, compute_capability=capability)


def _gpu_program(qkv: list[jax.Array]) -> str:
    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention.attend(q, k, v).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*qkv)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_is_the_softmax_of_the_textbook(dtype: Any) -> None:
    q, k, v = (np.asarray(array, np.float64) for array in _qkv(dtype))
    weights = np.exp(np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhc->bqhc", weights, v)
    out = attention.attend(*_qkv(dtype))
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(
        np.asarray(out, np.float64), expected, atol=tolerance, rtol=tolerance
    )


def test_a_gpu_is_given_its_fused_kernel_in_16_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jax._src.cudnn import fused_attention_stablehlo

    versions = types.SimpleNamespace(cudnn_get_version=lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", versions)
    monkeypatch.setattr(jax, "local_devices", lambda: [_gpu("9.0")])
    assert "fmhaSoftmaxBackward" in _gpu_program(_qkv(jnp.bfloat16))
    # In float32, or of a size that it refuses, XLA computes it.
    assert "fmha" not in _gpu_program(_qkv(jnp.float32))
    assert "fmha" not in _gpu_program(_qkv(jnp.bfloat16, features=12))
    assert "fmha" not in _gpu_program(_qkv(jnp.bfloat16, features=136))


@pytest.mark.parametrize(
    ("device", "has_one"),
    [
        (_gpu("9.0"), True),
        (_gpu("8.0"), True),
        (_gpu("7.5"), False),
        (_gpu("gfx90a", "PJRT C API\nrocm 60000"), False),
        (_gpu("", "cpu"), False),
    ],
)
def test_old_and_other_devices_are_not_asked_for_it(device: Any, has_one: bool) -> None:
    assert attention._has_fused_kernel(device) == has_one


def _loss(attend: Any) -> Any:
    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return (attend(q, k, v).astype(q.dtype) ** 2).sum()

    return loss


def _dense(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


# 384 tokens: the last block is smaller than the others.
@pytest.mark.parametrize("tokens", [384, 512])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # 30: logits of several thousands.
def test_blocks_on_a_cpu_have_the_values_and_gradients_of_the_textbook(
    tokens: int, scale: float
) -> None:
    q, k, v = (scale * array for array in _qkv(jnp.float32, tokens=tokens))
    with jax.enable_x64(True):
        exact = [array.astype(jnp.float64) for array in (q, k, v)]
        d_exact = jax.grad(_loss(_dense), (0, 1, 2))(*exact)
        expected = [np.asarray(array) for array in (_dense(*exact), *d_exact)]
    assert expected[0].dtype == np.float64
    grad = jax.jit(jax.grad(_loss(attention.attend), (0, 1, 2)))
    got = (jax.jit(attention.attend)(q, k, v), *grad(q, k, v))
    dense = (_dense(q, k, v), *jax.grad(_loss(_dense), (0, 1, 2))(q, k, v))
    for ours, theirs, exactly in zip(got, dense, expected, strict=True):
        largest = float(abs(exactly).max())
        error = float(abs(np.asarray(ours, np.float64) - exactly).max())
        of_dense = float(abs(np.asarray(theirs, np.float64) - exactly).max())
        assert error <= max(2 * of_dense, 2e-6 * largest)


@pytest.mark.parametrize("transform", [jax.checkpoint, lambda f: jax.vmap(jax.vmap(f))])
def test_blocks_pass_through_remat_and_vmap(transform: Any) -> None:
    qkv = _qkv(jnp.float32, tokens=384)
    wrapped = transform(attention.attend)
    arrays = qkv if transform is jax.checkpoint else [x[None, None] for x in qkv]
    got = jax.grad(_loss(wrapped), (0, 1, 2))(*arrays)
    expected = jax.grad(_loss(_dense), (0, 1, 2))(*qkv)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-5)


def test_no_memory_is_taken_for_all_the_weights_on_a_cpu() -> None:
    qkv = _qkv(jnp.float32, tokens=1024)
    for attend, writes_them in ((_dense, True), (attention.attend, False)):
        program = jax.jit(jax.grad(_loss(attend), (0, 1, 2))).lower(*qkv)
        text = program.compile().as_text()
        assert text and ("1024,1024" in text) == writes_them


def _operations(attend: Any, platform: str) -> collections.Counter[Any]:
    """Returns the operations of the lowered gradient, with the shapes of their results.

    Left out are arrays of one constant, which a branch that is not taken leaves behind
    and the compiler drops.
    """
    shape = jax.ShapeDtypeStruct((2, 512, 2, 8), jnp.float32)
    traced = jax.jit(jax.grad(_loss(attend), (0, 1, 2))).trace(shape, shape, shape)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    lines = [line for line in text.splitlines() if ": (tensor<f32>) ->" not in line]
    return collections.Counter(
        match.group(1, 2)
        for line in lines
        if "stablehlo.constant" not in line
        and (match := re.search(r"= \"?(stablehlo\.\w+).*(tensor<\S+>)", line))
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_gpu_and_a_tpu_are_given_the_program_without_blocks(platform: str) -> None:
    assert _operations(attention.attend, platform) == _operations(_dense, platform)
    assert _operations(attention.attend, "cpu") != _operations(_dense, "cpu")


def test_the_flash_kernel_of_tpus_has_the_values_and_gradients_of_xlas() -> None:
    """In an interpreter, on a mesh of one device; 384 tokens are three blocks."""
    mesh = parallel.make_mesh(devices=jax.devices()[:1])

    def both_ways(attend: Any) -> Any:
        return lambda *qkv: (attend(*qkv), *jax.grad(_loss(attend), (0, 1, 2))(*qkv))

    qkv = _qkv(jnp.bfloat16, tokens=384)
    with pltpu.force_tpu_interpret_mode():
        got = jax.jit(parallel.in_mesh(both_ways(attention._by_flash), mesh))(*qkv)
    exact = both_ways(_dense)(*(array.astype(jnp.float32) for array in qkv))
    xlas = both_ways(_dense)(*qkv)
    for ours, theirs, exactly in zip(got, xlas, exact, strict=True):
        error, of_xla = (abs(out - exactly).max() for out in (ours, theirs))
        assert error <= 1.5 * of_xla + 1e-3 * abs(exactly).max()


@pytest.mark.parametrize(
    ("tokens", "batch", "mesh", "flash"),
    [
        (384, 4, True, True),
        (384, 4, False, False),  # XLA could not split it.
        (384, 3, True, False),  # Not divisible.
        (256, 4, True, False),  # Nothing to gain.
        (320, 4, True, False),  # Not in whole blocks.
    ],
)
def test_a_tpu_is_given_the_flash_kernel_where_it_can_be_split(
    tokens: int, batch: int, mesh: bool, flash: bool
) -> None:
    devices = parallel.make_mesh(devices=jax.devices()[:2])
    attend = parallel.in_mesh(attention.attend, devices) if mesh else attention.attend
    shape = jax.ShapeDtypeStruct((batch, tokens, 2, 64), jnp.bfloat16)
    traced = jax.jit(attend).trace(shape, shape, shape)
    for platform in ("tpu", "cpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("tpu_custom_call" in text) == (flash and platform == "tpu")


def test_blocks_keep_a_batch_on_its_devices() -> None:
    """No device is sent another's pictures."""
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    qkv = [jax.device_put(x, sharding) for x in _qkv(jnp.float32, tokens=384)]
    grad = jax.jit(jax.grad(_loss(attention.attend), (0, 1, 2)))
    program = grad.lower(*qkv).compile().as_text()
    assert program and not re.search(
        "all-gather|all-to-all|collective-permute", program
    )
    for ours, theirs in zip(
        grad(*qkv), jax.grad(_loss(_dense), (0, 1, 2))(*qkv), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
