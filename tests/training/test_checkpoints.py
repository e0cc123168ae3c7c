"""Checkpoints: what comes back, what is never offered, and what is said of it."""

import json
import pathlib
import random
import resource
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from etils import epath

from palette_jax import parallel
from palette_jax.training import checkpoints, manifest
from palette_jax.training.checkpoint_writer import CheckpointWriter
from palette_jax.training.state import TrainState

LAYERS = ("conv_in", "conv_out")


def _state(step: int, *, width: int = 8) -> TrainState:
    rng = np.random.default_rng(step)
    params = {
        name: {
            "kernel": jnp.asarray(rng.normal(size=(width, 12)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=12), jnp.float32),
        }
        for name in LAYERS
    }
    return TrainState(
        step=jnp.int32(step),
        params=params,
        ema_params=jax.tree.map(lambda leaf: leaf / 2, params),
        opt_state=(params, jnp.int32(step)),
        bad_steps=jnp.int32(0),
    )


ABSTRACT = jax.eval_shape(lambda: _state(0))


def _write(directory: pathlib.Path, losses: dict[int, float | None], **options: Any):
    with CheckpointWriter(directory, **options) as writer:
        for step, loss in losses.items():
            writer.save(_state(step), {"step": step}, loss)


def _restore(directory: pathlib.Path) -> TrainState | None:
    with CheckpointWriter(directory):  # Removes what was never finished.
        return checkpoints.restore(directory, ABSTRACT)


def _assert_is(state: TrainState | None, step: int) -> None:
    assert state is not None
    jax.tree.map(np.testing.assert_array_equal, state, _state(step))


def _files(step_dir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that a manifest names: all but those of the commit."""
    names = json.loads((step_dir / "manifest.json").read_text())["files"]
    return [step_dir / name for name in names]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def two_steps(tmp_path: pathlib.Path) -> pathlib.Path:
    _write(tmp_path, {1: 1.0, 2: 1.0})
    return tmp_path


def test_what_is_restored_is_what_was_saved(two_steps: pathlib.Path) -> None:
    _assert_is(_restore(two_steps), 2)
    assert checkpoints.load_config(two_steps) == {"step": 2}
    assert checkpoints.verify(two_steps) == [(2, None), (1, None)]
    params, step = checkpoints.restore_params(two_steps, ABSTRACT.params)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, params, _state(2).ema_params)


def test_nothing_is_restored_from_nothing(tmp_path: pathlib.Path) -> None:
    assert _restore(tmp_path / "new") is None
    with pytest.raises(checkpoints.CheckpointError, match="train first"):
        checkpoints.load_config(tmp_path / "new")
    with pytest.raises(checkpoints.CheckpointError, match="train first"):
        checkpoints.restore_params(tmp_path / "new", ABSTRACT.params)


def test_every_one_of_40_flipped_bits_is_found_and_named(
    two_steps: pathlib.Path,
) -> None:
    draw, files = random.Random(0), _files(two_steps / "2")
    there = {path for path in (two_steps / "2").rglob("*") if path.is_file()}
    later = {"manifest.json", "commit_success.txt", "_CHECKPOINT_METADATA"}
    assert {path.name for path in there - set(files)} <= later  # None is left out.
    assert len(files) > 8
    for n in range(40):
        path = files[n % len(files)]
        whole = path.read_bytes()
        damaged, bit = bytearray(whole), draw.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        (_, found), (_, other) = checkpoints.verify(two_steps)
        assert found == f"{path.relative_to(two_steps / '2')} is damaged"
        assert other is None
        path.write_bytes(whole)
    assert checkpoints.verify(two_steps) == [(2, None), (1, None)]


@pytest.mark.parametrize("what", ["flipped", "missing", "manifest", "short"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    two_steps: pathlib.Path, said: pytest.LogCaptureFixture, what: str
) -> None:
    path = max(_files(two_steps / "2"), key=lambda path: path.stat().st_size)
    if what == "manifest":
        path = two_steps / "2" / "manifest.json"
    whole = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "short":
        path.write_bytes(whole[:-1])
    else:
        middle = len(whole) // 2
        changed = bytes([whole[middle] ^ 1])
        path.write_bytes(whole[:middle] + changed + whole[middle + 1 :])
    _assert_is(_restore(two_steps), 1)
    assert checkpoints.restore_params(two_steps, ABSTRACT.params)[1] == 1
    for record in said.records[-2:]:
        message = record.getMessage()
        assert path.name in message and "going back to the one before" in message


def test_a_checkpoint_without_its_manifest_is_taken_and_told(
    two_steps: pathlib.Path, said: pytest.LogCaptureFixture
) -> None:
    (two_steps / "2" / "manifest.json").unlink()
    for restore in (
        lambda: _assert_is(_restore(two_steps), 2),
        lambda: checkpoints.restore_params(two_steps, ABSTRACT.params),
        lambda: checkpoints.restore_step(two_steps, 2, ABSTRACT),
    ):
        said.clear()
        restore()
        (message,) = {record.getMessage() for record in said.records}
        assert "no manifest.json to check its files by" in message


def test_a_config_that_is_damaged_is_not_read(two_steps: pathlib.Path) -> None:
    path = two_steps / "2" / "config" / "metadata"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    assert checkpoints.load_config(two_steps) == {"step": 1}


def test_damaged_weights_do_not_hide_the_config(two_steps: pathlib.Path) -> None:
    path = max(_files(two_steps / "2"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoints.load_config(two_steps) == {"step": 2}


def test_damage_everywhere_is_an_error(two_steps: pathlib.Path) -> None:
    for step in ("1", "2"):
        path = max(_files(two_steps / step), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(checkpoints.CheckpointError, match="only damaged ones"):
        _restore(two_steps)
    with pytest.raises(checkpoints.CheckpointError, match="only damaged ones"):
        checkpoints.restore_params(two_steps, ABSTRACT.params)
    with pytest.raises(checkpoints.CheckpointError, match="expected a sound"):
        checkpoints.restore_step(two_steps, 2, ABSTRACT)


def test_a_damaged_checkpoint_is_replaced_when_the_run_comes_to_its_step(
    tmp_path: pathlib.Path,
) -> None:
    _write(tmp_path, {1: 1.0, 2: 1.0, 8: 1.0})
    path = max(_files(tmp_path / "8"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    # Until then it does not count as one of those to keep.
    _write(tmp_path, {3: 2.0, 4: 2.0}, keep=2)
    assert manifest.committed_steps(tmp_path)[:3] == [8, 4, 3]
    _assert_is(_restore(tmp_path), 4)
    with CheckpointWriter(tmp_path, keep=2) as writer:
        writer.save(_state(8), {}, 1.0)
        assert 4 in manifest.committed_steps(tmp_path)  # Until 8 is written.
    assert dict(checkpoints.verify(tmp_path))[8] is None
    _assert_is(_restore(tmp_path), 8)


def test_what_was_not_finished_is_not_offered_and_goes_away(
    two_steps: pathlib.Path,
) -> None:
    _write(two_steps, {3: 1.0, 4: 1.0}, keep=9)
    # Killed while it was written; killed while it was deleted.
    (two_steps / "4").rename(two_steps / "4.orbax-checkpoint-tmp")
    (two_steps / "3" / "commit_success.txt").unlink()
    (two_steps / "3" / "state" / "manifest.ocdbt").unlink()
    assert manifest.committed_steps(two_steps) == [2, 1]
    assert checkpoints.verify(two_steps) == [(2, None), (1, None)]
    assert checkpoints.load_config(two_steps) == {"step": 2}
    assert checkpoints.restore_params(two_steps, ABSTRACT.params)[1] == 2
    _assert_is(_restore(two_steps), 2)
    assert sorted(path.name for path in two_steps.iterdir()) == ["1", "2"]


def test_deleting_begins_with_what_makes_a_checkpoint_one(
    two_steps: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_dir = epath.Path(two_steps / "1")

    def killed(self: Any, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(step_dir), "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        manifest.delete(step_dir)
    assert manifest.committed_steps(two_steps) == [2]


def test_the_newest_and_the_best_are_kept(tmp_path: pathlib.Path) -> None:
    losses = {8: 5.0, 9: 1.0, 10: 4.0, 11: float("nan"), 12: None}
    for step, loss in losses.items():
        # Opened anew each time: what is best is known after a restart too.
        _write(tmp_path, {step: loss}, keep=2)
    assert manifest.committed_steps(tmp_path) == [12, 11, 9]
    _write(tmp_path, {13: 0.5, 14: 3.0, 15: 3.0}, keep=1)
    assert manifest.committed_steps(tmp_path) == [15, 13]
    (tmp_path / "15" / "metrics" / "metrics").unlink()  # Its loss is unknown.
    _write(tmp_path, {16: 9.0, 17: 9.0}, keep=1)
    assert manifest.committed_steps(tmp_path) == [17, 13]


def test_room_is_made_before_a_checkpoint_is_written(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, {1: 1.0, 2: 2.0, 3: 2.0}, keep=3)
    with CheckpointWriter(tmp_path, keep=3) as writer:
        writer.save(_state(4), {}, 3.0)
        # The best, and the newest that stay.
        assert set(manifest.committed_steps(tmp_path)) - {4} == {3, 2, 1}
        writer.save(_state(5), {}, 3.0)
        assert set(manifest.committed_steps(tmp_path)) - {5} == {4, 3, 1}


def test_another_network_is_an_error_that_names_the_leaves(
    two_steps: pathlib.Path,
) -> None:
    other = jax.eval_shape(lambda: _state(0, width=9))
    other.params["extra"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    pattern = r"params/conv_in/kernel: expected \(9, 12\), got \(8, 12\).*extra.*none"
    with pytest.raises(checkpoints.CheckpointError, match=pattern):
        checkpoints.restore_params(two_steps, other.params)
    with pytest.raises(checkpoints.CheckpointError, match="another network"):
        checkpoints.restore(two_steps, other)


def test_a_checkpoint_of_before_there_were_manifests_is_still_read(
    two_steps: pathlib.Path,
) -> None:
    (two_steps / "2" / "manifest.json").unlink()
    (_, found), _ = checkpoints.verify(two_steps)
    assert found is not None and "no manifest.json" in found
    _assert_is(_restore(two_steps), 2)
    (two_steps / "2" / "state" / "manifest.ocdbt").unlink()
    _assert_is(_restore(two_steps), 1)


def test_a_full_disk_is_said_and_costs_no_finished_checkpoint(
    two_steps: pathlib.Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = CheckpointWriter(two_steps)
    big = jax.tree.map(lambda leaf: leaf, _state(3))
    big.params["big"] = jax.random.normal(jax.random.key(0), (1 << 18,))
    # A limit on the size of a file fails a write as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))
    try:
        with pytest.raises(checkpoints.CheckpointError, match="step 2 is the last"):
            writer.save(big, {}, 1.0)
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    _assert_is(_restore(two_steps), 2)


def test_sharded_and_whole_are_the_same_checkpoint(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MIN_SHARDED", 1)
    layouts = [(4, 1), (4, 4), (1, 1), (4, 2), (2, 2)]  # Devices, fsdp.
    state, meshes = _state(1), {}
    for devices, fsdp in layouts:
        mesh = parallel.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
        meshes[devices, fsdp] = parallel.param_shardings(mesh, state)
    for step, layout in enumerate(layouts, start=1):
        shardings = meshes[layout]
        placed = jax.device_put(state.replace(step=jnp.int32(step)), shardings)
        with CheckpointWriter(tmp_path) as writer:
            writer.save(placed, {}, None)
        abstract = parallel.with_shardings(ABSTRACT, meshes[layouts[step % 5]])
        restored = checkpoints.restore(tmp_path, abstract)
        assert restored is not None and int(restored.step) == step
        for leaf, asked in zip(
            jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True
        ):
            assert leaf.sharding == asked.sharding
        jax.tree.map(
            np.testing.assert_array_equal, restored.replace(step=state.step), state
        )
