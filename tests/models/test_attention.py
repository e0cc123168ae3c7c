"""Attention is the same by every kernel, and asks only for those that are there."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.models import attention


def _qkv(dtype: Any, features: int = 8) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (2, 16, 2, features), dtype) for key in keys]


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
