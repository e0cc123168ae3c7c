"""The judge: computes all metrics whose weights are installed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax import parallel
from palette_jax.evaluation.metrics import (
    color,
    distortion,
    diversity,
    inception,
    inception_v1,
    lpips,
    pictures,
    resnet,
    structure,
    weight_files,
)
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.pictures.protocols import PROTOCOLS, Protocol

Pictures = UInt8[np.ndarray, "n h w 3"]

# The part that needs no weights.
PIXELS = "pixels"
# Of pairs of pictures.
LPIPS = ("lpips", "lpips_vgg")
# The networks, with the metrics that need them.
NEEDED_BY = {
    "inception": (
        *("FID", "FID-5K", "FID-768", "FID-192", "FID-64", "KID", "KID-768", "IS"),
    ),
    "resnet50": ("CA",),
    "inception_v1": ("PD",),
    "lpips": ("LPIPS", "LPIPS between samples"),
    "lpips_vgg": ("LPIPS-VGG",),
}
# The weight files of each network; Inception's may be a part of the published one.
_FILES = {
    "resnet50": ("resnet50",),
    "inception_v1": ("inception_v1",),
    "lpips": ("alexnet", "lpips"),
    "lpips_vgg": ("vgg16", "lpips_vgg"),
}
_MIN_LPIPS_SIDE = 32
_NO_CLASSES = (
    "the classes of the pictures are unknown; list the pictures in a file with lines"
    " `NAME LABEL`"
)


class Judge:
    """Measures pictures of one size.

    Attributes:
      height: of the pictures.
      width: of the pictures.
      protocol: a key of `PROTOCOLS`, which defines the inputs of the networks.
      parts: PIXELS, and the networks with installed weights.
      weights: the sha256 of each network's weights.
      num_scales: of MS-SSIM; 0 if pictures are too small.
      absent: the reason for each metric that cannot be computed.
      warnings: about the numbers.
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
        """Loads the networks with installed weights.

        Args:
          height: of the pictures.
          width: of the pictures.
          batch_size: of the networks, on one host.
          has_labels: whether the classes are known, which accuracy needs.
          protocol: a key of `PROTOCOLS`.
        """
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
            self.absent["CA"] = _NO_CLASSES
            try:
                weight_files.find("resnet50")
            except weight_files.MissingWeightsError as error:
                self.absent["CA"] += f"; and {error}"
        self._load("inception_v1", options)
        for name in ("lpips", "lpips_vgg"):
            if min(height, width) >= _MIN_LPIPS_SIDE:
                self._load(name, options)
                continue
            for metric in NEEDED_BY[name]:
                self.absent[metric] = (
                    f"expected pictures of {_MIN_LPIPS_SIDE} pixels or more, got"
                    f" {width} x {height}"
                )
        self.parts = (PIXELS, *self._networks)
        self.weights = {name: net.sha256 for name, net in self._networks.items()}

    def part_name(self, part: str) -> str:
        """Returns the name of a part with a hash of its weights."""
        if part not in self.weights:
            return part
        own = {"inception": self._how.clean, "resnet50": self._how.whole}
        seen = f"_{self.protocol}" if own.get(part) else ""
        return f"{part}_{self.weights[part][:8]}{seen}"

    @property
    def _how(self) -> Protocol:
        return PROTOCOLS[self.protocol]

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
            found["model/ms_ssim_to_first"] = diversity.ms_ssim_to_first(
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
            between = diversity.lpips_of_consecutive(np.stack(samples), network)
            found["model/lpips_of_consecutive"] = between
        return found

    def _load(self, name: str, options: dict[str, Any]) -> None:
        """Loads a network, or records the metrics that lack its weights."""
        try:
            if name == "inception":
                files = [inception.find()]
                network = inception.load(files[0], clean=self._how.clean, **options)
            elif name == "resnet50":
                files = _find_all(name)
                network = resnet.load(files[0], whole=self._how.whole, **options)
            elif name == "inception_v1":
                files = _find_all(name)
                network = inception_v1.load(files[0], **options)
            else:
                files = _find_all(*_FILES[name])
                network = lpips.load(*files, vgg=name == "lpips_vgg", **options)
        except weight_files.MissingWeightsError as error:
            self.absent |= dict.fromkeys(NEEDED_BY[name], str(error))
            return
        self._networks[name] = network
        if name == "inception" and "2048" not in network.outputs:
            try:
                weight_files.find("inception")
            except weight_files.MissingWeightsError as error:
                needed = ("FID", "FID-5K", "KID", "IS")
                self.absent |= dict.fromkeys(needed, str(error))
            return  # A part of the published file has another hash.
        for key, file in zip(_FILES.get(name, (name,)), files, strict=True):
            if warning := weight_files.differs(key, weight_files.sha256(file)):
                self.warnings.append(warning)


def _find_all(*names: str) -> list[epath.Path]:
    """Returns weight files; the error names all missing ones."""
    found, missing = [], []
    for name in names:
        try:
            found.append(weight_files.find(name))
        except weight_files.MissingWeightsError as error:
            missing.append(str(error))
    if missing:
        raise weight_files.MissingWeightsError("; and ".join(missing))
    return found


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
