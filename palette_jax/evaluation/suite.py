"""Computes all metrics whose weights are installed."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax import parallel
from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics import (
    color,
    distortion,
    inception,
    inception_v1,
    lpips,
    pictures,
    resnet,
    structure,
    weight_files,
)
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.pictures.protocols import PROTOCOLS

Pictures = UInt8[np.ndarray, "n h w 3"]

# The part that needs no weights.
PIXELS = "pixels"
# Of pairs of pictures.
LPIPS = ("lpips", "lpips_vgg")


class _Network(NamedTuple):
    """A network: the metrics that need it, its weight files, and how to load it."""

    metrics: tuple[str, ...]
    files: tuple[str, ...]
    load: Callable[..., Extractor]


_DEEP = ("FID", "FID-5K", "KID", "IS")  # Of the whole Inception.
_NETWORKS = {
    "inception": _Network(
        (*_DEEP, "FID-768", "FID-192", "FID-64", "KID-768"),
        ("inception",),
        inception.load,
    ),
    "resnet50": _Network(("CA",), ("resnet50",), resnet.load),
    "inception_v1": _Network(("PD",), ("inception_v1",), inception_v1.load),
    "lpips": _Network(
        ("LPIPS", "LPIPS between samples"), ("alexnet", "lpips"), lpips.load
    ),
    "lpips_vgg": _Network(
        ("LPIPS-VGG",), ("vgg16", "lpips_vgg"), functools.partial(lpips.load, vgg=True)
    ),
}
_NO_CLASSES = (
    "the classes of the pictures are unknown; list the pictures in a file with lines"
    " `NAME LABEL`"
)


class MetricSuite:
    """Measures pictures of one size.

    Attributes:
      parts: PIXELS, and the networks with installed weights.
      weights: the sha256 of each network's weights.
      num_scales: of MS-SSIM; 0 if pictures are too small.
      absent: the reason for each metric that cannot be computed.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        batch_size: int,
        has_labels: bool,
        protocol: str = "paper",
    ):
        """Loads the networks with installed weights."""
        self.height, self.width, self.protocol = height, width, protocol
        self.absent: dict[str, str] = {}
        self.warnings: list[str] = []
        self._networks: dict[str, Extractor] = {}
        try:
            self.num_scales = structure.num_scales(height, width)
        except MetricError as error:
            self.num_scales = 0
            for metric in ("SSIM", "MS-SSIM", "MS-SSIM between samples"):
                self.absent[metric] = str(error)
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "mesh": parallel.make_mesh(devices=jax.local_devices()),
        }
        self._load("inception", options)
        if has_labels:
            self._load("resnet50", options)
        else:
            reasons = _NO_CLASSES, weight_files.missing("resnet50")
            self.absent["CA"] = "; and ".join(filter(None, reasons))
        self._load("inception_v1", options)
        for name in ("lpips", "lpips_vgg"):
            if min(height, width) >= lpips.MIN_SIDE:
                self._load(name, options)
                continue
            why = (
                f"expected pictures of {lpips.MIN_SIDE} pixels or more, got {width} x"
                f" {height}"
            )
            self.absent |= dict.fromkeys(_NETWORKS[name].metrics, why)
        self.parts = (PIXELS, *self._networks)
        self.weights = {name: net.sha256 for name, net in self._networks.items()}

    def part_name(self, part: str) -> str:
        """Returns the name of a part with a hash of its weights."""
        if part not in self.weights:
            return part
        seen = f"_{self.protocol}" if any(self._input_of(part).values()) else ""
        return f"{part}_{self.weights[part][:8]}{seen}"

    def _input_of(self, part: str) -> dict[str, bool]:
        """Returns the options for the input of a network by the protocol."""
        how = PROTOCOLS[self.protocol]
        options = {"inception": {"clean": how.clean}, "resnet50": {"whole": how.whole}}
        return options.get(part, {})

    def measure(
        self,
        part: str,
        rows: Mapping[str, Pictures],
        *,
        reference: Pictures | None = None,
        mask: UInt8[np.ndarray, "n h w 1"] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the outputs of a part for each picture, as `row/output`.

        The work is split over the hosts, and every host gets all results.

        Args:
          part: one of `parts`.
          rows: pictures by the name of their row, such as `sample_0`.
          reference: the originals, for metrics of pairs.
          mask: 1 where PSNR is measured.
        """
        names = list(rows)
        arrays = [*rows.values()]
        if reference is not None:
            arrays += [
                reference,
                np.ones_like(reference[..., :1]) if mask is None else mask,
            ]

        def on_share(*shares: np.ndarray) -> dict[str, np.ndarray]:
            own = dict(zip(names, shares[: len(names)], strict=True))
            pair = shares[len(names) :] or (None, None)
            if part == PIXELS:
                return self._pixels(own, *pair)
            if part in LPIPS:
                return self._lpips(part, own, pair[0])
            outputs = {row: self._networks[part](p) for row, p in own.items()}
            return {f"{r}/{k}": v for r, o in outputs.items() for k, v in o.items()}

        return _on_all_hosts(on_share, arrays)

    def _pixels(
        self, rows: Mapping[str, Pictures], reference: Pictures | None, mask: Any
    ) -> dict[str, np.ndarray]:
        found = {f"{r}/colorfulness": color.colorfulness(p) for r, p in rows.items()}
        found |= {f"{row}/gray": pictures.is_gray(p) for row, p in rows.items()}
        for row, own in rows.items():
            found[f"{row}/a"], found[f"{row}/b"] = color.mean_ab(own).T
        if reference is None:
            return found
        for row, own in rows.items():
            found[f"{row}/psnr"] = distortion.psnr(own, reference, mask)
            if self.num_scales:
                found[f"{row}/ssim"] = structure.ssim(own, reference)
                found[f"{row}/ms_ssim"] = structure.ms_ssim(own, reference)
        samples = _samples(rows)
        if len(samples) > 1 and self.num_scales:
            found["model/ms_ssim_to_first"] = structure.ms_ssim_to_first(
                np.stack(samples)
            )
        return found

    def _lpips(
        self, part: str, rows: Mapping[str, Pictures], reference: Pictures | None
    ) -> dict[str, np.ndarray]:
        if reference is None:
            return {}
        network = self._networks[part]
        found = {
            f"{row}/lpips": network(own, reference)["lpips"]
            for row, own in rows.items()
        }
        samples = _samples(rows)
        if len(samples) > 1 and part == "lpips":
            between = lpips.of_consecutive(np.stack(samples), network)
            found["model/lpips_of_consecutive"] = between
        return found

    def _load(self, name: str, options: dict[str, Any]) -> None:
        """Loads a network, or records the metrics that lack its weights."""
        metrics, names, load = _NETWORKS[name]
        try:
            files = [inception.find()] if name == "inception" else _find_all(names)
        except weight_files.MissingWeightsError as error:
            self.absent |= dict.fromkeys(metrics, str(error))
            return
        network = load(*files, **self._input_of(name), **options)
        self._networks[name] = network
        if name == "inception" and "2048" not in network.outputs:
            # A part of the published file, which has another hash.
            self.absent |= dict.fromkeys(_DEEP, weight_files.missing("inception"))
            return
        for key, file in zip(names, files, strict=True):
            if warning := weight_files.differs(key, weight_files.sha256(file)):
                self.warnings.append(warning)


def _find_all(names: Sequence[str]) -> list[epath.Path]:
    """Returns weight files; the error names all missing ones."""
    missing = list(filter(None, map(weight_files.missing, names)))
    if missing:
        raise weight_files.MissingWeightsError("; and ".join(missing))
    return [weight_files.find(name) for name in names]


def _samples(rows: Mapping[str, Pictures]) -> list[Pictures]:
    return [own for row, own in rows.items() if row.startswith("sample_")]


def _on_all_hosts(compute: Any, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Gives each host its share of the rows and joins the results."""
    count, hosts = len(arrays[0]), jax.process_count()
    if hosts == 1:
        return dict(sorted(compute(*arrays).items()))
    each = -(-count // hosts)
    # The last shares are padded with the last row, since shares must be equal.
    rows = np.minimum(np.arange(each) + jax.process_index() * each, count - 1)
    found = compute(*(array[rows] for array in arrays))
    return {k: parallel.gather(found[k])[:count] for k in sorted(found)}
