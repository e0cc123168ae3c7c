"""`palette-jax evaluate`, as a user runs it on pictures of another program."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palette_jax.evaluation import references
from palette_jax.evaluation.metrics import frechet, weight_files
from palette_jax.pictures import resize
from tests.programs import fake_networks
from tests.programs.test_restore import WITHOUT_TENSORFLOW
from tests.programs.untrained import command

COUNT, SIDE, SHIFT = 12, 40, 7


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Pictures of even brightness that differ, two of them in a folder below."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        color = rng.integers(40, 190, 3)
        pixels = color + rng.integers(-20, 20, (SIDE, SIDE, 3))
        _save(folder / ("deep" if index < 2 else "") / f"{index}.png", pixels)
    return folder


@pytest.fixture
def shifted(originals: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The same pictures, brighter by SHIFT."""
    for path in originals.rglob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(int) + SHIFT
        _save(tmp_path / "shifted" / path.relative_to(originals), pixels)
    return tmp_path / "shifted"


def _save(path: pathlib.Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _evaluate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, *args: object
) -> dict[str, Any]:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command(monkeypatch, "evaluate", *args, "--out", tmp_path / "out") == 0
    return json.loads((tmp_path / "out" / "table.json").read_text())


def test_a_known_shift_has_the_distances_that_theory_gives(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    shifted: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    fake_networks.install(monkeypatch)
    found = _evaluate(monkeypatch, tmp_path, shifted, "--reference", originals)
    first, results = found["rows"].values()
    assert list(found["rows"]) == ["original pictures", "shifted"]
    # Equal covariances: what is left is the distance of the means.
    assert first["FID"] == 0 and first["PD"] == 0
    assert results["FID"] == pytest.approx(3 * SHIFT**2, rel=1e-4)
    assert results["FID-64"] == pytest.approx(3 * SHIFT**2, rel=1e-4)
    assert results["PD"] == pytest.approx(np.sqrt(3) * SHIFT, rel=1e-4)
    assert results["LPIPS"] == pytest.approx(SHIFT, rel=1e-4)
    assert results["PSNR"] == pytest.approx(20 * np.log10(255 / SHIFT))
    assert found["protocol"]["pictures"] == COUNT
    assert found["protocol"]["weights"]["inception"] == fake_networks.SHA256
    said = capsys.readouterr().out
    assert "FID of 12 pictures is only a trend" in said and "10,000" in said
    assert said.index("original pictures") < said.index("\nshifted")
    assert f"sha256 {fake_networks.SHA256}" in said
    for what in ("crop: none", "resize: none", "quantisation: 8 bits", "hash "):
        assert what in said
    assert found["paper"] is None and "the paper's own" not in said


def test_a_set_against_itself_is_at_zero_and_at_no_negative_distance(
    monkeypatch: pytest.MonkeyPatch, originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    fake_networks.install(monkeypatch)
    found = _evaluate(monkeypatch, tmp_path, originals, "--reference", originals)
    for values in found["rows"].values():
        assert values["FID"] == 0 and values["FID-64"] == 0
    itself = found["rows"][originals.name]
    assert itself["LPIPS"] == 0 and itself["SSIM"] == pytest.approx(1)


def test_a_list_chooses_pictures_and_names_their_classes(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    shifted: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    fake_networks.install(monkeypatch)
    # The fake classifier says the mean red: right for the originals of the list.
    lines = []
    for name in ("deep/0.png", "3.png", "4.png", "5.png"):
        red = np.asarray(Image.open(originals / name))[..., 0].mean()
        lines.append(f"/{name} {round(float(red))}")
    (shifted / "7.png").unlink()  # Not in the list, so nobody misses it.
    (tmp_path / "list.txt").write_text("\n".join(lines))
    args = (shifted, "--reference", originals, "--list", tmp_path / "list.txt")
    found = _evaluate(monkeypatch, tmp_path, *args)
    first, results = found["rows"].values()
    assert found["protocol"]["pictures"] == 4
    assert first["CA"] == 100 and results["CA"] == 0
    # The whole folder is what distances refer to, as in the paper's protocol.
    assert found["protocol"]["reference"]["pictures"] == COUNT
    assert first["FID"] > 0
    cached = list((tmp_path / ".cache/palette_jax/statistics").glob("*.npz"))
    assert [p.stem for p in cached] == [found["protocol"]["reference"]["hash"]]
    assert _evaluate(monkeypatch, tmp_path, *args) == found


def test_results_of_another_format_and_size_are_cut_alike(
    monkeypatch: pytest.MonkeyPatch, originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in originals.rglob("*.png"):
        target = tmp_path / "jpeg" / path.relative_to(originals).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((SIDE * 2, SIDE)).save(target, quality=95)
    args = (tmp_path / "jpeg", "--reference", originals, "--size=16")
    found = _evaluate(monkeypatch, tmp_path, *args)
    assert found["rows"]["jpeg"]["PSNR"] > 20
    assert "16 x 16" in found["protocol"]["resize"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 9  # Best, median and worst.
    assert "http://" not in page and 'src="' in page


def test_intervals_and_single_pictures_are_told(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    fake_networks.install(monkeypatch)
    for index, path in enumerate(sorted(originals.rglob("*.png"))):
        pixels = np.asarray(Image.open(path)).astype(int) + 1 + index
        _save(tmp_path / "results" / path.relative_to(originals), pixels)
    args = (tmp_path / "results", "--reference", originals)
    found = _evaluate(monkeypatch, tmp_path, *args)
    name = "results"
    low, high = found["intervals"][name]["LPIPS"]  # Of 1, 2, ... 12.
    assert found["rows"][name]["LPIPS"] == pytest.approx(6.5, abs=1e-4)
    assert low < 6.5 < high
    # As wide as Student's.
    half = 2.201 * np.std(np.arange(1, 13), ddof=1) / np.sqrt(12)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    each = [values["LPIPS"] for values in found["each"].values()]
    assert sorted(each) == pytest.approx(list(range(1, 13)), abs=1e-4)
    assert list(found["each"]) == sorted(found["each"])
    assert "FID" not in found["intervals"][name]
    assert found["rows"]["original pictures"]["KID"] == pytest.approx(0, abs=1e-6)
    assert found["rows"][name]["KID"] > 0
    said = capsys.readouterr().out
    assert "LPIPS 4." in said and "protocol paper" in said


@pytest.mark.parametrize("protocol", ["paper", "i2sb", "clean-fid"])
def test_a_protocol_is_stated_beside_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    shifted: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    protocol: str,
) -> None:
    for path in shifted.rglob("*.png"):  # The crops differ where pictures are wide.
        with Image.open(path) as photo:
            photo.resize((SIDE + 21, SIDE)).save(path)
    args = (shifted, "--reference", originals, "--size=16", f"--protocol={protocol}")
    found = _evaluate(monkeypatch, tmp_path, *args)
    assert found["protocol"]["name"] == protocol
    assert f"protocol {protocol}" in capsys.readouterr().out
    assert f"{protocol} (FID as" in (tmp_path / "out" / "report.html").read_text()
    is_torchvision = protocol == "i2sb"
    assert ("torchvision" in found["protocol"]["resize"]) == is_torchvision
    square = resize.torchvision_square if is_torchvision else resize.center_square
    pair = [np.asarray(Image.open(folder / "5.png")) for folder in (shifted, originals)]
    first, second = (square(pixels, 16).astype(float) for pixels in pair)
    expected = 10 * np.log10(255**2 / np.mean((first - second) ** 2))
    assert found["each"]["5"]["PSNR"] == pytest.approx(expected, abs=1e-4)


def test_statistics_go_out_and_in(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    shifted: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    fake_networks.install(monkeypatch)
    file = tmp_path / "deep" / "statistics.npz"
    args = (shifted, "--reference", originals)
    first = _evaluate(monkeypatch, tmp_path, *args, f"--save-statistics={file}")
    means = [
        np.asarray(Image.open(path)).mean((0, 1)) for path in originals.rglob("*.png")
    ]
    with np.load(file) as arrays:
        np.testing.assert_allclose(arrays["mu"], np.mean(means, 0), rtol=1e-5)
        covariance = np.cov(means, rowvar=False)
        np.testing.assert_allclose(arrays["sigma"], covariance, rtol=1e-4, atol=1e-4)
        # The fake features are three; the file's name is that of 2048 of them.
        wide = np.zeros((2048, 2048))
        wide[:3, :3] = arrays["sigma"]
        np.savez(file, mu=np.pad(arrays["mu"] + 10, (0, 2045)), sigma=wide)
    monkeypatch.setattr(
        frechet, "read_public", lambda path: {"2048": _narrow(path), "999": None}
    )
    second = _evaluate(monkeypatch, tmp_path, *args, f"--statistics={file}")
    (_, before), (_, after) = (found["rows"].values() for found in (first, second))
    assert before["FID"] == pytest.approx(3 * SHIFT**2, rel=1e-4)
    assert after["FID"] == pytest.approx(3 * (10 - SHIFT) ** 2, rel=1e-4)
    assert "FID-64" not in after  # The file says nothing of it.
    reference = second["protocol"]["reference"]
    assert reference["pictures"] == 0
    assert reference["hash"] != first["protocol"]["reference"]["hash"]


def _narrow(path: str) -> frechet.Statistics:
    """What the file holds of the three fake features."""
    with np.load(path) as arrays:
        mean, sigma = arrays["mu"][:3], arrays["sigma"][:3, :3]
    return frechet.Statistics(2, mean, sigma)


def test_files_that_are_no_pictures_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(originals, results)
    for name in ("paper.pdf", "Thumbs.db", "notes.txt", "table.json", ".hidden.png"):
        (results / name).write_bytes(b"no picture")
    found = _evaluate(monkeypatch, tmp_path, results, "--reference", originals)
    assert found["protocol"]["pictures"] == COUNT


def test_a_torn_measurement_is_made_again(
    monkeypatch: pytest.MonkeyPatch, originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    args = (originals, "--reference", originals)
    first = _evaluate(monkeypatch, tmp_path, *args)
    for path in (tmp_path / "out" / "measured").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:200])
    assert _evaluate(monkeypatch, tmp_path, *args) == first


def test_a_measurement_with_a_hole_of_zeros_is_made_again(
    monkeypatch: pytest.MonkeyPatch, originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As a file system leaves it after a power cut: the end is there."""
    args = (originals, "--reference", originals)
    first = _evaluate(monkeypatch, tmp_path, *args)
    for path in (tmp_path / "out" / "measured").rglob("*.npz"):
        file = bytearray(path.read_bytes())
        file[30 : len(file) // 2] = bytes(len(file) // 2 - 30)
        path.write_bytes(file)
        assert zipfile.is_zipfile(path)
    assert _evaluate(monkeypatch, tmp_path, *args) == first


@pytest.mark.parametrize("change", ["other names", "other values", "fewer pictures"])
def test_a_measurement_of_another_program_is_made_again(
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    args = (originals, "--reference", originals)
    first = _evaluate(monkeypatch, tmp_path, *args)
    for path in (tmp_path / "out" / "measured").rglob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        if change == "other names":
            arrays = {f"foreign{i}": array for i, array in enumerate(arrays.values())}
        elif change == "other values":
            arrays = {n: a + 1 if a.dtype.kind == "f" else a for n, a in arrays.items()}
        else:
            arrays = {n: a[:1] if a.ndim else a for n, a in arrays.items()}
        np.savez(path, allow_pickle=False, **arrays)
    assert _evaluate(monkeypatch, tmp_path, *args) == first


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--statistics=nowhere.npz", "expected the statistics of pytorch-fid"),
        ("--given=nowhere", "a folder of pictures, got nowhere"),
        ("--size=100000", "expected a whole number from 1 to 4,096 for --size"),
        ("--save-statistics=new.npz", "Inception's weights"),
    ],
)
def test_a_wrong_flag_is_told_before_anything_is_measured(
    flag: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # Without weights.
    monkeypatch.delenv("PALETTE_JAX_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    args = ("evaluate", originals, "--reference", originals, "--out=out", flag)
    assert command(monkeypatch, *args) == 1
    shown = capsys.readouterr()
    assert said in shown.err and "measured" not in shown.out


def test_large_pictures_are_judged_a_few_at_a_time() -> None:
    assert references.batch_size(256, 256) == 64
    for height, width in ((256, 256), (2000, 3000), (10_000, 10_000), (8, 8)):
        count = references.batch_size(height, width)
        assert 1 <= count <= 64
        assert count == 1 or count * height * width <= 64 * 256 * 256


def test_what_was_given_stands_beside_the_result(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    shifted: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    args = (shifted, "--reference", originals, "--given", originals)
    _evaluate(monkeypatch, tmp_path, *args)
    page = (tmp_path / "out" / "report.html").read_text()
    first = page.index("<figcaption>given")
    assert first < page.index("<figcaption>result") < page.index("<figcaption>original")


@pytest.mark.parametrize("width", [1280, 420])
def test_the_report_fits_a_screen_and_shows_pixels_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    browser: Any,
    tmp_path: pathlib.Path,
    width: int,
) -> None:
    fake_networks.install(monkeypatch)
    rng, results = np.random.default_rng(0), tmp_path / ("long_name_" * 6)
    for index in range(10):
        pixels = rng.integers(0, 256, (70, 700, 3))
        _save(tmp_path / "wide" / f"{index}.png", pixels)
        _save(results / f"{index}.png", pixels // 2)
    _evaluate(
        monkeypatch,
        tmp_path,
        results,
        "--reference",
        tmp_path / "wide",
        "--task=jpeg-5",
    )
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((tmp_path / "out" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """() => [...document.querySelectorAll('td, th, img')].filter(e => {
          const box = e.getBoundingClientRect();
          return box.width && (box.left < 0 || box.right > innerWidth);
        }).length"""
    )
    assert cut == 0
    first = page.locator("img").first.bounding_box()
    assert first["y"] < page.locator("details").bounding_box()["y"]  # Of the hashes.
    # The middle of the wide picture, every pixel.
    shown = page.evaluate(
        """async () => {
          const image = document.querySelector('img[alt^="result"]');
          await image.decode();
          const canvas = document.createElement('canvas');
          canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
          const context = canvas.getContext('2d');
          context.drawImage(image, 0, 0);
          const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
          return [image.alt, [...all]];
        }"""
    )
    name = shown[0].rsplit(" ", 1)[1]
    pixels = np.array(shown[1]).reshape(70, 512, 4)[..., :3]
    expected = np.asarray(Image.open(results / f"{name}.png"))[:, 94 : 94 + 512]
    np.testing.assert_array_equal(pixels, expected)
    page.close()


def test_absent_weights_are_named_with_their_file_and_place(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv(weight_files.FOLDER_VARIABLE, str(tmp_path / "weights"))
    found = _evaluate(monkeypatch, tmp_path, originals, "--reference", originals)
    said = capsys.readouterr().out
    for name in ("inception", "inception_v1", "alexnet", "lpips", "vgg16"):
        file = weight_files.WEIGHT_FILES[name]
        assert str(tmp_path / "weights" / file.file_name) in said
        assert file.sha256 in said
    for title in ("FID", "KID", "IS", "CA", "PD", "LPIPS", "LPIPS-VGG"):
        assert title in found["absent"]
        assert all(title not in values for values in found["rows"].values())


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("one picture", ["two pictures", "0.png"]),
        ("mixed sizes", ["one size", "5.png", "40 x 40", "48 x 40", "--size"]),
        ("unmatched", ["same names", "other", "without a reference", "deep/0"]),
        ("gray", ["gray", "0"]),
        ("broken", ["5.png", "broken or unreadable"]),
        ("no picture", ["5.png", "Pillow"]),
        ("two endings", ["one picture for each name", "5.jpg", "5.png"]),
        ("empty", ["expected pictures below"]),
        ("no folder", ["no folder"]),
        ("nan", ["finite"]),
        ("no such name in the list", ["list.txt", "nobody.png"]),
    ],
)
def test_bad_pictures_are_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    originals: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    case: str,
    says: list[str],
) -> None:
    results, more = tmp_path / "results", []
    shutil.copytree(originals, results)
    if case == "one picture":
        originals = tmp_path / "one"
        for folder in (originals, results):
            shutil.rmtree(folder, ignore_errors=True)
            _save(folder / "0.png", np.zeros((SIDE, SIDE, 3)))
    elif case == "mixed sizes":
        _save(results / "5.png", np.zeros((SIDE, SIDE + 8, 3)))
    elif case == "unmatched":
        (results / "deep" / "0.png").rename(results / "other.png")
    elif case == "gray":
        for path in results.rglob("*.png"):
            Image.open(path).convert("L").save(path)
    elif case == "broken":
        content = (results / "5.png").read_bytes()
        (results / "5.png").write_bytes(content[: len(content) // 2])
    elif case == "no picture":
        (results / "5.png").write_text("This is no picture.")
    elif case == "two endings":
        Image.open(results / "5.png").save(results / "5.jpg")
    elif case == "empty":
        shutil.rmtree(results)
        results.mkdir()
    elif case == "no folder":
        shutil.rmtree(results)
    elif case == "nan":
        fake_networks.install(monkeypatch, is_broken=True)
    else:
        (tmp_path / "list.txt").write_text("nobody.png 3\n")
        more = ["--list", tmp_path / "list.txt"]
    args = (results, "--reference", originals, "--out", tmp_path / "out", *more)
    assert command(monkeypatch, "evaluate", *args) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    for text in says:
        assert text in error, error


def test_the_command_needs_no_tensorflow_and_goes_on_where_it_was(
    originals: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run = [sys.executable, "-c", WITHOUT_TENSORFLOW, "evaluate", str(originals)]
    run += ["--reference", str(originals), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 pictures measured" in done.stdout and "report: " in done.stdout
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    assert kept
    again = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and "pictures measured" not in again.stdout
    assert kept == {p: p.stat().st_mtime_ns for p in kept}


@pytest.mark.slow
def test_kodak_against_itself_and_against_its_jpeg(
    monkeypatch: pytest.MonkeyPatch,
    reference_data: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    weights = str(reference_data / "inception_2015")
    monkeypatch.setenv(weight_files.FOLDER_VARIABLE, weights)
    kodak = reference_data / "kodak24"
    for path in sorted(kodak.glob("*.png"))[:8]:
        (tmp_path / "png").mkdir(exist_ok=True)
        (tmp_path / "jpeg").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "png")
        Image.open(path).save(tmp_path / "jpeg" / f"{path.stem}.jpg", quality=10)
    args = ("--reference", tmp_path / "png", "--size=128")
    found = _evaluate(monkeypatch, tmp_path, tmp_path / "jpeg", *args)
    first, jpeg = found["rows"].values()
    assert first["FID-768"] == 0 < jpeg["FID-768"]
    assert "FID" not in jpeg and "pt_inception" in found["absent"]["FID"]
    assert 20 < jpeg["PSNR"] < 40 and 0.5 < jpeg["MS-SSIM"] < 1
