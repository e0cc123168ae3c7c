"""Judges a model on the evaluation pictures, beside what needs no model at all."""

import json
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax.config import build_data, identity
from palette_jax.config.values import task_names
from palette_jax.evaluation import originals, paper, report, table, words
from palette_jax.evaluation.judge import PIXELS, Judge
from palette_jax.evaluation.metrics import distortion, pictures
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.evaluation.parts import (
    Parts,
    Pictures,
    write_whole,
)
from palette_jax.pictures import image_list, sheets
from palette_jax.programs.restored import SHEET_ROWS, Restored


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Restores the evaluation pictures, measures them, and writes tables and a report.

    All that is made is kept at once, so the same command goes on where it was stopped.

    Raises:
      Stopped: when told to.
      MetricError: for pictures of which nothing can be said.
    """
    restored = Restored(config, workdir)
    evaluation = Evaluation(config, workdir, restored)
    evaluation.measure_originals()
    for task in task_names(config):
        evaluation.measure_task(task)
    if jax.process_index() == 0:
        page = report.write(evaluation.out, epath.Path(workdir))
        print(*words.of_evaluation(evaluation.results(), evaluation.out), sep="\n")
        print(f"report: {page}")
    return 0


class Evaluation:
    """One checkpoint, measured on the evaluation pictures.

    Attributes:
      out: where the results of this checkpoint go.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: str, restored: Restored
    ):
        """Loads the metrics and looks at which pictures there are."""
        self._config = config
        self._restored = restored
        self._root = epath.Path(workdir) / "evaluation"
        self.out = self._root / f"step_{restored.step:07}"
        source, size = restored.source, config.data.image_size
        self._all_names = self._names = source.names.tolist()
        if len(self._names) < 2:
            raise MetricError(
                "expected two pictures or more to evaluate on, got only"
                f" {', '.join(self._names)}; raise data.num_eval or eval.num_images"
            )
        self._list = None
        if config.data.eval_list:
            self._list = image_list.read(config.data.eval_list)
        self._judge = Judge(
            size,
            size,
            batch_size=-(-config.eval.batch_size // jax.process_count()),
            has_labels=self._list is not None and bool(self._list.labels),
        )
        self._hash = originals.pictures_hash(source, size)
        self._originals: dict[str, dict[str, np.ndarray]] = {}
        self._reference: dict[str, Any] = {}
        self._originals_row: table.Values = {}
        self._protocol: dict[str, Any] = {}
        self._tasks: dict[str, Any] = {}

    def measure_originals(self) -> None:
        """Measures the original pictures, and what Fréchet distances refer to."""
        config, judge = self._config, self._judge
        order = {
            "names": self._names,
            "batch_size": config.eval.batch_size,
            "code": identity.CODE,
        }
        folder = self._root / "originals" / f"{self._hash}_{identity.digest(order)}"
        check_stop = self._restored.check_stop
        source = self._restored.source
        self._originals = originals.measure(config, source, judge, folder, check_stop)
        everything = build_data.reference_source(config)
        reference = {"pictures": len(everything), "hash": self._hash}
        is_own = len(everything) == len(self._names)
        if "inception" in judge.parts and not is_own:
            self._reference, reference["hash"] = originals.reference_statistics(
                config, everything, judge, check_stop
            )
        if jax.process_index() != 0:
            return
        measured = self._originals[PIXELS]
        self._names = measured["name"].tolist()  # Without broken ones.
        if "colorize" in task_names(config):
            pictures.refuse_gray_set(measured["originals/gray"], self._names)
        if is_own and "inception" in judge.parts:
            self._reference = table.statistics(
                self._originals["inception"], "originals", self._names
            )
        self._originals_row = self._row("originals", self._originals)
        self._protocol = words.protocol(
            config, self._restored.step, judge, self._names, self._hash, reference
        )
        rows = {"original pictures": self._originals_row}
        print(*table.text(rows), sep="\n", flush=True)

    def measure_task(self, task: str) -> None:
        """Restores the pictures of a task, measures them, and writes its results."""
        settings = self._settings(task)
        sample = self._config.sample
        how = f"{sample.sampler}_{sample.num_steps}_seed_{self._config.seed}"
        if self._config.diffusion.objective == "regress":
            how = "one_pass"
        folder = self.out / task / f"{how}_{identity.digest(settings)}"
        kept = Pictures(folder, self._all_names, sample.num_samples)
        count = -(-len(self._all_names) // self._config.eval.batch_size)
        parts = {
            part: Parts(folder / "measured" / self._judge.part_name(part), count)
            for part in self._judge.parts
        }
        done = [part.are_complete() for part in parts.values()]
        if not all([*done, kept.has(self._names)]):
            self._measure_batches(task, kept, parts)
        if jax.process_index() == 0:
            measured = {part: arrays.join() for part, arrays in parts.items()}
            write_whole(folder / "settings.json", _json(settings))
            self._tasks[task] = self._results(task, measured, kept)
            self._write_sheet(task, kept)
            write_whole(self.out / "table.json", _json(self.results()))
            # Kept where the next evaluation, of other pictures, replaces the table.
            own = self.results() | {"tasks": {task: self._tasks[task]}}
            write_whole(folder / "table.json", _json(own))

    def results(self) -> dict[str, Any]:
        """Returns what table.json holds."""
        return {
            "step": self._restored.step,
            "seed": self._config.seed,
            "sample": self._config.sample.to_dict(),
            "eval": self._config.eval.to_dict(),
            "protocol": self._protocol,
            "absent": self._judge.absent,
            "tasks": self._tasks,
        }

    def _settings(self, task: str) -> dict[str, Any]:
        """Returns all that the restored pictures follow from."""
        return {
            "task": task,
            "checkpoint": self._restored.fingerprint,
            "pictures": self._hash,
            "names": identity.digest(self._all_names),
            "batch_size": self._config.eval.batch_size,
            "code": identity.CODE,
            "protocol": identity.protocol(self._config),
        }

    def _measure_batches(
        self, task: str, kept: Pictures, parts: dict[str, Parts]
    ) -> None:
        for index, (batch, samples) in enumerate(
            self._restored.batches(task, kept=kept)
        ):
            guess = distortion.trivial_estimate(batch["x"], batch["hole"])
            rows = {"trivial": np.round(guess).astype(np.uint8)}
            rows |= {f"sample_{i}": sample for i, sample in enumerate(samples)}
            has_hole = batch["hole"].any((1, 2, 3), keepdims=True)
            mask = np.where(has_hole, batch["hole"], 1).astype(np.uint8)
            for part, arrays in parts.items():
                if arrays.has(index):
                    continue
                self._restored.check_stop()
                found = {"name": batch["name"]}
                if len(batch["name"]):
                    own = dict(rows)
                    if part == PIXELS and len(samples) > 1:
                        own["mean"] = np.round(samples.mean(0)).astype(np.uint8)
                    found |= self._judge.measure(
                        part, own, reference=batch["y"], mask=mask
                    )
                arrays.save(index, found)

    def _results(
        self, task: str, measured: table.Measured, kept: Pictures
    ) -> dict[str, Any]:
        """Returns what the file of results holds of a task."""
        count = self._config.sample.num_samples
        samples = [self._row(f"sample_{index}", measured) for index in range(count)]
        rows = {
            "original pictures": dict(self._originals_row),
            "trivial baseline": self._row("trivial", measured),
            "model": table.mean_row(samples) | self._row("model", measured),
        }
        if count > 1:
            rows[f"mean of {count} samples"] = self._row("mean", measured)
        if task != "colorize":
            for values in rows.values():
                for metric in ("colourfulness", "a*", "b*"):
                    values.pop(metric, None)
        expected, why = paper.find(
            task,
            self._config.eval.to_dict(),
            protocol=self._list.protocol if self._list else "",
            pictures=len(self._names),
            size=self._config.data.image_size,
            reference_pictures=self._protocol["reference"]["pictures"],
        )
        psnr = [measured[PIXELS][f"sample_{i}/psnr"] for i in range(count)]
        of_file = dict(
            zip(map(kept.file, self._names), np.mean(psnr, 0).tolist(), strict=True)
        )
        return {
            "pictures": len(self._names),
            "trivial_psnr": rows["trivial baseline"]["PSNR"],
            "model_psnr": rows["model"]["PSNR"],
            "model_psnr_of_mean": list(rows.values())[-1]["PSNR"],
            "rows": rows,
            "samples": samples,
            "paper": expected._asdict() if expected else None,
            "no_paper": why,
            "degradation": words.degradation(task, self._config),
            "warnings": words.warnings(self._judge, rows, len(self._names)),
            "folder": str(kept.folder.relative_to(self.out)),
            "psnr": of_file,
        }

    def _row(self, name: str, measured: table.Measured) -> table.Values:
        labels = None
        if self._list:
            found = [self._list.label(name) for name in self._names]
            labels = np.array([-1 if label is None else label for label in found])
        return table.row(
            name,
            measured,
            names=self._names,
            originals=self._originals,
            reference=self._reference,
            labels=labels,
            in_order=bool(self._list and self._list.protocol),
        )

    def _write_sheet(self, task: str, kept: Pictures) -> None:
        names = self._names[:SHEET_ROWS]
        kinds = ["given", *kept.samples_by_name, "original"]
        columns = [kept.load(kind, names) for kind in kinds]
        rows = [list(row) for row in zip(*columns, strict=True)]
        sheets.save_png(self.out / f"{task}.png", sheets.contact_sheet(rows))


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=1).encode()
