"""A diffusers `UNet2DModel` computes the same here; what cannot is refused by name."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.interop import diffusers, mapping
from palette_jax.interop.convert import import_weights
from palette_jax.interop.diffusers_config import read_network
from palette_jax.interop.mapping import Imported
from palette_jax.models.unet import UNet
from tests.interop import write_unet2d_numbers as numbers

GAMMA = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[list(numbers.STEPS)]


def run_ours(imported: Imported, noisy: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Returns the output of the network that the config describes, NCHW."""
    fields = {k: v for k, v in imported.config["model"].items() if k != "dtype"}
    network = UNet(**fields, image_size=imported.config["data"]["image_size"])
    x, y_t = (jnp.asarray(a.transpose(0, 2, 3, 1)) for a in (source, noisy))
    gamma = jnp.asarray(GAMMA, jnp.float32)
    params = jax.tree.map(jnp.asarray, imported.params)
    eps = jax.jit(network.apply)({"params": params}, x, y_t, gamma)
    return np.asarray(eps).transpose(0, 3, 1, 2)


def assert_near(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() < 2e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["ddpm", "adm"])
def test_outputs_are_those_that_diffusers_computed(name: str) -> None:
    stored = json.loads(numbers.FILE.read_text())[name]
    state = numbers.draw_state(stored["shapes"])
    imported = diffusers.convert(state, numbers.CASES[name])
    noisy = numbers.draw_input(3)
    ours = run_ours(imported, noisy, np.ones_like(noisy))
    assert_near(ours[:, :, ::5, ::5].ravel(), np.array(stored["out"]))


@pytest.mark.parametrize("name", list(numbers.CASES))
def test_outputs_are_those_of_diffusers(name: str) -> None:
    reason = "expected diffusers and torch, which compute the numbers; not installed"
    pytest.importorskip("diffusers", reason=reason)
    pytest.importorskip("torch", reason=reason)
    config = numbers.CASES[name]
    shapes, theirs = numbers.run_theirs(config)
    given = numbers.draw_input(config.get("in_channels", 3))
    for noisy_first in (False, True):
        imported = diffusers.convert(
            numbers.draw_state(shapes), config, noisy_first=noisy_first
        )
        noisy, source = given[:, -3:], given[:, :3]
        if given.shape[1] == 6 and noisy_first:
            noisy, source = source, noisy
        assert_near(run_ours(imported, noisy, source), theirs[:, :3])


@pytest.mark.parametrize("name", list(numbers.PUBLISHED))
def test_published_networks_map_at_their_full_size(name: str) -> None:
    config, digest, count = numbers.PUBLISHED[name]
    network = read_network(config, None)
    wanted, shapes = mapping._shapes(network.fields), {}
    for rule in diffusers._rules(_Everything(), network, noisy_first=False):
        if rule.ours not in wanted:  # A skip that is not there.
            continue
        shape = wanted[rule.ours][::-1]
        if len(shape) == 4:
            shape = (*shape[:2], *wanted[rule.ours][:2])
        if rule.ours == "conv_in/kernel":
            shape = (shape[0], 3, 3, 3)
        shape = (shape[0] // len(rule.theirs), *shape[1:])
        shapes |= dict.fromkeys(rule.theirs, shape)
    # Those are what diffusers makes, and each becomes an array that we want.
    assert numbers.digest(shapes) == digest and len(shapes) == count
    state = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
    made = {
        rule.ours: rule.make(*(state[key] for key in rule.theirs)).shape
        for rule in diffusers._rules(state, network, noisy_first=False)
    }
    assert made == wanted


class _Everything(dict):
    def __contains__(self, key: object) -> bool:
        return True


def test_a_saved_folder_is_read_alone_or_in_a_pipeline(tmp_path: pathlib.Path) -> None:
    save = pytest.importorskip("safetensors.numpy").save_file
    stored = json.loads(numbers.FILE.read_text())["ddpm"]
    state = numbers.draw_state(stored["shapes"])
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, new in list(old.items()):
        state = {key.replace(f".{name}.", f".{new}."): a for key, a in state.items()}
    folder = tmp_path / "pipeline" / "unet"
    folder.mkdir(parents=True)
    save(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(numbers.CASES["ddpm"]))
    noisy = numbers.draw_input(3)
    for path in (folder, folder.parent):
        ours = run_ours(import_weights(path), noisy, noisy)
        assert_near(ours[:, :, ::5, ::5].ravel(), np.array(stored["out"]))

    scheduler = folder.parent / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    # Old pipelines have it beside the network.
    for path, place in ((scheduler, folder.parent), (folder / scheduler.name, folder)):
        config = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
        path.write_text(json.dumps(config))
        with pytest.raises(WeightsError, match="squaredcos_cap_v2"):
            import_weights(place)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_class_embeds": 10}, "num_class_embeds"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"center_input_sample": True}, "center_input_sample"),
        ({"time_embedding_type": "fourier"}, "fourier"),
        ({"act_fn": "gelu"}, "gelu"),
        ({"down_block_types": ("SkipDownBlock2D",) * 3}, "SkipDownBlock2D"),
        ({"up_block_types": ("UpBlock2D",) * 3}, "matching down and up blocks"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ({"attention_head_dim": 5}, "heads"),
        ({"downsample_type": "resnet"}, "in the same way"),
        ({"sample_size": None}, "image-size"),
        ({"add_attention": False}, "add_attention"),
        ({"norm_num_groups": 7}, "groups"),
    ],
)
def test_what_our_network_cannot_do_is_refused_by_name(
    change: dict, named: str
) -> None:
    stored = json.loads(numbers.FILE.read_text())["ddpm"]
    config = {**numbers.CASES["ddpm"], **change}
    with pytest.raises(WeightsError, match=named):
        diffusers.convert(numbers.draw_state(stored["shapes"]), config)


def test_a_key_too_few_or_too_many_is_named() -> None:
    stored = json.loads(numbers.FILE.read_text())["ddpm"]
    state = numbers.draw_state(stored["shapes"])
    fewer = {k: v for k, v in state.items() if k != "mid_block.resnets.1.conv2.bias"}
    with pytest.raises(WeightsError, match=r"mid_block\.resnets\.1\.conv2\.bias"):
        diffusers.convert(fewer, numbers.CASES["ddpm"])
    with pytest.raises(WeightsError, match="class_embedding"):
        more = {**state, "class_embedding.weight": np.zeros((10, 64))}
        diffusers.convert(more, numbers.CASES["ddpm"])
