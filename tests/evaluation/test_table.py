"""From what is measured of each picture to a row, in closed form."""

import numpy as np
import pytest

from palette_jax.evaluation import table
from palette_jax.evaluation.metrics import frechet, kernel


def test_pictures_of_an_unknown_class_are_neither_right_nor_wrong() -> None:
    logits = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 3, -1])
    row = table.row(
        "r",
        {"resnet50": {"r/logits": logits}},
        names=list("abcd"),
        originals={},
        reference={},
        labels=labels,
    )
    assert row.values["CA"] == pytest.approx(100 * 2 / 3)
    np.testing.assert_array_equal(row.each["CA"], [100, 100, 0, np.nan])


def test_fid_5k_is_that_of_the_first_5000() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(np.arange(5003)[:, None] / 5003, 1, (5003, 2))
    names = [str(i) for i in range(5003)]
    reference = {"2048": frechet.statistics(rng.normal(0, 1, (50, 2)), names[:50])}
    measured = {"inception": {"originals/2048": features}}
    row = table.row(
        "originals", measured, names=names, originals=measured, reference=reference
    )
    for title, some in (("FID", features), ("FID-5K", features[:5000])):
        found = frechet.statistics(some, names[: len(some)])
        wanted = frechet.distance(found, reference["2048"])
        assert row.values[title] == pytest.approx(wanted, rel=1e-12)
    assert row.values["FID"] != row.values["FID-5K"]


def test_the_mean_of_rows_is_that_of_each_number() -> None:
    rows = [
        table.Row(
            {"FID": 10.0 * i, "PSNR": 20.0 + i}, {"PSNR": np.array([19.0, 21]) + i}
        )
        for i in (1, 2, 6)
    ]
    mean = table.mean_row(rows)
    assert mean.values == {"FID": 30.0, "PSNR": 23.0}
    np.testing.assert_array_equal(mean.each["PSNR"], [22, 24])


def test_distances_are_those_to_the_originals_picture_by_picture() -> None:
    rng = np.random.default_rng(0)
    own, originals = rng.normal(size=(2, 7, 5))
    row = table.row(
        "r",
        {"inception_v1": {"r/pool": own}, "inception": {"r/2048": own}},
        names=list("abcdefg"),
        originals={
            "inception_v1": {"originals/pool": originals},
            "inception": {"originals/2048": originals},
        },
        reference={},
    )
    distances = np.sqrt(np.square(own - originals).sum(1))
    np.testing.assert_allclose(row.each["PD"], distances)
    assert row.values["PD"] == pytest.approx(distances.mean())
    expected = kernel.pseudo_values(own, originals)
    np.testing.assert_allclose(row.each["KID"], expected)
