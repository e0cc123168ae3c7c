"""`palette-jax compare`: two methods on the same pictures."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palette_jax.evaluation.differences import differences
from tests.programs import fake_networks
from tests.programs.untrained import command

COUNT, SIDE = 12, 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Originals of very different difficulty; B's error is always a little smaller."""
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        photo = rng.integers(60, 180, 3) + rng.integers(-20, 20, (SIDE, SIDE, 3))
        error = 4 + 3 * index
        for name, shift in (("originals", 0), ("a", error + 1), ("b", error)):
            path = folder / name / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((photo + shift).astype(np.uint8)).save(path)
    return folder


def _compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *args: object
) -> dict[str, Any]:
    assert command(monkeypatch, "compare", *args, "--json") == 0
    return json.loads(capsys.readouterr().out)[""]


def test_a_small_difference_on_each_picture_is_seen(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folders: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    fake_networks.install(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    options = (f"--reference={folders / 'originals'}", f"--out={tmp_path / 'out'}")
    sides = (folders / "a", folders / "b")
    found = _compare(monkeypatch, capsys, *sides, *options)
    low, high = found["PSNR"]["interval"]
    assert 0 < low < found["PSNR"]["second"] - found["PSNR"]["first"] < high
    assert found["PSNR"]["wins"] == 1 == found["LPIPS"]["wins"]
    # The fake distance is the mean difference: one less on every picture.
    np.testing.assert_allclose(found["LPIPS"]["interval"], (-1, -1), atol=1e-4)
    assert found["FID"]["interval"] is None and found["KID"]["interval"]
    # Each alone is much less sure than their difference.
    alone = json.loads((tmp_path / "out" / "A" / "table.json").read_text())
    own = alone["intervals"]["a"]["PSNR"]
    assert own[1] - own[0] > 5 * (high - low)

    # The other way round, from what was evaluated, the signs are turned.
    evaluated = (tmp_path / "out" / "B", tmp_path / "out" / "A")
    turned = _compare(monkeypatch, capsys, *evaluated)
    assert turned["PSNR"]["wins"] == 0
    np.testing.assert_allclose(turned["PSNR"]["interval"], (-high, -low), atol=0.02)
    assert command(monkeypatch, "compare", *evaluated) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("PSNR"))
    assert line.split()[-2:] == ["A", "0%"] and f"{COUNT} pictures" in said


def test_equal_results_differ_by_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folders: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    fake_networks.install(monkeypatch)
    options = (f"--reference={folders / 'originals'}", f"--out={tmp_path / 'out'}")
    found = _compare(monkeypatch, capsys, folders / "a", folders / "a", *options)
    for title, of in found.items():
        assert of["first"] == of["second"]
        assert of["interval"] in (None, [0, 0]), title
        assert of["wins"] in (None, 0)


@pytest.mark.parametrize("case", ["no table", "other pictures", "another size", "old"])
def test_what_does_not_compare_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    folders: pathlib.Path,
    tmp_path: pathlib.Path,
    case: str,
) -> None:
    fake_networks.install(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    sides = [tmp_path / "A", tmp_path / "B"]
    originals = folders / "originals"
    for side, name in zip(sides, ("a", "b"), strict=True):
        size = "--size=20" if case == "another size" and name == "b" else "--size=40"
        args = (folders / name, f"--reference={originals}", size, f"--out={side}")
        assert command(monkeypatch, "evaluate", *args) == 0
    path = sides[1] / "table.json"
    table = json.loads(path.read_text())
    if case == "no table":
        sides[1], says = folders / "b", "add --reference=DIR"
    elif case == "other pictures":
        del table["each"]["3"]
        says = "1 in one of them only: 3"
    elif case == "old":
        del table["each"]
        says = "evaluate again"
    else:
        says = "another resize, reference"
    path.write_text(json.dumps(table))
    capsys.readouterr()
    assert command(monkeypatch, "compare", *sides) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error


@pytest.mark.parametrize(
    ("title", "by", "better", "wins"),
    [
        ("PSNR", 1, "B", 1),
        ("PSNR", -1, "A", 0),
        ("LPIPS", 1, "A", 0),
        ("LPIPS", -1, "B", 1),
        ("PSNR", 0, "", 0),
    ],
)
def test_pictures_are_paired_by_their_names_and_not_by_their_places(
    title: str, by: float, better: str, wins: float
) -> None:
    def found(each: dict[str, float]) -> dict[str, Any]:
        of_each = {name: {title: value} for name, value in each.items()}
        mean = float(np.mean(list(each.values())))
        # Such as the accuracy of a picture without a class.
        of_each["unknown.png"] = {}
        return {"rows": {"r": {title: mean}}, "main": "r", "each": of_each}

    one = {f"{i}.png": 10.0 * i for i in range(5)}
    two = {name: value + by for name, value in reversed(one.items())}
    of = differences(found(one), found(two))[title]
    assert of.interval == (by, by) and of.wins == wins
    assert of.better(title) == better
