"""Our weights survive the way out and back; damaged files are refused."""

import pathlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.weight_parts import export_parts
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
        with pytest.raises(WeightsError, match="truncated"):
            import_weights(path)


def test_a_file_of_others_is_none_of_ours(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_numpy.save({"a": np.zeros(2, np.float32)}))
    with pytest.raises(WeightsError, match="palette-jax export"):
        import_safetensors(path)
    with pytest.raises(WeightsError, match="1 tensors: a"):
        import_weights(path)


def test_parts_are_small_and_any_of_them_stands_for_all(
    tmp_path: pathlib.Path,
) -> None:
    rng = np.random.default_rng(0)
    params = {f"layer_{i}": {"kernel": rng.normal(size=(40, 50))} for i in range(9)}
    config = {"model": {"attention": "local"}}
    written = export_parts(params, tmp_path / "w", config=config, max_bytes=10_000)
    files = [pathlib.Path(file) for file in written]
    assert len(files) > 2 and all(f.stat().st_size <= 10_000 for f in files)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    for file in files:
        found, found_config = import_safetensors(file)
        assert found_config == config
        jax.tree.map(np.testing.assert_array_equal, found, rounded)
    files[1].unlink()
    with pytest.raises(
        WeightsError, match=r"no w-00002-of-\d{5}.safetensors; download"
    ):
        import_weights(files[0])
    with pytest.raises(WeightsError, match=r"layer_0/kernel with 4,000"):
        export_parts(params, tmp_path / "v", config=config, max_bytes=4000)


def test_in_bfloat16_a_file_holds_the_rounded_weights(tmp_path: pathlib.Path) -> None:
    params = {"dense": {"kernel": np.linspace(-3, 3, 5000, dtype=np.float32)}}
    path = tmp_path / "w.safetensors"
    export_safetensors(params, path, dtype="bfloat16")
    (array,) = read_safetensors(path)[0].values()
    np.testing.assert_array_equal(
        array, jnp.asarray(params["dense"]["kernel"], jnp.bfloat16)
    )
    assert path.stat().st_size < 11_000
