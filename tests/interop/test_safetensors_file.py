"""Our weights survive the way out and back; damaged files are refused."""

import pathlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.interop import mapping
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
    params, found = import_safetensors(path)
    assert found == config
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)
    assert "conv_in/kernel" in read_safetensors(path)[0]
    assert not list(tmp_path.glob("*.part"))


def test_what_does_not_fit_the_network_of_its_config_is_named(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "w.safetensors"
    fields = {"base_features": 8, "feature_multipliers": (1,), "attn_resolutions": ()}
    shapes = mapping._shapes(fields)
    flat = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    config = {"model": fields | {"dtype": "bfloat16"}, "data": {"image_size": 8}}

    def back(flat: dict, **config: object) -> mapping.Imported:
        params = flax.traverse_util.unflatten_dict(flat, sep="/")
        export_safetensors(params, path, config=config)
        return import_weights(path)

    report = back(flat, **config).report
    assert report.mapped == {name: (name,) for name in shapes}
    fewer = {name: a for name, a in flat.items() if name != "conv_in/bias"}
    with pytest.raises(WeightsError, match="no conv_in/bias"):
        back(fewer, **config)
    with pytest.raises(WeightsError, match="extra/bias: left over"):
        back(flat | {"extra/bias": np.ones(1, np.float32)}, **config)
    with pytest.raises(WeightsError, match=r"conv_in/bias: \(8,\), got \(1,\)"):
        back(flat | {"conv_in/bias": np.ones(1, np.float32)}, **config)
    with pytest.raises(WeightsError, match="configuration of their network"):
        back(flat)


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
