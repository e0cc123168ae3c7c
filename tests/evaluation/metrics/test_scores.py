"""Scores with known values, and errors that name the files."""

import numpy as np
import pytest

from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics import pictures, scores

NAMES = [f"{i}.png" for i in range(200)]


def test_the_inception_score_of_certain_guesses_is_the_number_of_classes() -> None:
    certain = np.where(np.eye(4)[np.arange(200) % 4] > 0, 1e4, -1e4)
    score = scores.inception_score
    assert score(certain, NAMES, in_order=True) == pytest.approx(4)
    assert score(np.ones((200, 7)), NAMES) == pytest.approx(1)
    one_class_a_part = np.where(np.eye(10)[np.arange(200) // 20] > 0, 50.0, 0.0)
    assert score(one_class_a_part, NAMES, in_order=True) == pytest.approx(1)


def test_the_inception_score_is_its_definition_on_each_part() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(103, 6)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    parts = [p[103 * i // 10 : 103 * (i + 1) // 10] for i in range(10)]
    expected = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in parts]
    got = scores.inception_score(logits + 300, NAMES[:103], in_order=True)
    assert got == pytest.approx(np.mean(expected), rel=1e-4)


def test_bad_logits_and_labels_are_named() -> None:
    logits = np.zeros((12, 5))
    with pytest.raises(MetricError, match="labels of 0 to 4, got 5"):
        scores.is_right(logits, np.array([0] * 11 + [5]))
    logits[3] = np.nan
    with pytest.raises(MetricError, match=r"1 of 12 pictures: 3\.png"):
        scores.inception_score(logits, NAMES[:12])
    with pytest.raises(MetricError, match="finite logits"):
        scores.is_right(logits, np.zeros(12, int))


def test_accuracy_and_distance_are_what_they_say() -> None:
    logits = np.eye(5, dtype=np.float32)
    right = scores.is_right(logits, np.array([0, 1, 2, 4, 3]))
    assert right.tolist() == [True, True, True, False, False]
    got = scores.feature_distances(
        np.array([[3.0, 4], [1, 1]]), np.array([[0.0, 0], [1, 1]])
    )
    np.testing.assert_array_equal(got, [5, 0])


def test_a_set_without_any_colour_is_refused() -> None:
    gray = np.array([True] * 7)
    with pytest.raises(MetricError, match=r"all of them gray \(0\.png.* and 2 more\)"):
        pictures.refuse_gray_set(gray, NAMES[:7])
    gray[6] = False
    pictures.refuse_gray_set(gray, NAMES[:7])
    pictures.refuse_gray_set(gray[:0], [])


def test_the_inception_score_does_not_follow_from_the_order_of_the_files() -> None:
    # Sorted by class, as the folders of a data set are: each part sees few classes.
    classes = np.repeat(np.arange(100), 10)
    logits = np.full((1000, 100), -5.0)
    logits[np.arange(1000), classes] = 5.0
    names = [f"{c}/{i}.png" for i, c in enumerate(classes)]
    order = np.random.default_rng(0).permutation(1000)
    score = scores.inception_score(logits, names)
    other = scores.inception_score(logits[order], [names[i] for i in order])
    as_they_come = scores.inception_score(logits, names, in_order=True)
    assert score == pytest.approx(other, rel=1e-12)
    # A part of 100 pictures that are drawn at random sees some 63 of 100 classes.
    assert as_they_come < 12 and 40 < score < 100
