"""The Fréchet distance: closed forms, merging, its cache, and others' numbers."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import Mesh
from PIL import Image

from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics import frechet, inception


def draw(count: int, features: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((features, features))
    rows = rng.standard_normal((count, features)) @ mix + rng.standard_normal(features)
    return rows.astype(np.float32)


def stats(features: np.ndarray) -> frechet.Statistics:
    return frechet.statistics(features, [f"{i}.png" for i in range(len(features))])


@pytest.mark.parametrize("count", [2, 12, 300])
def test_a_set_is_at_no_distance_from_itself(count: int) -> None:
    features = draw(count, 40, 0)
    whole = stats(features)
    order = np.random.default_rng(1).permutation(count)
    cut = count // 2
    parts = frechet.merge(stats(features[order[:cut]]), stats(features[order[cut:]]))
    assert frechet.distance(whole, whole) == 0
    assert frechet.distance(whole, parts) == frechet.distance(parts, whole) == 0
    # Far from the origin, the mean is a large number less a large number.
    assert frechet.distance(stats(features + 1000), stats(features + 1000)) == 0


def test_normal_distributions_on_a_line_have_their_closed_form() -> None:
    first, second = draw(50, 1, 0).astype(np.float64), draw(60, 1, 1).astype(np.float64)
    gap = first.mean() - second.mean()
    expected = gap**2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet.distance(stats(first), stats(second)) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(400, 300), (10, 300), (9, 14)])
def test_it_is_the_formula_of_the_field(counts: tuple[int, int]) -> None:
    first, second = draw(counts[0], 20, 0), draw(counts[1], 20, 1)
    one, two = (np.cov(f, rowvar=False, dtype=np.float64) for f in (first, second))
    root = scipy.linalg.sqrtm(one @ two)
    gap = first.mean(0, np.float64) - second.mean(0, np.float64)
    expected = gap @ gap + np.trace(one + two - 2 * np.real(root))
    got = frechet.distance(stats(first), stats(second))
    assert got == pytest.approx(expected, rel=1e-4)
    assert got == pytest.approx(frechet.distance(stats(second), stats(first)))


def test_batches_merge_to_the_statistics_of_all() -> None:
    features = draw(30, 7, 0) + 100
    merged = stats(features[:1])
    for start, end in ((1, 2), (2, 15), (15, 30)):
        merged = frechet.merge(merged, stats(features[start:end]))
    np.testing.assert_allclose(merged.mean, features.mean(0, np.float64), rtol=1e-12)
    expected = np.cov(features, rowvar=False, dtype=np.float64)
    np.testing.assert_allclose(merged.covariance, expected, rtol=1e-9, atol=1e-9)
    assert merged.count == 30


def test_statistics_of_pytorch_fid_are_read_and_written(tmp_path: pathlib.Path) -> None:
    first, second = draw(40, 6, 0), draw(30, 6, 1)
    mean, covariance = second.mean(0), np.cov(second, rowvar=False)
    np.savez(tmp_path / "theirs.npz", mu=mean, sigma=covariance)
    theirs = frechet.read_public(tmp_path / "theirs.npz")
    assert list(theirs) == ["6"]
    expected = frechet.distance(stats(first), stats(second))
    assert frechet.distance(stats(first), theirs["6"]) == pytest.approx(expected)
    frechet.save_public(tmp_path / "ours.npz", stats(second))
    with np.load(tmp_path / "ours.npz") as ours:  # As pytorch-fid does.
        np.testing.assert_allclose(ours["mu"], mean, rtol=1e-6)
        np.testing.assert_allclose(ours["sigma"], covariance, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", ["none", "text", "no sigma", "shapes", "nan"])
def test_bad_statistics_of_others_are_refused(
    tmp_path: pathlib.Path, case: str
) -> None:
    path = tmp_path / "theirs.npz"
    if case == "text":
        path.write_text("no archive")
    elif case == "no sigma":
        np.savez(path, mu=np.zeros(3))
    elif case == "shapes":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
    elif case == "nan":
        np.savez(path, mu=np.zeros(3), sigma=np.full((3, 3), np.nan))
    with pytest.raises(MetricError, match=r"theirs\.npz"):
        frechet.read_public(path)


def test_bad_features_are_named() -> None:
    features = draw(12, 3, 0)
    features[4, 1], features[7, 0] = np.nan, np.inf
    with pytest.raises(MetricError, match=r"2 of 12 pictures: 4\.png, 7\.png"):
        stats(features)
    with pytest.raises(MetricError, match=r"same features.*3 and 4"):
        frechet.distance(stats(draw(9, 3, 0)), stats(draw(9, 4, 0)))


def test_statistics_are_kept_and_a_damaged_file_is_made_anew(
    tmp_path: pathlib.Path,
) -> None:
    made = {"768": stats(draw(9, 5, 0)), "64": stats(draw(9, 2, 0))}
    path = tmp_path / "cache" / "reference.npz"
    assert frechet.find(path) is None
    frechet.keep(path, made)
    kept = frechet.find(path) or {}
    for name, found in made.items():
        assert kept[name].count == 9
        np.testing.assert_array_equal(kept[name].mean, found.mean)
        np.testing.assert_array_equal(kept[name].scatter, found.scatter)
    path.write_bytes(path.read_bytes()[:100])
    assert frechet.find(path) is None
    (tmp_path / "file").write_text("")
    frechet.keep(tmp_path / "file" / "no.npz", made)  # A warning, and no error.


@pytest.fixture(scope="module")
def real_inception(reference_data: pathlib.Path):
    """The real weights, on two devices: a batch is split among the machine's cores."""
    mesh = Mesh(np.array(jax.devices()[:2]), "data")
    path = inception.find(folder=reference_data / "inception_2015")
    return inception.load(path, batch_size=8, mesh=mesh)


@pytest.fixture(scope="module")
def real_pictures(reference_data: pathlib.Path) -> list[Image.Image]:
    paths = sorted((reference_data / "photos256_dev").glob("*.JPEG"))
    assert len(paths) == 200
    return [Image.open(path).convert("RGB") for path in paths]


@pytest.fixture(scope="module")
def real_features(real_inception, real_pictures) -> np.ndarray:
    return real_inception(np.stack([np.asarray(p) for p in real_pictures]))["768"]


@pytest.fixture(scope="module")
def expected(reference_data: pathlib.Path) -> dict[str, dict[str, float]]:
    path = reference_data / "inception_2015" / "reference_frechet_768.json"
    return json.loads(path.read_text())["numbers"]


@pytest.mark.slow
def test_features_of_photographs_are_those_of_pytorch_fid(
    real_inception, reference_data: pathlib.Path
) -> None:
    assert real_inception.outputs == ("64", "192", "768")
    folder = reference_data / "kodak24"
    photos = [np.asarray(Image.open(folder / f"{i}.png")) for i in range(1, 25)]
    theirs = np.load(reference_data / "inception_2015" / "kodak24_features_768.npy")
    seen = 0
    for shape in {photo.shape for photo in photos}:
        rows = [i for i, photo in enumerate(photos) if photo.shape == shape]
        ours = real_inception(np.stack([photos[i] for i in rows]))["768"]
        error = np.linalg.norm(ours - theirs[rows], axis=1)
        assert (error < 1e-3 * np.linalg.norm(theirs[rows], axis=1)).all()
        np.testing.assert_allclose(ours, theirs[rows], rtol=1e-3, atol=1e-5)
        seen += len(rows)
    assert seen == 24


@pytest.mark.slow
def test_the_distance_of_two_halves_is_that_of_pytorch_fid(
    real_features: np.ndarray, expected: dict
) -> None:
    got = frechet.distance(stats(real_features[:100]), stats(real_features[100:]))
    assert got == pytest.approx(expected["halves"]["frechet_768"], rel=1e-4)
    assert frechet.distance(stats(real_features), stats(real_features)) == 0


@pytest.mark.slow
def test_the_distance_to_jpeg_is_that_of_pytorch_fid(
    real_inception, real_pictures, real_features: np.ndarray, expected: dict
) -> None:
    degraded = []
    for picture in real_pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=10, subsampling=2)
        degraded.append(np.asarray(Image.open(buffer).convert("RGB")))
    features = real_inception(np.stack(degraded))["768"]
    got = frechet.distance(stats(real_features), stats(features))
    assert got == pytest.approx(expected["jpeg_q10"]["frechet_768"], rel=1e-4)
