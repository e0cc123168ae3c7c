"""What is said of numbers, so that others can make the same ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from palette_jax.evaluation import table
from palette_jax.evaluation.judge import Judge
from palette_jax.evaluation.metrics import structure
from palette_jax.tasks import TASKS

CROP = "central square"
QUANTISATION = "8 bits, rounded"


def resize(size: int) -> str:
    """Returns how pictures are resized."""
    return f"to {size} x {size} pixels: by area, bicubic where that enlarges"


def protocol(
    config: ml_collections.ConfigDict,
    step: int,
    judge: Judge,
    names: Sequence[str],
    pictures_hash: str,
    reference: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what all numbers of an evaluation were made with."""
    sample = config.sample
    is_one_pass = config.diffusion.objective == "regress"
    return {
        "pictures": len(names),
        "pictures_hash": pictures_hash,
        "list": config.data.eval_list,
        "crop": CROP,
        "resize": resize(config.data.image_size),
        "quantisation": QUANTISATION,
        "reference": dict(reference),
        "weights": judge.weights,
        "checkpoint": f"step {step}, averaged weights",
        "seed": config.seed,
        "sampler": "one pass" if is_one_pass else sample.sampler,
        "schedule": "" if is_one_pass else sample.schedule,
        "steps": 1 if is_one_pass else sample.num_steps,
        "samples": sample.num_samples,
    }


def protocol_lines(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns a protocol as texts by what they say."""
    said = {"N": f"{values['pictures']} pictures, hash {values['pictures_hash']}"}
    if values.get("list"):
        said["list"] = values["list"]
    said |= {name: values[name] for name in ("crop", "resize", "quantisation")}
    if "inception" in values["weights"]:
        reference = values["reference"]
        said["FID's reference"] = (
            f"{reference['pictures']} pictures, hash {reference['hash']}"
        )
    for network, digest in values["weights"].items():
        said[f"weights of {network}"] = f"sha256 {digest}"
    if "sampler" in values:
        said["checkpoint"] = values["checkpoint"]
        schedule = f", {values['schedule']} schedule" if values["schedule"] else ""
        said["sampler"] = f"{values['sampler']}, {values['steps']} steps{schedule}"
        said["seed"] = f"{values['seed']}; samples of each picture: {values['samples']}"
    return said


def degradation(task: str, config: ml_collections.ConfigDict) -> str:
    """Returns how pictures of a task were degraded."""
    options = {**config.eval.to_dict(), "gray": config.data.gray}
    return TASKS[task].degradation(options)


def warnings(judge: Judge, rows: Mapping[str, table.Values], count: int) -> list[str]:
    """Returns what is to be known of the numbers of a table."""
    said = list(judge.warnings)
    titles = table.titles(list(rows.values()))
    if count < table.MIN_PICTURES_FOR_FID and any(t.startswith("FID") for t in titles):
        said.append(
            f"FID of {count} pictures is a trend only: it falls with their number, so"
            " compare it with that of the same pictures alone; publish it of"
            f" {table.MIN_PICTURES_FOR_FID:,} or more"
        )
    if "MS-SSIM" in titles and judge.num_scales < structure.MAX_SCALES:
        said.append(
            f"MS-SSIM is over {judge.num_scales} of its {structure.MAX_SCALES} scales,"
            " since the pictures are small: it compares with no other size's"
        )
    return said


def absent_lines(absent: Mapping[str, str]) -> list[str]:
    """Returns a line for each reason why metrics are absent."""
    reasons: dict[str, list[str]] = {}
    for title, why in absent.items():
        reasons.setdefault(why, []).append(title)
    return [f"absent: {', '.join(titles)}: {why}" for why, titles in reasons.items()]


def of_evaluation(results: Mapping[str, Any], out: epath.Path) -> list[str]:
    """Returns the lines that end an evaluation in a terminal."""
    lines: list[str] = []
    for task, found in results["tasks"].items():
        lines += ["", f"{task} ({found['degradation']})", *table.text(found["rows"])]
        lines += paper_lines(found["paper"])
        lines += [f"warning: {warning}" for warning in found["warnings"]]
    lines += ["", *absent_lines(results["absent"])]
    said = protocol_lines(results["protocol"])
    lines += [f"{name}: {what}" for name, what in said.items()]
    return [*lines, *_summary(results), *_sheets(results, out)]


def of_pictures(results: Mapping[str, Any]) -> list[str]:
    """Returns the lines of an evaluation of pictures that another program made."""
    return [
        *table.text(results["rows"]),
        *paper_lines(results["paper"]),
        *(f"warning: {warning}" for warning in results["warnings"]),
        "",
        *absent_lines(results["absent"]),
        *(f"{k}: {what}" for k, what in protocol_lines(results["protocol"]).items()),
    ]


def paper_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Returns the paper's rows, for a terminal; nothing where there are none."""
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


def _sheets(results: Mapping[str, Any], out: epath.Path) -> list[str]:
    return [f"pictures: {out / f'{task}.png'}" for task in results["tasks"]]
