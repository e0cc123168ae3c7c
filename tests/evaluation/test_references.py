"""The reference: its hash covers what a network sees, its statistics all pictures."""

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from palette_jax.evaluation import references
from palette_jax.evaluation.metrics import frechet
from palette_jax.evaluation.references import pictures_hash
from palette_jax.evaluation.suite import MetricSuite


def _suite(protocol: str = "paper", weights: str = "6726") -> MetricSuite:
    """Returns a suite of known weights, without their networks."""
    suite = object.__new__(MetricSuite)
    suite.protocol, suite.weights = protocol, {"inception": weights}
    return suite


def test_the_hash_of_pictures_knows_what_made_them() -> None:
    files, suite = {"a.png": 10, "b.png": 20}, _suite()
    first = pictures_hash(suite, files, 256)
    assert first == pictures_hash(suite, dict(reversed(files.items())), 256)
    others = [
        pictures_hash(suite, {**files, "b.png": 21}, 256),
        pictures_hash(suite, {**files, "c.png": 5}, 256),
        pictures_hash(suite, files, 128),
        pictures_hash(suite, files, None),
        pictures_hash(_suite("i2sb"), files, 256),
        pictures_hash(suite, files, 256, seen=True),
        pictures_hash(_suite(weights="0"), files, 256, seen=True),
    ]
    assert len({first, *others}) == 8 and len(first) == 16


class _Means(MetricSuite):
    """Has the mean colours of pictures as Inception's features."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def measure(self, part, rows, **options) -> dict[str, np.ndarray]:
        (pictures,) = rows.values()
        self.seen.append(len(pictures))
        return {"originals/2048": pictures.mean((1, 2))}


def test_statistics_do_not_depend_on_chunks_nor_on_a_stop(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "STATISTICS_FOLDER", str(tmp_path))
    monkeypatch.setattr(references, "_CHUNK", 4)
    pictures = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3), np.uint8)

    def batches(start: int, stop: int) -> Iterator[tuple[list[str], np.ndarray]]:
        for first in range(start, stop, 3):
            rows = range(first, min(first + 3, stop))
            if start != 4:  # All pictures of the second chunk are broken.
                yield [str(row) for row in rows], pictures[rows]

    def stop_at_the_last_chunk() -> None:
        if len(suite.seen) > 2:
            raise KeyboardInterrupt

    suite, reference = _Means(), references.Reference(11, "hash", batches)
    with pytest.raises(KeyboardInterrupt):
        suite.seen.append(0)
        references.statistics_of(suite, reference, stop_at_the_last_chunk)
    found = references.statistics_of(suite, reference, lambda: None)["2048"]
    assert suite.seen == [0, 3, 1, 3]  # No chunk that was finished is seen again.
    good = pictures[[0, 1, 2, 3, 8, 9, 10]].mean((1, 2))
    wanted = frechet.statistics(good, [str(i) for i in range(7)])
    assert found.count == 7
    np.testing.assert_allclose(found.mean, wanted.mean)
    np.testing.assert_allclose(found.scatter, wanted.scatter)
    kept = references.statistics_of(suite, reference, stop_at_the_last_chunk)["2048"]
    np.testing.assert_array_equal(kept.scatter, found.scatter)
    assert [path.name for path in tmp_path.iterdir()] == ["hash.npz"]
