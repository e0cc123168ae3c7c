"""Judges a model on the evaluation pictures, beside what needs no model at all."""

import json

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax.config import task_names
from palette_jax.metrics import distortion
from palette_jax.programs import sheets
from palette_jax.programs.restored import SHEET_ROWS, Restored


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Prints a table and writes it with a contact sheet for each task.

    The model's figure is that of the mean of its samples: one sample is a guess among
    many, and no guess should be blamed for not being the original.
    """
    restored = Restored(config, workdir)
    out = epath.Path(workdir) / "evaluation" / f"step_{restored.step:07}"
    table = {}
    for task in task_names(config):
        trivial, model, sheet = [], [], []
        for batch, samples in restored.batches(task):
            has_hole = batch["hole"].any((1, 2, 3), keepdims=True)
            mask = np.where(has_hole, batch["hole"], 1)
            guess = distortion.trivial_estimate(batch["x"], batch["hole"])
            trivial.extend(distortion.psnr(guess, batch["y"], mask))
            model.extend(distortion.psnr(samples.mean(0), batch["y"], mask))
            sheet.extend(sheets.rows(batch, samples)[: SHEET_ROWS - len(sheet)])
        sheets.save_png(out / f"{task}.png", sheets.contact_sheet(sheet))
        table[task] = {
            "pictures": len(model),
            "trivial_psnr": float(np.mean(trivial)),
            "model_psnr": float(np.mean(model)),
        }
    report = {
        "step": restored.step,
        "seed": config.seed,
        "sample": config.sample.to_dict(),
        "eval": config.eval.to_dict(),
        "tasks": table,
    }
    if jax.process_index() == 0:
        (out / "table.json").write_text(json.dumps(report, indent=1))
        _print_table(report, out)
    return 0


def _print_table(report: dict, out: epath.Path) -> None:
    sample = report["sample"]
    print(
        f"\nStep {report['step']}, PSNR over the mask in dB, mean of"
        f" {sample['num_samples']} samples, {sample['num_steps']} steps of"
        f" {sample['sampler']}"
    )
    print(f"{'task':<10}{'pictures':>10}{'trivial':>10}{'model':>10}{'gain':>10}")
    for task, row in report["tasks"].items():
        gain = row["model_psnr"] - row["trivial_psnr"]
        print(
            f"{task:<10}{row['pictures']:>10}{row['trivial_psnr']:>10.2f}"
            f"{row['model_psnr']:>10.2f}{gain:>+10.2f}"
        )
    print("trivial: the mean known colour in a hole, the source elsewhere")
    for task in report["tasks"]:
        print(f"pictures: {out / f'{task}.png'}")
