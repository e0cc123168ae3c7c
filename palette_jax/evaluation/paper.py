"""The paper's own figures, shown in a separate table from measured ones.

Saharia et al. 2022 (arXiv 2111.05826), Tables 2, 3, 4, 7 and 8. They are shown only if
pictures, size and degradation match.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from palette_jax.tasks import TASKS

Values = dict[str, float]


class PaperTable(NamedTuple):
    """The paper's figures of a task.

    Attributes:
      source: the table in the paper.
      note: differences to the paper's protocol, and what the paper leaves open.
    """

    rows: dict[str, Values]
    source: str
    note: str


_SIZE = 256
# For each list: the number of pictures, and of pictures in the reference of the paper's
# FID, which the paper does not state for val5k.
PICTURES = {
    "ctest10k": (10_000, 50_000),
    "places10k": (10_950, 36_500),
    "val5k": (5_000, None),
}

_TITLES = {
    "ctest10k": ("FID", "IS", "CA", "PD"),
    "places10k": ("FID", "PD"),
    "val5k": ("FID-5K", "IS", "CA", "PD"),
}
_ORIGINALS = (2.7, 250.1, 76.0, 0.0)
_CENTERS = {"ctest10k": (5.1, 231.6, 74.6, 0.0), "places10k": (11.4, 0.0)}
_CENTER = (
    "the paper's inpainting is of central 256 x 256 crops, which its originals' FID"
    " shows; here they are central squares, resized"
)
_NOTE = (
    "the paper contradicts itself on the classifier (ResNet-50 or EfficientNet-B0), and"
    " does not say which weights its perceptual distance is of"
)

_SHARES = _CENTER + "; its holes are those of the official file of masks"
_VAL5K = (
    "the paper does not state the reference of its FID-5K; the FID-5K of its originals,"
    " 14.68, shows that the reference has other pictures"
)

# By list, task, and degradation of the config.
_TABLES: dict[tuple[str, str, Any], tuple[str, str, dict[str, tuple[float, ...]]]] = {
    ("val5k", "colorize", None): (
        "Table 1",
        _VAL5K,
        {
            "originals": (14.68, 229.6, 75.6, 0.0),
            "pix2pix": (24.41,),
            "PixColor": (24.32,),
            "ColTran": (19.37,),
            "Regression": (17.89, 169.8, 68.2, 60.0),
            "Palette": (15.78, 200.8, 72.5, 46.2),
        },
    ),
    ("ctest10k", "colorize", None): (
        "Tables 7 and 8",
        "",
        {
            "originals": _ORIGINALS,
            "Regression": (5.5, 176.9, 68.0, 61.1),
            "Palette": (3.4, 212.9, 72.0, 48.0),
            "Palette, multi-task": (3.7, 187.4, 69.4, 57.1),
        },
    ),
    ("ctest10k", "inpaint", "center"): (
        "Tables 2 and 7",
        _CENTER,
        {
            "originals": _CENTERS["ctest10k"],
            "Palette": (6.6, 173.9, 69.3, 59.5),
            "Palette, ImageNet only": (6.4, 173.3, 69.7, 58.8),
            "Palette, multi-task": (6.8, 165.7, 68.9, 65.2),
        },
    ),
    ("places10k", "inpaint", "center"): (
        "Table 2",
        _CENTER,
        {
            "originals": _CENTERS["places10k"],
            "Palette": (11.9, 57.3),
            "Palette, ImageNet only": (12.2, 62.8),
        },
    ),
    ("ctest10k", "uncrop", "right"): (
        "Table 3",
        "",
        {"originals": _ORIGINALS, "Palette": (5.8, 138.1, 63.4, 85.9)},
    ),
    ("places10k", "uncrop", "right"): (
        "Table 3",
        "",
        {"originals": (2.1, 0.0), "Palette": (3.53, 103.3)},
    ),
    ("ctest10k", "jpeg", 5): (
        "Tables 4 and 7",
        "",
        {
            "originals": _ORIGINALS,
            "Regression": (29.0, 73.9, 52.8, 155.4),
            "Palette": (8.3, 133.6, 64.2, 95.5),
            "Palette, multi-task": (7.0, 137.8, 64.7, 92.4),
        },
    ),
    ("ctest10k", "jpeg", 10): (
        "Table 4",
        "",
        {
            "originals": _ORIGINALS,
            "Regression": (18.0, 117.2, 63.5, 102.2),
            "Palette": (5.4, 180.5, 70.7, 58.3),
        },
    ),
    ("ctest10k", "jpeg", 20): (
        "Table 4",
        "",
        {
            "originals": _ORIGINALS,
            "Regression": (11.5, 158.7, 69.7, 65.4),
            "Palette": (4.3, 208.7, 73.5, 37.1),
        },
    ),
}

# Table 9, by list and share: the model of ImageNet and Places2, and that of ImageNet.
_FREE_FORM: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("ctest10k", "10_20"): ((5.2, 219.2, 73.7, 15.5), (5.1, 221.0, 73.8, 15.6)),
    ("places10k", "10_20"): ((11.6, 20.3), (11.6, 22.1)),
    ("ctest10k", "20_30"): ((5.2, 205.5, 72.3, 27.6), (5.2, 208.6, 72.6, 27.4)),
    ("places10k", "20_30"): ((11.7, 35.0), (11.8, 37.7)),
    ("ctest10k", "30_40"): ((5.6, 192.8, 71.3, 40.2), (5.5, 195.2, 71.4, 39.9)),
    ("places10k", "30_40"): ((11.6, 49.2), (12.1, 53.5)),
}
for (_list, _share), (_both, _imagenet) in _FREE_FORM.items():
    _TABLES[_list, "inpaint", f"free_form_{_share}"] = (
        "Table 9",
        _SHARES,
        {
            "originals": _CENTERS[_list],
            "Palette": _both,
            "Palette, ImageNet only": _imagenet,
        },
    )


def find(
    task: str,
    degradation: Mapping[str, Any],
    *,
    protocol: str,
    pictures: int,
    size: int,
    reference_pictures: int,
) -> tuple[PaperTable | None, str]:
    """Returns the paper's table of the same task and protocol, or the reason for none.

    Args:
      task: of the model.
      degradation: `inpaint_mask`, `uncrop_side` and `jpeg_quality`.
      protocol: the name of the list of pictures, empty for other pictures.
      pictures: number of evaluated pictures.
      size: of the pictures.
      reference_pictures: size of FID's reference; the paper's FID is left out if the
        paper's reference has another size.
    """
    if protocol not in PICTURES:
        return None, (
            "the pictures are not ctest10k, places10k or val5k, as in the paper"
        )
    expected, reference = PICTURES[protocol]
    if pictures != expected:
        return None, f"{pictures} pictures, and the paper has all {expected:,}"
    if size != _SIZE:
        return None, f"pictures of {size} pixels, and the paper's have {_SIZE}"
    keys = {name: task.eval_key for name, task in TASKS.items() if task.eval_key}
    value = degradation[keys[task]] if task in keys else None
    if (protocol, task, value) not in _TABLES:
        what = f"{task} with {keys[task]}={value}" if task in keys else task
        return None, f"the paper has no figures of {what} on {protocol}"
    source, note, rows = _TABLES[protocol, task, value]
    titles = _TITLES[protocol]
    # Some rows of the paper have only FID.
    table = {name: dict(zip(titles, row, strict=False)) for name, row in rows.items()}
    notes = [note, _NOTE]
    if reference is not None and reference_pictures != reference:
        for values in table.values():
            values.pop("FID", None)
        notes.append(
            f"its FID is left out: its reference has {reference:,} pictures, this one"
            f" {reference_pictures:,}"
        )
    return PaperTable(table, source, "; ".join(filter(None, notes))), ""
