"""`palette-jax import` and `export`, as a user runs them."""

import importlib.util
import json
import pathlib
import re
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from PIL import Image

from palette_jax.config import build, identity
from palette_jax.config import flags as flags_of
from palette_jax.config.build_restorer import load_restorer, load_weights
from palette_jax.config.imported import make_config
from palette_jax.config.values import from_dict, task_names
from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.programs import train
from palette_jax.restoration.settings import Settings
from palette_jax.training import checkpoints
from tests.interop import write_unet2d_numbers as unet2d
from tests.interop.files import Global, write_torch
from tests.programs.untrained import command, save_run

SMALL = ("--image-size=32", "--head-features=16")
STEPS = ("--sampler=ddpm", "--num-steps=2")
HOLE = np.zeros((16, 16), np.uint8)
HOLE[3:9, 4:12] = 255


@pytest.fixture
def run(monkeypatch, tmp_path) -> Callable[..., int]:
    """`run(*args)` runs palette-jax in a folder with a picture and a mask."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(HOLE).save("mask.png")
    return lambda *args: command(monkeypatch, *args)


def _write_folder(folder: pathlib.Path) -> pathlib.Path:
    """Writes what diffusers saves of a small UNet2DModel."""
    folder.mkdir()
    stored = json.loads(unet2d.FILE.read_text())["ddpm"]
    state = unet2d.draw_state(stored["shapes"])
    path = folder / "diffusion_pytorch_model.safetensors"
    safetensors.numpy.save_file(state, path)
    (folder / "config.json").write_text(json.dumps(unet2d.CASES["ddpm"]))
    return folder


def _restored(run: Callable[..., int], checkpoint: str) -> np.ndarray:
    out = f"{checkpoint}_restored"
    flags = (*STEPS, "--mask=mask.png", f"--out={out}")
    assert run("restore", "photo.png", f"--checkpoint={checkpoint}", *flags) == 0
    photo, result = files.read("photo.png").pixels, files.read(f"{out}/photo.png")
    np.testing.assert_array_equal(result.pixels[HOLE == 0], photo[HOLE == 0])
    assert (result.pixels[HOLE > 0] != photo[HOLE > 0]).mean() > 0.9
    return result.pixels


@pytest.mark.parametrize(
    "name", ["guided_diffusion_small.pt", "janspiry_small_Network.pth"]
)
def test_weights_of_pytorch_projects_restore_with_no_further_flag(
    run, reference_data: pathlib.Path, capsys, name: str
) -> None:
    weights = reference_data / "reference_networks" / name
    assert run("import", weights, "--out=run", *SMALL) == 0
    report = capsys.readouterr().out
    prefix = "denoise_fn." if "janspiry" in name else ""
    assert f"\n{prefix}out.2.weight -> conv_out/kernel\n" in report
    assert "no unused key on either side" in report
    kept = pathlib.Path("run/import_report.txt").read_text()
    assert report.startswith(kept)
    _restored(run, "run")
    assert run("restore", "photo.png", "--checkpoint=run", "--task=jpeg") == 1
    assert "trained for (inpaint)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["guided_diffusion_small", "janspiry_small"])
def test_outputs_that_the_user_saved_prove_the_network(
    run, reference_data: pathlib.Path, capsys, name: str
) -> None:
    folder = reference_data / "reference_networks"
    (weights,) = folder.glob(f"{name}*.pt*")
    verify = f"--verify={folder / name}.npz"
    assert run("import", weights, "--out=run", *SMALL, verify) == 0
    report = pathlib.Path("run/import_report.txt").read_text()
    assert "verified: out_square" in report and "verified: out_wide" in report
    # Wrong heads fit all shapes: only the numbers tell.
    flags = ("--image-size=32", "--head-features=32")
    assert run("import", weights, "--out=wrong", *flags) == 0
    assert run("import", weights, "--out=refused", *flags, verify) == 1
    said = capsys.readouterr().err
    assert "--head-features" in said and "got a difference of" in said
    assert not pathlib.Path("refused").exists()


def test_outputs_of_another_form_are_refused_by_what_they_lack(
    run, tmp_path, capsys
) -> None:
    _write_folder(tmp_path / "model")
    x, t, out = np.zeros((2, 3, 16, 16)), np.array([0, 999]), np.zeros((2, 3, 16, 16))
    for arrays, said in (
        ({"x": x, "t": t}, "and out, its output"),
        ({"x": x, "out": out}, "expected t or gamma"),
        ({"x": x, "out": out, "t": t[:1]}, "a noise level for each of 2 inputs, got 1"),
        ({"x": x, "out": out, "t": t + 0.5}, "steps t from 0 to 999"),
        ({"x": x, "out": out[:1], "t": t}, "expected the shape"),
        ({"x_a": x, "out_b": out, "t": t}, "expected an input x"),
        ({"x": x, "out": out + np.nan, "t": t}, "got a difference of nan"),
    ):
        np.savez("io.npz", **arrays)
        assert run("import", "model", "--out=first", "--verify=io.npz") == 1
        assert said in capsys.readouterr().err
    whole = pathlib.Path("io.npz").read_bytes()
    for damaged in (b"no arrays", b"", whole[:100]):
        pathlib.Path("io.npz").write_bytes(damaged)
        assert run("import", "model", "--out=first", "--verify=io.npz") == 1
        assert "io.npz: expected an .npz file" in capsys.readouterr().err


def test_a_janspiry_colorizer_is_given_the_gray_that_it_knows(
    run, reference_data: pathlib.Path, capsys
) -> None:
    """Its preprocessing takes L* of Lab; the middle gray is 137 there, not 128."""
    folder = reference_data / "reference_networks"
    weights = folder / "janspiry_small_Network.pth"
    assert run("import", weights, "--out=run", "--task=colorize", *SMALL) == 0
    assert "data.gray=lightness" in capsys.readouterr().out
    given = []
    restorer = load_restorer("run")
    restorer._sample = lambda works, *_: (
        given.extend(works) or [np.zeros((16, 16, 3), np.uint8) for _ in works]
    )
    settings = Settings("colorize", num_steps=1)
    photo = np.full((16, 16, 3), 128, np.uint8)
    restorer.restore(photo, settings)
    assert set(given[0].canvas.whole.x.ravel()) == {137}
    # Training on learns to colour the same gray.
    spec = importlib.util.spec_from_file_location("imported", "run/config.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config("tiny").data.gray == "lightness"


def test_what_was_assumed_is_told(run, tmp_path, capsys) -> None:
    folder = _write_folder(tmp_path / "model")
    assert run("import", "model", "--out=alone") == 0
    said = capsys.readouterr().out
    assert "assumed, without a scheduler file" in said
    config = json.loads((folder / "config.json").read_text())
    assert "attention_head_dim" in config
    del config["flip_sin_to_cos"]
    (folder / "config.json").write_text(json.dumps(config))
    # A whole pipeline says what its network predicts, or is refused.
    (tmp_path / "pipeline").mkdir()
    folder.rename(tmp_path / "pipeline" / "unet")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert run("import", "pipeline", "--out=without") == 1
    assert "expected scheduler/scheduler_config.json" in capsys.readouterr().err
    (tmp_path / "pipeline" / "scheduler").mkdir()
    scheduler = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    scheduler.write_text("{}")
    assert run("import", "pipeline", "--out=classless") == 1
    assert "expected a scheduler out of" in capsys.readouterr().err
    scheduler.write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    assert run("import", "pipeline", "--out=whole") == 0
    said = capsys.readouterr().out
    assert "DDIMScheduler" in said and "prediction_type" in said
    assert "flip_sin_to_cos" in said


def test_a_diffusers_folder_goes_in_and_comes_out_and_in(run, tmp_path, capsys) -> None:
    _write_folder(tmp_path / "model")
    assert run("import", "model", "--out=first") == 0
    first = _restored(run, "first")
    assert run("export", "first", "--out=deep/w.safetensors") == 0
    assert run("import", "deep/w.safetensors", "--out=second") == 0
    np.testing.assert_array_equal(_restored(run, "second"), first)
    # What is there already stays as it is.
    assert run("export", "second", "--out=deep/w.safetensors") == 1
    assert run("import", "model", "--out=first") == 1
    said = capsys.readouterr().err
    assert "which exists" in said and "got first, which is not empty" in said
    # Nor is a stranger's folder written to.
    assert run("import", "model", "--out=.") == 1
    assert not pathlib.Path("config.py").exists()


def test_the_averaged_weights_of_a_run_are_exported(run, tmp_path) -> None:
    save_run(tmp_path / "trained")
    assert run("export", "trained", "--out=w.safetensors") == 0
    exported = safetensors.numpy.load_file("w.safetensors")
    config, params, _ = load_weights("trained")
    assert len(exported) == len(jax.tree.leaves(params))
    kernel = params["middle_0"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(exported["middle_0/conv_in/kernel"], kernel)
    # And with its config, all of its tasks, they come back.
    assert run("import", "w.safetensors", "--out=back") == 0
    again, _, _ = load_weights("back")
    assert again.to_dict() == config.to_dict()
    assert task_names(again) == ["colorize", "inpaint", "uncrop", "jpeg"]
    assert run("export", "trained", "--out=w.bin") == 1


def test_an_export_does_not_tell_where_the_pictures_lay(run, tmp_path) -> None:
    places = {"folder": "/home/me/secret", "tfds_dir": "/secret", "eval_list": "secret"}
    save_run(tmp_path / "trained", data={"source": "folder", **places})
    assert run("export", "trained", "--out=w.safetensors") == 0
    assert b"secret" not in pathlib.Path("w.safetensors").read_bytes()
    # The file is as good as any, and still checked.
    assert run("import", "w.safetensors", "--out=back") == 0
    assert run("import", "w.safetensors", "--out=odd", "--image-size=7") == 1
    assert not pathlib.Path("odd/config.py").exists()


def test_training_can_go_on_at_another_size_and_task(run, tmp_path, capsys) -> None:
    """The weights stay, and attention with them at its level."""
    save_run(tmp_path / "trained", attn_resolutions=(4,))
    assert run("export", "trained", "--out=w.safetensors") == 0
    before, params, _ = load_weights("trained")
    flags = ("--image-size=16", "--task=inpaint")
    assert run("import", "w.safetensors", "--out=large", *flags) == 0
    after, same, _ = load_weights("large")
    assert task_names(before) != task_names(after) == ["inpaint"]
    assert (before.data.image_size, after.data.image_size) == (8, 16)
    assert after.model.attn_resolutions == (8,)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    _restored(run, "large")
    for size, said in (
        ("9", "expected data.image_size to be a multiple of 2"),
        ("0", "from 1 to 65,536 for --image-size, got '0'"),
    ):
        assert run("import", "w.safetensors", "--out=odd", f"--image-size={size}") == 1
        assert said in capsys.readouterr().err
        assert not pathlib.Path("odd").exists()


def test_the_advice_of_a_run_that_is_refused_on_resume_works(
    run, tmp_path, caplog
) -> None:
    """The old values, another folder, or the weights by export and import."""
    save_run(tmp_path / "trained")
    old = from_dict(checkpoints.load_config(tmp_path / "trained" / "checkpoints"))
    new = from_dict(old.to_dict()).unlock()
    new.task, new.data.image_size = "inpaint", 16
    with pytest.raises(UserError) as refused:
        identity.check_resume(old, new, "trained")
    said = str(refused.value)
    changes = dict(re.findall(r"([\w.]+): expected (.+?), got", said))
    assert changes.keys() == {"data.image_size", "tasks"}
    # The old values are those that the error names.
    back = from_dict(new.to_dict()).unlock()
    back.data.image_size, back.task = int(changes["data.image_size"]), "multitask"
    assert changes["tasks"] == str(tuple(task_names(back)))
    identity.check_resume(old, back, "trained")
    assert "another --workdir" in said and not checkpoints.load_about(tmp_path / "new")
    assert "`palette-jax export`" in said and "`palette-jax import`" in said
    assert run("export", "trained", "--out=w.safetensors") == 0
    flags = ("--image-size=16", "--task=inpaint")
    assert run("import", "w.safetensors", "--out=other", *flags) == 0
    begun = from_dict(checkpoints.load_config(tmp_path / "other" / "checkpoints"))
    tiny = flags_of.load("other/config.py:tiny")
    tiny.train.batch_size *= 2
    assert identity.check_resume(begun, tiny, "other")
    # Nothing was trained with the values that changed: none is listed.
    with caplog.at_level("INFO", logger="absl"):
        train._identify(tiny, epath.Path("other/checkpoints"))
    assert "training starts from the weights that were imported" in caplog.text
    assert "changed since" not in caplog.text


def test_the_advice_for_another_network_works(tmp_path) -> None:
    save_run(tmp_path / "trained")
    directory = tmp_path / "trained" / "checkpoints"
    config = from_dict(checkpoints.load_config(directory)).unlock()
    wrong = from_dict(config.to_dict()).unlock()
    wrong.model.base_features = 16

    def restore(config: ml_collections.ConfigDict) -> int:
        shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
        return checkpoints.restore_params(directory, shapes)[1]

    with pytest.raises(UserError, match="use the config it was trained with"):
        restore(wrong)
    assert restore(config) == 0


@pytest.mark.slow
def test_training_goes_on_from_what_was_imported(run, main, tmp_path) -> None:
    _write_folder(tmp_path / "model")
    assert run("import", "model", "--out=run", "--task=colorize") == 0
    _, before, step = load_weights("run")
    assert step == 0
    done = main(
        "--config=run/config.py:tiny",
        "--workdir=run",
        "--config.train.num_steps=1",
        "--config.train.batch_size=4",
        "--config.eval.batch_size=4",
        "--config.data.num_eval=4",
        "--config.sample.num_steps=1",
        folder=tmp_path,
    )
    assert done.code == 0, done.output
    assert "changed since" not in done.output
    assert "training starts from the weights that were imported" in done.output
    assert "resuming from step 0" in done.output
    config, after, step = load_weights("run")
    assert (step, config.task, config.diffusion.objective) == (1, "colorize", "denoise")
    # The source was given no weight; its first step gives it some.
    kernels = [tree["conv_in"]["kernel"][:, :, :3] for tree in (before, after)]
    assert not np.any(kernels[0]) and np.any(kernels[1])


def test_a_wrong_file_is_one_line_that_says_what_was_found(
    run, tmp_path, capsys
) -> None:
    def error(*args: object) -> str:
        assert run("import", *args, "--out=run") == 1
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
        assert not said.out and not pathlib.Path("run").exists()
        return said.err

    state = {"time_embed.0.weight": np.ones((128, 32), np.float32)}
    state["input_blocks.0.0.weight"] = np.ones((32, 3, 3, 3), np.float32)
    labels = np.ones((10, 128), np.float32)
    write_torch(tmp_path / "classes.pt", state | {"label_emb.weight": labels})
    assert "10 classes (label_emb)" in error("classes.pt")
    whole = (tmp_path / "classes.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in error("cut.pt")
    write_torch(tmp_path / "evil.pth", {"a": Global("os", "system", "touch harmed")})
    assert "os.system" in error("evil.pth")
    assert not pathlib.Path("harmed").exists()
    write_torch(tmp_path / "other.pt", {"encoder.weight": np.ones(3, np.float32)})
    said = error("other.pt")
    assert "encoder.weight" in said
    for layout in ("guided-diffusion", "Janspiry", "UNet2DModel"):
        assert layout in said
    assert "nothing there" in error("missing.pt")


@pytest.mark.parametrize("task", ["colorize", "uncrop", "paired"])
def test_the_task_is_in_the_config_of_the_run(task: str) -> None:
    imported = {"model": {"base_features": 32}, "data": {"image_size": 64}}
    config = make_config(imported, task)
    assert task_names(config) == [task]
    if task == "paired":
        config.data.input_folder = config.data.target_folder = "folder"
    build.check(config)
    assert config.model.base_features == 32 and config.data.image_size == 64
    back = from_dict(json.loads(json.dumps(config.to_dict())))
    assert make_config(back.to_dict(), None).task == task
    with pytest.raises(UserError, match="configuration with the keys"):
        make_config({"model": {"depth": 3}}, None)
    with pytest.raises(UserError, match="the config of a run of this version"):
        make_config({"task": task}, None)
