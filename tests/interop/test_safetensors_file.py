"""Our weights survive the way out and back; damaged files are refused."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.interop.convert import import_weights
from palette_jax.interop.safetensors_file import (
    export_safetensors,
    import_safetensors,
    read_safetensors,
)

safetensors_numpy = pytest.importorskip("safetensors.numpy")

PARAMS = {
    "conv_in": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": 0.5},
    "down": {"norm": {"scale": jnp.ones(4, jnp.bfloat16)}},
}
PARAMS["conv_in"]["bias"] = np.float32(0.5) * np.ones(1, np.float32)


def test_weights_and_config_come_back_the_same(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.safetensors"
    config = {"model": {"attention": "local"}}
    export_safetensors(PARAMS, path, config=config)
    imported = import_weights(path)
    assert imported.config == config
    jax.tree.map(np.testing.assert_array_equal, imported.params, PARAMS)
    assert "conv_in/kernel" in read_safetensors(path)[0]


def test_a_file_cut_off_says_so(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.safetensors"
    export_safetensors(PARAMS, path)
    data = path.read_bytes()
    for length in (0, 5, 40, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="cut off"):
            import_weights(path)


def test_a_file_of_others_is_none_of_ours(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_numpy.save({"a": np.zeros(2, np.float32)}))
    with pytest.raises(WeightsError, match="palette-jax export"):
        import_safetensors(path)
    with pytest.raises(WeightsError, match="1 tensors: a"):
        import_weights(path)
