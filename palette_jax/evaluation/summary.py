"""Describes how numbers were made, so that others can reproduce them."""

from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from palette_jax.evaluation import table
from palette_jax.evaluation.metrics import structure
from palette_jax.evaluation.suite import MetricSuite
from palette_jax.pictures.protocols import PROTOCOLS

ORIGINALS = "original pictures"
"""The title of their row."""
QUANTISATION = "8 bits, rounded"


def statement(
    suite: MetricSuite,
    *,
    pictures: int,
    pictures_hash: str,
    list_file: str,
    size: int | None,
    reference: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the settings that all numbers of an evaluation depend on."""
    how = PROTOCOLS[suite.protocol]
    return {
        "name": suite.protocol,
        "pictures": pictures,
        "pictures_hash": pictures_hash,
        "list": list_file,
        "crop": how.crop if size else "none",
        "resize": f"to {size} x {size} pixels: {how.resize}" if size else "none",
        "quantisation": QUANTISATION,
        "reference": dict(reference),
        "weights": suite.weights,
    }


def statement_of_run(config: ml_collections.ConfigDict, step: int) -> dict[str, Any]:
    """Returns the settings that the pictures of a run depend on."""
    sample = config.sample
    is_one_pass = config.diffusion.objective == "regress"
    return {
        "checkpoint": f"step {step}, averaged weights",
        "seed": config.seed,
        "sampler": "one pass" if is_one_pass else sample.sampler,
        "schedule": "" if is_one_pass else sample.schedule,
        "steps": 1 if is_one_pass else sample.num_steps,
        "samples": sample.num_samples,
    }


def statement_lines(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of a statement by name."""
    name = values.get("name", "paper")  # Older tables do not name it.
    texts = {"protocol": f"{name} ({PROTOCOLS[name].description})"}
    texts["N"] = f"{values['pictures']} pictures, hash {values['pictures_hash']}"
    if values.get("list"):
        texts["list"] = values["list"]
    texts |= {name: values[name] for name in ("crop", "resize", "quantisation")}
    if "inception" in values["weights"]:
        reference = values["reference"]
        count = f"{reference['pictures']} pictures" if reference["pictures"] else "file"
        texts["FID's reference"] = f"{count}, hash {reference['hash']}"
    for network, digest in values["weights"].items():
        texts[f"weights of {network}"] = f"sha256 {digest}"
    if "sampler" in values:
        texts["checkpoint"] = values["checkpoint"]
        schedule = f", {values['schedule']} schedule" if values["schedule"] else ""
        texts["sampler"] = f"{values['sampler']}, {values['steps']} steps{schedule}"
        texts["seed"] = (
            f"{values['seed']}; samples of each picture: {values['samples']}"
        )
    return texts


def warnings(
    suite: MetricSuite, rows: Mapping[str, table.Values], count: int
) -> list[str]:
    """Returns the warnings about the numbers of a table."""
    notes = list(suite.warnings)
    titles = table.titles(list(rows.values()))
    if count < table.MIN_PICTURES_FOR_FID and any(t.startswith("FID") for t in titles):
        notes.append(
            f"FID of {count} pictures is only a trend, because FID falls with their"
            " number; compare it only with FIDs of the same pictures, and publish FIDs"
            f" of {table.MIN_PICTURES_FOR_FID:,} or more"
        )
    if "MS-SSIM" in titles and suite.num_scales < structure.MAX_SCALES:
        notes.append(
            f"MS-SSIM is over {suite.num_scales} of its {structure.MAX_SCALES} scales,"
            " because the pictures are small; do not compare it with other sizes"
        )
    return notes


def absent(reasons: Mapping[str, str]) -> dict[str, str]:
    """Returns the reasons of absent metrics, with the titles that share a reason."""
    titles: dict[str, list[str]] = {}
    for title, why in reasons.items():
        titles.setdefault(why, []).append(title)
    return {", ".join(names): why for why, names in titles.items()}


def of_run(results: Mapping[str, Any], out: epath.Path) -> list[str]:
    """Returns the lines of a run's evaluation for a terminal."""
    lines: list[str] = []
    for task, found in results["tasks"].items():
        lines += ["", f"{task} ({found['degradation']})"]
        lines += _table(found, results["protocol"])
    lines += _how(results)
    sheets = [f"pictures: {out / f'{task}.png'}" for task in results["tasks"]]
    return [*lines, *_summary(results), *sheets]


def of_folder(results: Mapping[str, Any]) -> list[str]:
    """Returns the lines of an evaluation of folders for a terminal."""
    return [*_table(results, results["protocol"]), *_how(results)]


def _table(found: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """Returns a table with its protocol, intervals and warnings."""
    lines = [*table.text(found["rows"], corner=f"protocol {protocol['name']}")]
    lines += [
        f"95% over the pictures, {name}: {', '.join(table.ranges(intervals))}"
        for name, intervals in found["intervals"].items()
        if intervals and name != ORIGINALS
    ]
    lines += paper_lines(found["paper"])
    return [*lines, *(f"warning: {warning}" for warning in found["warnings"])]


def _how(results: Mapping[str, Any]) -> list[str]:
    texts = statement_lines(results["protocol"])
    return [
        "",
        *(f"absent: {ts}: {why}" for ts, why in absent(results["absent"]).items()),
        *(f"{name}: {what}" for name, what in texts.items()),
    ]


def paper_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Returns the paper's rows for a terminal; empty if there are none."""
    if not found:
        return []
    title = f"the paper's own figures ({found['source']}), not measured here:"
    return [title, *table.text(found["rows"]), f"note: {found['note']}"]


def _summary(results: Mapping[str, Any]) -> list[str]:
    sample = results["sample"]
    lines = [
        f"\nStep {results['step']}, PSNR over the mask in dB, {sample['num_samples']}"
        f" samples, {sample['num_steps']} steps of {sample['sampler']}; PSNR is that of"
        " one sample, gain that of the samples' mean over trivial",
        f"{'task':<10}{'pictures':>10}{'trivial':>10}{'PSNR':>10}"
        f"{'PSNR of the mean':>18}{'gain':>10}",
    ]
    for task, row in results["tasks"].items():
        gain = row["model_psnr_of_mean"] - row["trivial_psnr"]
        lines.append(
            f"{task:<10}{row['pictures']:>10}{row['trivial_psnr']:>10.2f}"
            f"{row['model_psnr']:>10.2f}{row['model_psnr_of_mean']:>18.2f}{gain:>+10.2f}"
        )
    return [*lines, "trivial: the mean known colour in a hole, the source elsewhere"]
