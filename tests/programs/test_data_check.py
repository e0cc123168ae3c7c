"""`palette-jax data check`: each way in which a folder is not what it seems."""

import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from palette_jax.data import sources
from palette_jax.data.pictures import diagnose
from tests.programs.untrained import command


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Eight pictures of different bytes."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(8):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def _check(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
    *args: object,
) -> tuple[int, list[str]]:
    status = command(monkeypatch, "data", "check", folder, "--num-eval=3", *args)
    return status, [line.strip() for line in capsys.readouterr().out.splitlines()]


def _split(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    train, held_out = sources.hold_out(sources.folder(str(folder)), 3)
    return train.names.tolist(), held_out.names.tolist()


def test_a_folder_of_different_pictures_has_no_findings(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
) -> None:
    status, lines = _check(monkeypatch, capsys, folder)
    assert status == 0
    assert lines[0] == "8 files, of which training uses 8"


def test_each_picture_that_training_leaves_out_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
) -> None:
    (folder / "a.heic").write_bytes(b"no matter")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    Image.new("RGB", (31, 90)).save(folder / "thin.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "0.png", folder / ".hidden" / "0.png")
    status, lines = _check(monkeypatch, capsys, folder)
    assert status == 1
    assert lines[0] == "12 files, of which training uses 8"
    assert "a.heic" in lines[lines.index("skipped by extension: 1") + 1]
    start = lines.index("skipped: 3") + 1
    reasons = dict(line.split(": ", 1) for line in lines[start : start + 3])
    assert reasons.keys() == {"broken.jpg", "dangling.png", "thin.png"}
    assert reasons["thin.png"] == "too small: 31 x 90, need 32"
    source = sources.folder(str(folder))
    assert source.identity()["pictures"] == 11
    for name, reason in reasons.items():  # As a run says it.
        assert diagnose(source, source.names.tolist().index(name), 32) == reason


@pytest.mark.skipif(sys.platform == "darwin", reason="file names there are UTF-8")
def test_a_name_that_is_not_utf8_leaves_the_others_to_train_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
) -> None:
    os.rename(folder / "0.png", os.fsencode(folder) + b"/\xff.png")
    status, lines = _check(monkeypatch, capsys, folder)
    assert status == 1
    assert lines[0] == "8 files, of which training uses 7"
    assert r"\udcff.png" in lines
    source = sources.folder(str(folder))
    assert source.identity()["pictures"] == len(_split(folder)[0]) + 3 == 7


def test_equal_bytes_are_told_and_those_across_the_split_as_such(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
) -> None:
    train, held_out = _split(folder)
    shutil.copy(folder / train[0], folder / held_out[0])
    shutil.copy(folder / train[1], folder / train[2])
    assert _split(folder) == (train, held_out)
    status, lines = _check(monkeypatch, capsys, folder)
    assert status == 1
    across = lines[lines.index("equal bytes in training and held out: 1") + 1]
    assert sorted(across.replace(" (held out)", "").split(" = ")) == sorted(
        [train[0], held_out[0]]
    )
    assert f"{held_out[0]} (held out)" in across
    assert lines[lines.index("equal bytes: 1") + 1] == f"{train[2]} = {train[1]}"


def test_masks_are_paired_and_shown_on_the_pictures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    left = np.zeros((40, 48), np.uint8)
    left[:, :24] = 255
    for index in range(6):  # 6 and 7 have none.
        Image.fromarray(left).save(masks / f"{index}.png")
    Image.new("L", (48, 40)).save(masks / "5.png")  # It covers nothing.
    Image.fromarray(left).save(masks / "9.png")
    (masks / "4.png").rename(masks / "4.bmp.png")
    out = tmp_path / "sheet.png"
    status, lines = _check(
        monkeypatch, capsys, folder, f"--masks={masks}", f"--out={out}"
    )
    assert status == 1
    assert "5 pictures have a mask" in lines
    for name in ("4", "6", "7"):
        assert f"{name}.png: no mask" in lines
    for other in ("9.png", "4.bmp.png"):
        assert f"{other}: a mask without a picture" in lines
    assert any(line.startswith("5.png: ") and "nothing" in line for line in lines)
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet, np.float32)
    # Row one: the findings 4 to 7 (5 covers nothing), then the pairs 0 and 1.
    tile = pixels[:128, 4 * 130 : 4 * 130 + 128]
    hole, kept = tile[:, :56], tile[:, 72:]
    assert hole[..., 0].mean() > 180 > 90 > hole[..., 1].mean()
    assert abs(kept[..., 0].mean() - 127) < 20
