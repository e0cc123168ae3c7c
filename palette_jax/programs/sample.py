"""Restores the evaluation pictures and writes the results."""

import json

import jax
import ml_collections
from absl import logging
from etils import epath

from palette_jax import atomic
from palette_jax.config.values import task_names
from palette_jax.evaluation.restored import SHEET_ROWS, Restored, file_names
from palette_jax.pictures import sheets


def sample(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Writes each result under its input's name, a contact sheet, and the settings.

    With several samples it also writes a grid and a picture of their deviation for each
    input.
    """
    restored = Restored(config, workdir)
    stems = file_names(restored.source.names.tolist())
    for task in task_names(config):
        out = epath.Path(workdir) / "samples" / f"step_{restored.step:07}" / task
        written, sheet, several = [], [], config.sample.num_samples > 1
        for batch, samples in restored.batches(task):
            rows = sheets.rows(batch, samples, with_deviation=several)
            for i, name in enumerate(batch["name"]):
                stem = stems[str(name)]
                if several:
                    grid = sheets.contact_sheet([rows[i]], with_deviation=True)
                    sheets.save_png(out / f"{stem}_grid.png", grid)
                    sheets.save_png(out / f"{stem}_deviation.png", rows[i][-2])
                for index, image in enumerate(samples[:, i]):
                    suffix = f"_{index}" if len(samples) > 1 else ""
                    path = out / f"{stem}{suffix}.png"
                    sheets.save_png(path, image)
                    written.append(
                        {
                            "file": str(path.relative_to(out)),
                            "input": str(name),
                            "image_id": int(batch["id"][i]),
                            "sample": index,
                        }
                    )
            sheet.extend(rows[: SHEET_ROWS - len(sheet)])
        sheets.save_png(
            out / "contact_sheet.png",
            sheets.contact_sheet(sheet, with_deviation=several),
        )
        settings = {
            "step": restored.step,
            "seed": config.seed,
            "task": task,
            "sample": config.sample.to_dict(),
            "eval": config.eval.to_dict(),
            "results": written,
        }
        if jax.process_index() == 0:
            atomic.write_text(out / "samples.json", json.dumps(settings, indent=1))
        logging.info("%d results and contact_sheet.png are in %s", len(written), out)
    return 0
