"""Restores the evaluation pictures and writes them out, to look at and to keep."""

import json

import jax
import ml_collections
from absl import logging
from etils import epath

from palette_jax.config import task_names
from palette_jax.programs import sheets
from palette_jax.programs.restored import SHEET_ROWS, Restored


def sample(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Writes each result under its input's name, a contact sheet, and the settings."""
    restored = Restored(config, workdir)
    for task in task_names(config):
        out = epath.Path(workdir) / "samples" / f"step_{restored.step:07}" / task
        written, sheet, stems = [], [], set()
        for batch, samples in restored.batches(task):
            for i, name in enumerate(batch["name"]):
                stem = _stem(name)
                if stem in stems:  # Of `1.jpg` and `1.png` the second is `1.png.png`.
                    stem = str(name)
                stems.add(stem)
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
            if len(sheet) < SHEET_ROWS:
                sheet.extend(sheets.rows(batch, samples)[: SHEET_ROWS - len(sheet)])
        sheets.save_png(out / "contact_sheet.png", sheets.contact_sheet(sheet))
        settings = {
            "step": restored.step,
            "seed": config.seed,
            "task": task,
            "sample": config.sample.to_dict(),
            "eval": config.eval.to_dict(),
            "results": written,
        }
        if jax.process_index() == 0:
            (out / "samples.json").write_text(json.dumps(settings, indent=1))
        logging.info("%d results and contact_sheet.png are in %s", len(written), out)
    return 0


def _stem(name: str) -> str:
    """Returns a name without its extension; `photo/1.2` has none."""
    return name.rsplit(".", 1)[0] if name.lower().endswith(_EXTENSIONS) else name


_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
