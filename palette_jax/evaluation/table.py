"""Makes the rows of a table from the measurements of each picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from palette_jax.evaluation.metrics import bootstrap, frechet, inception, kernel, scores
from palette_jax.evaluation.suite import PIXELS

Values = dict[str, float]
Measured = Mapping[str, Mapping[str, np.ndarray]]
"""By part, the arrays that `MetricSuite.measure` returns, by `row/output`."""

MIN_PICTURES_FOR_FID = 10_000
_FID_5K = 5000
_MAX_FOR_KID = 20_000  # Pairs of more pictures would take hours, and FID is there.
_NO_CLASS = -1


class Row(NamedTuple):
    """The metrics of a set of pictures.

    Attributes:
      values: of the whole set, by title.
      each: of each picture, by title, for metrics that are means over pictures.
    """

    values: Values
    each: dict[str, np.ndarray]

    def joined(self, other: "Row") -> "Row":
        """Returns the metrics of both rows."""
        return Row(self.values | other.values, self.each | other.each)

    def without(self, titles: Sequence[str]) -> "Row":
        """Returns the metrics without some titles."""
        return Row(
            {title: v for title, v in self.values.items() if title not in titles},
            {title: v for title, v in self.each.items() if title not in titles},
        )

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Returns 95% intervals over the pictures, by title."""
        found = {title: bootstrap.interval(each) for title, each in self.each.items()}
        return {title: interval for title, interval in found.items() if interval}


class Metric(NamedTuple):
    """A metric, by its title in tables and in files.

    Attributes:
      digits: after the decimal point.
      better: "lower", "higher", or empty.
    """

    title: str
    digits: int
    better: str
    meaning: str


METRICS = (
    Metric("FID", 2, "lower", "Fréchet distance of Inception-v3's 2048-d features"),
    Metric("FID-5K", 2, "lower", "FID of only the first 5,000 pictures"),
    Metric("FID-768", 4, "lower", "FID of 768-d features; do not compare with FID"),
    Metric("FID-192", 4, "lower", "FID of 192-d features; do not compare with FID"),
    Metric("FID-64", 4, "lower", "FID of 64-d features; do not compare with FID"),
    Metric(
        "KID", 5, "lower", "kernel distance of the 2048-d features to the originals'"
    ),
    Metric("KID-768", 5, "lower", "KID of 768-d features; do not compare with KID"),
    Metric("IS", 1, "higher", "Inception Score, mean of ten splits"),
    Metric("CA", 1, "higher", "top-1 accuracy of ResNet-50, in percent"),
    Metric("PD", 1, "lower", "perceptual distance of Inception-v1's pooled features"),
    Metric("LPIPS", 3, "lower", "learned distance to the original (AlexNet, 0.1)"),
    Metric("LPIPS-VGG", 3, "lower", "LPIPS with VGG-16; do not compare with LPIPS"),
    Metric("PSNR", 2, "higher", "dB, over the painted pixels"),
    Metric("SSIM", 3, "higher", "structural similarity, over the whole picture"),
    Metric("MS-SSIM", 3, "higher", "structural similarity over several scales"),
    Metric("colourfulness", 1, "", "Hasler and Süsstrunk's M3; best is the originals'"),
    Metric("a*", 1, "", "mean of CIE Lab's a*, red minus green, likewise"),
    Metric("b*", 1, "", "mean of CIE Lab's b*, yellow minus blue, likewise"),
    Metric(
        "MS-SSIM between samples", 3, "lower", "the first and the others; low: diverse"
    ),
    Metric("LPIPS between samples", 3, "higher", "consecutive ones; high: diverse"),
)
BY_TITLE = {metric.title: metric for metric in METRICS}

# Means over the pictures: the part, and the name of its output.
_MEANS = {
    "LPIPS": ("lpips", "lpips"),
    "LPIPS-VGG": ("lpips_vgg", "lpips"),
    "PSNR": (PIXELS, "psnr"),
    "SSIM": (PIXELS, "ssim"),
    "MS-SSIM": (PIXELS, "ms_ssim"),
    "colourfulness": (PIXELS, "colorfulness"),
    "a*": (PIXELS, "a"),
    "b*": (PIXELS, "b"),
    "MS-SSIM between samples": (PIXELS, "ms_ssim_to_first"),
    "LPIPS between samples": ("lpips", "lpips_of_consecutive"),
}


def statistics(
    arrays: Mapping[str, np.ndarray], name: str, names: Sequence[str]
) -> dict[str, frechet.Statistics]:
    """Returns the statistics of Inception's features of a row, by feature."""
    return {
        feature: frechet.statistics(arrays[f"{name}/{feature}"], names)
        for feature in inception.FEATURES
        if f"{name}/{feature}" in arrays
    }


def row(
    name: str,
    measured: Measured,
    *,
    names: Sequence[str],
    originals: Measured,
    reference: Mapping[str, frechet.Statistics],
    labels: Integer[np.ndarray, " n"] | None = None,
    in_order: bool = False,
) -> Row:
    """Returns the metrics of one set of pictures.

    Args:
      name: of the row, such as `sample_0`.
      measured: measurements of its pictures.
      names: of the pictures, for messages.
      originals: measurements of the originals, picture by picture, as the row
        `originals`.
      reference: the reference statistics of Fréchet distances, by feature.
      labels: the class of each picture, -1 if unknown.
      in_order: whether the order of the pictures is that of a published list.
    """
    values: Values = {}
    arrays = measured.get("inception", {})
    for feature, found in statistics(arrays, name, names).items():
        if feature in reference:
            title = "FID" if feature == "2048" else f"FID-{feature}"
            values[title] = frechet.distance(found, reference[feature])
    deep = arrays.get(f"{name}/2048")
    if deep is not None and "2048" in reference and len(deep) >= _FID_5K:
        first = frechet.statistics(deep[:_FID_5K], names[:_FID_5K])
        values["FID-5K"] = frechet.distance(first, reference["2048"])
    logits = arrays.get(f"{name}/logits")
    if logits is not None and len(logits) >= scores.SPLITS:
        values["IS"] = scores.inception_score(logits, names, in_order=in_order)
    each = _each(name, measured, originals, labels)
    values |= {title: float(np.nanmean(found)) for title, found in each.items()}
    return Row(values, each)


def _each(
    name: str, measured: Measured, originals: Measured, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Returns the value of each picture of a row by title; NaN for none."""
    each: dict[str, np.ndarray] = {}
    for title, feature in (("KID", "2048"), ("KID-768", "768")):
        found = measured.get("inception", {}).get(f"{name}/{feature}")
        if found is not None and 2 < len(found) <= _MAX_FOR_KID:
            target = originals["inception"][f"originals/{feature}"]
            is_same = found is target
            each[title] = (
                np.zeros(len(found)) if is_same else kernel.pseudo_values(found, target)
            )
            break  # The first of two is the established name.
    logits = measured.get("resnet50", {}).get(f"{name}/logits")
    if logits is not None and labels is not None and (labels != _NO_CLASS).any():
        known = labels != _NO_CLASS
        is_right = np.full(len(labels), np.nan)
        is_right[known] = scores.is_right(logits[known], labels[known])
        each["CA"] = 100 * is_right
    pooled = measured.get("inception_v1", {}).get(f"{name}/pool")
    if pooled is not None:
        target = originals["inception_v1"]["originals/pool"]
        each["PD"] = scores.feature_distances(pooled, target)
    for title, (part, output) in _MEANS.items():
        array = measured.get(part, {}).get(f"{name}/{output}")
        if array is not None:
            each[title] = array.astype(np.float64)
    return each


def mean_row(rows: Sequence[Row]) -> Row:
    """Returns the mean of the rows of several samples, metric by metric."""
    first = rows[0]
    return Row(
        {t: float(np.mean([row.values[t] for row in rows])) for t in first.values},
        {t: np.mean([row.each[t] for row in rows], 0) for t in first.each},
    )


def titles(rows: Sequence[Values]) -> list[str]:
    """Returns the titles of all metrics of the rows, in order."""
    return [m.title for m in METRICS if any(m.title in row for row in rows)]


def number(title: str, value: float | None) -> str:
    """Returns a value with its digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{BY_TITLE[title].digits}f}"


def ranges(intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """Returns intervals as texts, such as `PSNR 23.10 to 24.20`."""
    return [
        f"{title} {number(title, low)} to {number(title, high)}"
        for title, (low, high) in intervals.items()
    ]


def text(rows: Mapping[str, Values], *, corner: str = "") -> list[str]:
    """Returns the lines of a table for a terminal; the first line has the titles."""
    columns = titles(list(rows.values()))
    lines = [[corner, *columns]]
    for name, values in rows.items():
        lines.append([name, *(number(title, values.get(title)) for title in columns)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        f"{line[0]:<{widths[0]}}"
        + "".join(
            f"  {c:>{max(w, 7)}}" for c, w in zip(line[1:], widths[1:], strict=True)
        )
        for line in lines
    ]
