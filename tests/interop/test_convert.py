"""Weights of the two PyTorch layouts compute the same here, or are refused."""

import json
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from palette_jax.config import build
from palette_jax.config.values import from_dict
from palette_jax.errors import WeightsError
from palette_jax.interop import guided_diffusion, janspiry, mapping
from palette_jax.interop.convert import import_weights
from palette_jax.interop.mapping import Imported
from palette_jax.models.unet import UNet
from palette_jax.torch_file import read_torch
from tests.interop import write_unet2d_numbers as numbers
from tests.interop.files import write_torch

SMALL = {"image_size": 32, "head_features": 16}


def _network(imported: Imported) -> UNet:
    fields = {k: v for k, v in imported.config["model"].items() if k != "dtype"}
    return UNet(**fields, image_size=imported.config["data"]["image_size"])


def _run(imported: Imported, x: np.ndarray, y_t: np.ndarray, gamma: np.ndarray):
    x, y_t = (jnp.asarray(a.transpose(0, 2, 3, 1)) for a in (x, y_t))
    gamma = jnp.asarray(gamma, jnp.float32)
    params = jax.tree.map(jnp.asarray, imported.params)
    eps = jax.jit(_network(imported).apply)({"params": params}, x, y_t, gamma)
    return np.asarray(eps).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def networks(reference_data: pathlib.Path) -> pathlib.Path:
    return reference_data / "reference_networks"


@pytest.mark.parametrize("size", ["square", "wide"])
def test_guided_diffusion_computes_the_same(networks: pathlib.Path, size: str) -> None:
    numbers = np.load(networks / "guided_diffusion_small.npz")
    imported = import_weights(networks / "guided_diffusion_small.pt", **SMALL)
    gamma = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[numbers["t"].astype(int)]
    noisy, expected = numbers[f"x_{size}"], numbers[f"out_{size}"][:, :3]
    # The source has no influence yet.
    eps = _run(imported, np.ones_like(noisy), noisy, gamma)
    assert np.abs(eps - expected).max() < 2e-4 * np.abs(expected).max()
    assert len(list(imported.report.lines())) > len(imported.report.mapped)


@pytest.mark.parametrize("size", ["square", "wide"])
@pytest.mark.parametrize("name", ["Network", "Network_ema"])
def test_janspirys_palette_computes_the_same(
    networks: pathlib.Path, tmp_path: pathlib.Path, size: str, name: str
) -> None:
    data = (networks / "janspiry_small_Network.pth").read_bytes()
    (tmp_path / f"200_{name}.pth").write_bytes(data)
    imported = import_weights(tmp_path / f"200_{name}.pth", **SMALL)
    numbers = np.load(networks / "janspiry_small.npz")
    x, expected = numbers[f"x_{size}"], numbers[f"out_{size}"]
    eps = _run(imported, x[:, :3], x[:, 3:], numbers["gamma"][:, 0])
    assert np.abs(eps - expected).max() < 2e-4 * np.abs(expected).max()
    # Its rates 1, 2, 4 do not hold the 16 of its configuration: the middle alone.
    assert imported.config["model"]["attn_resolutions"] == ()
    assert "gammas" in imported.report.ignored
    assert imported.config["sample"]["variance"] == "small"
    assert imported.config["sample"]["clip"] is True


def _fields(**changes: object) -> dict:
    fields = {
        "base_features": 32,
        "feature_multipliers": (1, 2),
        "num_res_blocks": 2,
        "attention": "global",
        "attn_resolutions": (16,),
        "image_size": 32,
        "head_features": 16,
        "num_heads": 0,
        "resize": "block",
        "conditioning": "scale_shift",
    }
    return fields | changes


def _state(fields: Mapping, *, embedding: str = "time_embed", **extra: int) -> dict:
    """Returns the state dict that a network of these fields has, drawn at random."""
    # Theirs from the shapes of ours: a kernel HWIO is a weight OIHW.
    everything = _Everything()
    shapes = mapping._shapes(fields)
    rng, state = np.random.default_rng(0), {}
    rules = guided_diffusion.rules(
        everything,
        fields,
        embedding=embedding,
        noisy_first=True,
        new_attention_order=False,
    )
    for rule in rules:
        if rule.ours in shapes:
            shape = shapes[rule.ours]
            order = (3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))[::-1]
            array = rng.standard_normal([shape[i] for i in order], np.float32)
            if rule.ours.endswith(("qkv/kernel", "out/kernel")) and array.ndim == 2:
                array = array[..., None]  # There they are convolutions of length 1.
            state[rule.theirs[0]] = array
    return state


class _Everything(dict):
    def __contains__(self, key: object) -> bool:
        return True


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resize": "conv"},
        {"conditioning": "shift"},
        {"num_heads": 4},
        {"feature_multipliers": (1, 2, 3, 4), "attn_resolutions": (32, 4)},
        {"feature_multipliers": (1,), "attn_resolutions": ()},
        {"feature_multipliers": (1, 1, 1), "num_res_blocks": 3, "resize": "conv"},
        {"base_features": 64, "feature_multipliers": (0.5, 1)},
    ],
)
def test_the_architecture_is_read_off_the_shapes(changes: dict) -> None:
    fields = _fields(**changes)
    heads = {k: fields[k] for k in ("num_heads", "head_features") if fields[k]}
    imported = guided_diffusion.convert(_state(fields), image_size=32, **heads)
    got = imported.config["model"]
    wanted = {k: v for k, v in fields.items() if k != "image_size"}
    if len(fields["feature_multipliers"]) == 1:
        wanted["resize"] = got["resize"]  # Nothing is resized.
    assert {name: got[name] for name in wanted} == wanted


# Hash and number of the names and shapes that the original code makes, and flags.
PUBLISHED = {
    # guided-diffusion, with the flags of its published models, without classes.
    "adm_64": ("b0272ccd2ce2a3b7", 540, {"image_size": 64, "head_features": 64}),
    "adm_128": ("4172817ff08348e7", 492, {"image_size": 128, "num_heads": 4}),
    "adm_256": ("b9c90be1570d1541", 566, {}),
    "adm_512": ("cb6c1e5b4e458a6d", 644, {}),
    # All of Janspiry's.
    "janspiry": ("ef47c058506e3170", 326, {}),
}
PUBLISHED_FIELDS = {
    "adm_64": {
        "base_features": 192,
        "feature_multipliers": (1, 2, 3, 4),
        "num_res_blocks": 3,
    },
    "adm_128": {
        "base_features": 256,
        "feature_multipliers": (1, 1, 2, 3, 4),
        "head_features": 64,
    },
    "adm_256": {"base_features": 256, "feature_multipliers": (1, 1, 2, 2, 4, 4)},
    "adm_512": {"base_features": 256, "feature_multipliers": (0.5, 1, 1, 2, 2, 4, 4)},
    "janspiry": {
        "base_features": 64,
        "feature_multipliers": (1, 2, 4, 8),
        "head_features": 32,
    },
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_networks_map_at_their_full_size(monkeypatch, name: str) -> None:
    digest, count, flags = PUBLISHED[name]
    is_janspiry = name == "janspiry"
    size = 256 if is_janspiry else int(name.split("_")[1])
    fields = _fields(head_features=64, image_size=size) | PUBLISHED_FIELDS[name]
    fields["attn_resolutions"] = () if is_janspiry else (32, 16, 8)
    # Only shapes are looked at: an array is one number, repeated.
    monkeypatch.setattr(np.random, "default_rng", lambda seed: _Zeros())
    embedding = "cond_embed" if is_janspiry else "time_embed"
    state = _state(fields, embedding=embedding)
    monkeypatch.undo()
    if not is_janspiry:  # No source picture, and a variance.
        state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"][:, :3]
        for key in ("out.2.weight", "out.2.bias"):
            shape = (6, *state[key].shape[1:])
            state[key] = np.broadcast_to(np.float32(0), shape)
    assert numbers.digest({k: a.shape for k, a in state.items()}) == digest
    assert len(state) == count
    made = []
    monkeypatch.setattr(
        mapping,
        "convert",
        lambda state, rules, fields, *, notes, **_: (
            made.extend([fields, "; ".join(notes)]) or ({}, None)
        ),
    )
    prefix = "denoise_fn." if is_janspiry else ""
    layout = janspiry if is_janspiry else guided_diffusion
    layout.convert({f"{prefix}{key}": a for key, a in state.items()}, **flags)
    for field in ("attn_resolutions", "image_size", "feature_multipliers", "resize"):
        assert made[0][field] == fields[field], field
    heads = {k: made[0][k] for k in ("head_features", "num_heads")}
    wanted = {"head_features": fields["head_features"], "num_heads": 0}
    assert heads == wanted | {k: v for k, v in flags.items() if k != "image_size"}
    # What neither the file nor the user said is told.
    assert (f"pictures of {size} pixels" in made[1]) == ("image_size" not in flags)
    is_head_given = bool(flags.keys() & {"head_features", "num_heads"})
    assert ("assumed, as published: heads of" in made[1]) != is_head_given


class _Zeros:
    def standard_normal(self, shape: list[int], dtype: type) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)


def test_the_new_order_of_attention_is_the_same_network(networks: pathlib.Path) -> None:
    path = networks / "guided_diffusion_small.pt"
    imported = import_weights(path, **SMALL)
    state = read_torch(path)
    for key in [key for key in state if ".qkv." in key]:
        array = state[key]
        parts = array.reshape(-1, 3, 16, *array.shape[1:])  # Heads x (q, k, v).
        state[key] = parts.swapaxes(0, 1).reshape(array.shape)
    turned = guided_diffusion.convert(state, **SMALL, new_attention_order=True)
    jax.tree.map(np.testing.assert_array_equal, imported.params, turned.params)


def test_the_config_builds_the_network_of_the_weights(networks: pathlib.Path) -> None:
    from palette_jax.config import base

    for name in ("guided_diffusion_small.pt", "janspiry_small_Network.pth"):
        imported = import_weights(networks / name, **SMALL)
        config = base.get_config().unlock()
        for group, values in imported.config.items():
            config[group].update(values)
        build.check(config)
        # As it comes back from a checkpoint, through JSON.
        config = from_dict(json.loads(config.to_json()))
        shapes = jax.eval_shape(
            lambda c=config: build.init_params(jax.random.key(0), c)
        )
        jax.tree.map(lambda a, b: a.shape == b.shape or 1 / 0, shapes, imported.params)


def test_what_shapes_do_not_tell_must_be_given() -> None:
    with pytest.raises(WeightsError, match="--image-size and --head-features"):
        guided_diffusion.convert(_state(_fields()))
    with pytest.raises(WeightsError, match="heads of 24"):
        guided_diffusion.convert(_state(_fields()), image_size=32, head_features=24)


@pytest.mark.parametrize("levels", [(1, 2), (1, 1, 1)])
def test_resizing_that_is_not_learned_is_refused_by_name(levels: tuple) -> None:
    fields = _fields(feature_multipliers=levels, resize="conv", attn_resolutions=())
    state = _state(fields)
    for key in list(state):
        if ".op." in key or ".conv." in key:
            del state[key]
    with pytest.raises(WeightsError, match="conv_resample"):
        guided_diffusion.convert(state, **SMALL)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (2000, 1e-6, 0.01),
        (1000, 1e-4, 0.09),
        (2000, 1e-4, 0.02),
        (2000, 1e-6, 0.2),
        # Not the published ones: all of their digits are there.
        (1500, 1.25e-4, 0.01375),
        (1000, 3.217e-5, 0.045678),
    ],
)
def test_janspirys_schedule_is_read_off_its_buffer(
    networks: pathlib.Path, count: int, low: float, high: float
) -> None:
    state = dict(read_torch(networks / "janspiry_small_Network.pth"))
    gammas = np.cumprod(1 - np.linspace(low, high, count)).astype(np.float32)
    state["gammas"] = gammas
    read = janspiry.convert(state, **SMALL).config["diffusion"]
    assert read == {"num_steps": count, "beta_min": low, "beta_max": high}
    curve = np.linspace(low**0.5, high**0.5, count) ** 2
    state["gammas"] = np.cumprod(1 - curve).astype(np.float32)
    with pytest.raises(WeightsError, match="linear schedule"):
        janspiry.convert(state, **SMALL)


def test_samples_are_drawn_by_janspirys_own_steps() -> None:
    from palette_jax.config import base

    config = base.get_config().unlock()
    for group, values in janspiry._schedules({}).items():
        config[group].update(values)
    sampler = build.make_sampler(config)
    # As `set_new_noise_schedule` there computes its buffers, for the noisiest first.
    beta = np.linspace(1e-4, 0.09, 1000)
    gamma = np.cumprod(1 - beta)
    before = np.append(1.0, gamma[:-1])
    variance = beta * (1 - before) / (1 - gamma)
    buffers = {
        "gamma": gamma,
        "y_0": beta * np.sqrt(before) / (1 - gamma),
        "y_t": (1 - before) * np.sqrt(1 - beta) / (1 - gamma),
        "std": np.sqrt(variance),  # And no noise at step 0.
    }
    columns = {
        "gamma": sampler.gamma,
        "y_t": sampler.step[:, 0],
        "y_0": sampler.step[:, 2],
        "std": sampler.std,
    }
    for name, buffer in buffers.items():
        ours = columns[name][::-1]
        np.testing.assert_allclose(ours, buffer, rtol=1e-9, atol=1e-12, err_msg=name)


def test_class_conditioning_and_classifiers_are_refused(tmp_path: pathlib.Path) -> None:
    state = _state(_fields())
    labels = {"label_emb.weight": np.zeros((1000, 128), np.float32)}
    write_torch(tmp_path / "w.pt", state | labels)
    with pytest.raises(WeightsError, match="conditioned on 1000"):
        import_weights(tmp_path / "w.pt", **SMALL)
    half = {k: v for k, v in state.items() if not k.startswith("output_blocks.")}
    with pytest.raises(WeightsError, match="classifier"):
        guided_diffusion.convert(half, **SMALL)


def test_a_key_missing_left_over_or_misshapen_is_named() -> None:
    state, key = _state(_fields()), "middle_block.0.in_layers.2.bias"
    with pytest.raises(WeightsError, match=f"no {key}"):
        fewer = {k: v for k, v in state.items() if k != key}
        guided_diffusion.convert(fewer, **SMALL)
    with pytest.raises(WeightsError, match=r"extra\.weight: left over"):
        guided_diffusion.convert(state | {"extra.weight": np.zeros(3)}, **SMALL)
    with pytest.raises(WeightsError, match=r"middle_0/conv_in/bias: .* got \(5,\)"):
        guided_diffusion.convert(state | {key: np.zeros(5)}, **SMALL)
    with pytest.raises(WeightsError, match=f"no denoise_fn.{key}"):
        prefixed = {f"denoise_fn.{k}": v for k, v in fewer.items()}
        janspiry.convert(
            {k.replace("time_embed", "cond_embed"): v for k, v in prefixed.items()},
            **SMALL,
        )


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("input_blocks.1.0.in_layers.2.weight", None),
        ("input_blocks.1.0.emb_layers.1.weight", None),
        ("out.2.weight", None),
        ("out.2.weight", np.zeros(6, np.float32)),
        ("time_embed.0.weight", np.zeros((), np.float32)),
        ("middle_block.1.qkv.weight", np.zeros(7, np.float32)),
        ("input_blocks.0.0.weight", np.zeros((32, 3), np.float32)),
    ],
)
def test_names_with_nonsense_behind_them_are_an_error_of_the_file(
    tmp_path: pathlib.Path, key: str, array: np.ndarray | None
) -> None:
    state = _state(_fields(feature_multipliers=(1,), attn_resolutions=()))
    del state[key]
    write_torch(tmp_path / "w.pt", state if array is None else state | {key: array})
    with pytest.raises(WeightsError, match=r"expected .* got .* damaged"):
        import_weights(tmp_path / "w.pt", **SMALL)


def test_a_layout_that_is_none_of_them_says_what_is_supported(
    tmp_path: pathlib.Path,
) -> None:
    write_torch(tmp_path / "w.pth", {"layer1.0.conv1.weight": np.zeros(3, np.float32)})
    with pytest.raises(WeightsError, match=r"layer1.0.conv1.weight.*UNet2DModel"):
        import_weights(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="got nothing there"):
        import_weights(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"config.json"):
        import_weights(tmp_path)
    write_torch(tmp_path / "s.pth", {"denoise_fn.downs.0.weight": np.zeros(3, "f4")})
    with pytest.raises(WeightsError, match="sr3"):
        import_weights(tmp_path / "s.pth")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "wrap",
    [
        "{}".format,
        "module.{}".format,
        "_orig_mod.{}".format,
        "module._orig_mod.{}".format,
        "_orig_mod.module.{}".format,
        lambda key: key.replace("middle_block.", "middle_block._orig_mod."),
    ],
)
def test_the_names_of_wrapped_networks_are_those_of_the_network(
    tmp_path: pathlib.Path, wrap, suffix: str
) -> None:
    state = _state(_fields())
    wrapped = {wrap(key): np.ascontiguousarray(a) for key, a in state.items()}
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        write_torch(path, wrapped)
    else:
        safetensors.numpy.save_file(wrapped, path)
    found, wanted = (
        import_weights(path, **SMALL),
        guided_diffusion.convert(state, **SMALL),
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)
