"""Evaluates a run: samples into folders, and measures them with the evaluator."""

import json
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax import atomic, parallel
from palette_jax.config import build_data, identity
from palette_jax.config.values import task_names
from palette_jax.data import sources
from palette_jax.errors import MetricError
from palette_jax.evaluation import (
    evaluator,
    folders,
    references,
    report,
    summary,
    table,
)
from palette_jax.evaluation.metrics import pictures, weight_files
from palette_jax.evaluation.restored import SHEET_ROWS, Folders, Restored
from palette_jax.evaluation.suite import MetricSuite
from palette_jax.pictures import image_list, sheets
from palette_jax.tasks import TASKS

_COLOUR = ("colourfulness", "a*", "b*")


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Restores the evaluation pictures, measures them, and writes tables and a report.

    Everything is saved at once, so the same command resumes a stopped evaluation.

    Raises:
      Stopped: on a request to stop.
      MetricError: for pictures that cannot be measured.
    """
    evaluation = Evaluation(config, workdir)
    for task in task_names(config):
        evaluation.measure_task(task)
    if jax.process_index() == 0:
        page = report.write(evaluation.out, epath.Path(workdir))
        print(*summary.of_run(evaluation.results(), evaluation.out), sep="\n")
        print(f"report: {page}")
    return 0


class Evaluation:
    """One checkpoint, measured on the evaluation pictures."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        """Loads the checkpoint and the metrics, and checks the pictures."""
        self._config = config
        self._restored = restored = Restored(config, workdir)
        self._root = epath.Path(workdir) / "evaluation"
        self.out = self._root / f"step_{restored.step:07}"
        tasks = task_names(config)
        names, gray = restored.look(tasks[0])
        if len(names) < 2:
            raise MetricError(
                "expected two pictures or more to evaluate on, got only"
                f" {', '.join(names)}; raise data.num_eval or eval.num_images"
            )
        if "colorize" in tasks:
            pictures.refuse_gray_set(gray, names)
        self._names = names
        self._list = None
        if config.data.eval_list:
            self._list = image_list.read(config.data.eval_list)
        size = config.data.image_size
        at_once = min(config.eval.batch_size, references.batch_size(size, size))
        self._suite = MetricSuite(
            size,
            size,
            batch_size=-(-at_once // jax.process_count()),
            has_labels=self._list is not None and bool(self._list.labels),
            protocol=config.eval.protocol,
        )
        self._hash = self._hash_of(restored.source)
        self._reference = self._refers_to()
        masks = config.eval.mask_file
        self._masks = weight_files.sha256(masks) if masks else ""
        self._tasks: dict[str, Any] = {}

    def measure_task(self, task: str) -> None:
        """Restores the pictures of a task, measures them, and writes its results."""
        settings = self._settings(task)
        sample = self._config.sample
        how = f"{sample.sampler}_{sample.num_steps}_seed_{self._config.seed}"
        if self._config.diffusion.objective == "regress":
            how = "one_pass"
        folder = self.out / task / f"{how}_{identity.digest(settings)}"
        saved = Folders(folder, self._names, sample.num_samples)
        self._restored.into_folders(task, saved, self._names)
        kinds = ["trivial", *saved.samples, *["mean"] * (sample.num_samples > 1)]
        same = identity.digest([self._hash, self._names, identity.CODE])
        rows, _ = evaluator.evaluate(
            self._suite,
            evaluator.Pictures(
                saved.files("original", self._names),
                {kind: saved.files(kind, self._names) for kind in kinds},
                saved.files("mask", self._names),
                listed=self._list,
            ),
            self._reference,
            cache=folder / "measured",
            own_caches={
                "originals": self._root / "originals" / same,
                "trivial": self._root / "trivial" / self._hash_of_trivial(saved, same),
            },
            refuse_gray={},
            check_stop=self._restored.check_stop,
        )
        if jax.process_index() == 0:
            _write(folder / "settings.json", settings)
            self._tasks[task] = self._results(task, rows, saved)
            self._write_sheet(task, saved)
            _write(self.out / "table.json", self.results())
            # Kept when a later evaluation, of other pictures, replaces the table.
            own = self.results() | {"tasks": {task: self._tasks[task]}}
            _write(folder / "table.json", own)

    def results(self) -> dict[str, Any]:
        """Returns the content of table.json."""
        size = self._config.data.image_size
        return {
            "step": self._restored.step,
            "seed": self._config.seed,
            "sample": self._config.sample.to_dict(),
            "eval": self._config.eval.to_dict()
            | {"mask_file": epath.Path(self._config.eval.mask_file).name},
            "protocol": summary.statement(
                self._suite,
                pictures=len(self._names),
                pictures_hash=self._hash,
                list_file=epath.Path(self._config.data.eval_list or "").name,
                size=size,
                reference=self._about_reference(),
            )
            | summary.statement_of_run(self._config, self._restored.step),
            "absent": self._suite.absent,
            "tasks": self._tasks,
        }

    def _settings(self, task: str) -> dict[str, Any]:
        """Returns all settings that determine the restored pictures."""
        return {
            "task": task,
            "checkpoint": self._restored.fingerprint,
            "pictures": self._hash,
            "names": identity.digest(self._names),
            "batch_size": self._config.eval.batch_size,
            "code": identity.CODE,
            "protocol": identity.protocol(self._config),
            "masks": self._masks,
        }

    def _hash_of(self, source: sources.Source, *, seen: bool = False) -> str:
        """Returns a hash of the pictures on host 0; empty on other hosts."""
        if jax.process_index() != 0:
            return ""
        sums, size = sources.checksums(source), self._config.data.image_size
        return references.pictures_hash(self._suite, sums, size, seen=seen)

    def _hash_of_trivial(self, saved: Folders, same: str) -> str:
        """Returns a hash of the baseline, which no setting of the sampler changes."""
        if jax.process_index() != 0:
            return ""  # Host 0 reads and writes.
        kinds = [saved.files(kind, self._names) for kind in ("trivial", "mask")]
        return identity.digest([same, *map(folders.checksums, kinds)])

    def _refers_to(self) -> references.Reference:
        """Returns the reference of Fréchet distances: all evaluation pictures."""
        config, task = self._config, task_names(self._config)[0]
        everything = build_data.reference_source(config)
        if len(everything) == len(self._restored.source):
            return references.Reference(len(everything), self._hash)

        def batches(start: int, stop: int) -> Any:
            some = everything.select(range(start, stop))
            yield from _originals(build_data.eval_batches(config, task, source=some))

        digest = self._hash_of(everything, seen=True)
        return references.Reference(len(everything), digest, batches)

    def _results(
        self, task: str, found: dict[str, table.Row], saved: Folders
    ) -> dict[str, Any]:
        config, samples = self._config, [found[name] for name in saved.samples]
        mean = table.mean_row(samples)
        rows = {
            summary.ORIGINALS: found["originals"],
            "trivial baseline": found["trivial"],
            "model": mean.joined(found["model"]),
        }
        if len(samples) > 1:
            rows[f"mean of {len(samples)} samples"] = found["mean"]
        if task != "colorize":
            rows = {name: row.without(_COLOUR) for name, row in rows.items()}
        found_results = evaluator.task_results(
            self._suite,
            rows,
            "model",
            list(saved.files("original", self._names)),
            self._list,
            self._about_reference(),
            task=task,
            degradation=config.eval.to_dict(),
            size=config.data.image_size,
        )
        return {
            "pictures": len(self._names),
            "trivial_psnr": rows["trivial baseline"].values["PSNR"],
            "model_psnr": rows["model"].values["PSNR"],
            "model_psnr_of_mean": list(rows.values())[-1].values["PSNR"],
            **found_results,
            "samples": [sample.values for sample in samples],
            "degradation": TASKS[task].degradation(
                config.eval.to_dict() | {"gray": config.data.gray}
            ),
            "folder": str(saved.folder.relative_to(self.out)),
        }

    def _about_reference(self) -> dict[str, Any]:
        return {"pictures": self._reference.count, "hash": self._reference.hash}

    def _write_sheet(self, task: str, saved: Folders) -> None:
        names = self._names[:SHEET_ROWS]
        kinds = ["given", *saved.samples, "original"]
        columns = [
            folders.load(list(saved.files(kind, names).values()), None)
            for kind in kinds
        ]
        rows = [list(row) for row in zip(*columns, strict=True)]
        sheets.save_png(self.out / f"{task}.png", sheets.contact_sheet(rows))


def _originals(batches: Any) -> Any:
    """Yields names and clean pictures of batches, on every host."""
    for batch in batches:
        whole = parallel.gather_batch({k: batch[k] for k in ("y", "name", "valid")})
        valid = np.flatnonzero(whole["valid"])
        if len(valid):
            yield whole["name"][valid].tolist(), whole["y"][valid]


def _write(path: epath.Path, values: Any) -> None:
    atomic.write_text(path, json.dumps(values, indent=1))
