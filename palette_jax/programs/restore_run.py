"""Restores the pictures of a command, and tells what became of each."""

import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from palette_jax import interruptible
from palette_jax.errors import UserError
from palette_jax.pictures import files, walk
from palette_jax.pictures.files import Photo
from palette_jax.programs import photo_flags
from palette_jax.restoration import outputs
from palette_jax.restoration.jobs import Job, hole_of
from palette_jax.restoration.progress import OnProgress, Progress
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings


class _Read(NamedTuple):
    """A job whose files could be read."""

    job: Job
    photo: Photo
    hole: UInt8[np.ndarray, "h w 1"] | None


class RestoreRun:
    """Restores jobs, counts what became of them, and says it at the end."""

    def __init__(
        self,
        restorer: Restorer,
        settings: Settings,
        *,
        suffix: str,
        overwrite: bool,
        check_steps: bool,
        as_json: bool,
    ):
        """Takes the flags of the command.

        Args:
          restorer: with its network.
          settings: of every picture.
          suffix: of results, `.png` or `.jpg`.
          overwrite: replaces files that exist.
          check_steps: prints how far results are from those of twice as many steps.
          as_json: prints the summary as JSON.
        """
        self._restorer, self._settings = restorer, settings
        self._suffix, self._overwrite = suffix, overwrite
        self._checks_steps, self._as_json = check_steps, as_json
        self._failed: list[str] = []
        self._told: set[object] = set()
        self._done = 0

    def restore(self, jobs: Sequence[Job], left_out: Sequence[str]) -> int:
        """Restores what is not there yet.

        Args:
          jobs: of the pictures.
          left_out: files that are no pictures by their ending, which are counted.

        Returns:
          0 if all are there now, 1 if not, 130 if the user stopped it.
        """
        waiting = [job for job in jobs if self._is_to_do(job)]
        there = len(jobs) - len(waiting) - len(self._failed)
        if there:
            print(f"{there} of {len(jobs)} are there already")
        if waiting:
            for warning in self._restorer.check(self._settings):
                self._told.add(warning)  # It is in the warnings of each result too.
                print(warning, file=sys.stderr)
        together = self._restorer.num_together
        with photo_flags.progress_bar() as bar:
            task = bar.add_task("", total=len(waiting))
            try:
                for start in range(0, len(waiting), together):
                    self._restore(waiting[start : start + together], bar, task)
                    bar.update(task, completed=min(start + together, len(waiting)))
            except KeyboardInterrupt:
                bar.stop()
                print(
                    f"stopped after {self._done} of {len(waiting)}; the same command"
                    " goes on from there",
                    file=sys.stderr,
                )
                return 130
        for line in self._failed:
            print(f"error: {line}", file=sys.stderr)
        self._summarize(len(jobs), there, left_out)
        return 1 if self._failed or left_out else 0

    def _summarize(self, count: int, there: int, left_out: Sequence[str]) -> None:
        """Says how many pictures were found, restored and left out, and why."""
        endings = collections.Counter(map(walk.kind, left_out))
        summary = {
            "found": count + len(left_out),
            "restored": self._done,
            "there_already": there,
            "failed": self._failed,
            "left_out_by_ending": dict(endings.most_common()),
        }
        if self._as_json:
            print(json.dumps(summary))
        if self._failed or left_out:
            listed = "".join(f", {n} {end}" for end, n in endings.most_common())
            print(
                f"{summary['found']} found, {self._done} restored, {there} there"
                f" already, {len(self._failed)} failed, {len(left_out)} left out by"
                f" ending{listed}",
                file=sys.stderr,
            )
        if {".heic", ".heif", ".avif"} & endings.keys():
            print(
                "to read HEIC files: pip install 'palette-jax[heic]'", file=sys.stderr
            )

    def _is_to_do(self, job: Job) -> bool:
        """Whether results are missing; what would be overwritten has failed."""
        targets = job.targets(self._settings, self._suffix)
        if any(_is_same(target, job.path) for target in targets):
            self._failed.append(
                f"{job.path}: its result would replace it; give another --out"
            )
            return False
        wanted = dict(zip(targets, self._settings.alone(), strict=True))
        wanted |= dict.fromkeys(job.beside(self._settings).values(), self._settings)
        if self._overwrite or not any(path.exists() for path in wanted):
            return True
        try:
            now = {**self._restorer.about, **job.about()}
        except OSError as error:
            self._failed.append(f"{job.path}: {error}")
            return False
        for path, settings in wanted.items():
            if path.exists() and not outputs.is_result(path, now, settings):
                self._failed.append(
                    f"{job.path}: {path} exists and is no result of these settings;"
                    " give --overwrite, or another --out"
                )
                return False
        return not all(path.exists() for path in wanted)

    def _restore(self, jobs: Sequence[Job], bar: Any, task: Any) -> None:
        read = [found for job in jobs if (found := self._read(job, bar))]
        if not read:
            return
        before = bar.tasks[0].completed
        bar.update(task, description=read[0].job.path.name)

        def advance(progress: Progress) -> None:
            share = progress.done / progress.total
            bar.update(task, completed=before + share * len(jobs))

        try:
            results = self._results(read, self._settings, advance)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            for job, *_ in read:
                self._fail(job, "the device has too little memory; give --large=shrink")
            return
        if self._checks_steps:
            self._check_steps(read, results)
        for (job, *_), result in zip(read, results, strict=True):
            try:
                self._save(job, result)
            except UserError as error:
                self._fail(job, error)
                continue
            self._done += 1
            for warning in result.warnings:
                if warning not in self._told:
                    _print(bar, f"{job.path}: {warning}")

    def _read(self, job: Job, bar: Any) -> _Read | None:
        """Reads the files of a job; None if it cannot be restored."""
        try:
            photo = files.read(job.path)
            hole, warnings = hole_of(job, photo)
            self._restorer.prepare(photo, self._settings, hole=hole, hints=job.hints)
        except UserError as error:
            self._fail(job, error)
            return None
        for warning in warnings:
            if (job.mask, warning) not in self._told:  # One mask may be that of all.
                self._told.add((job.mask, warning))
                _print(bar, f"{job.path}: {warning}")
        return _Read(job, photo, hole)

    def _results(
        self,
        read: Sequence[_Read],
        settings: Settings,
        on_progress: OnProgress | None = None,
    ) -> list[Result]:
        return interruptible.call(
            lambda: self._restorer.restore_many(
                [photo for _, photo, _ in read],
                settings,
                holes=[hole for _, _, hole in read],
                hints=[job.hints for job, *_ in read],
                on_progress=on_progress,
            )
        )

    def _check_steps(self, read: Sequence[_Read], results: Sequence[Result]) -> None:
        """Prints how far results are from those of twice as many steps."""
        count = self._settings.steps["num_steps"]
        twice = dataclasses.replace(self._settings, num_steps=2 * count)
        finer = self._results(read, twice)
        for (job, *_), result, fine in zip(read, results, finer, strict=True):
            error = result.distance(fine)
            print(
                f"{job.path}: {count} steps are {error:.2f} of 255 (root mean square)"
                f" from {2 * count} steps"
            )

    def _save(self, job: Job, result: Result) -> None:
        about = job.about()
        targets = job.targets(self._settings, self._suffix)
        if result.alpha is not None and self._suffix == ".jpg":
            result.warnings.append("a JPEG has no opacity; png keeps it")
        outputs.save_diversity(job, result, about)
        for index, target in enumerate(targets):
            result.save(target, index=index, about=about)
            print(target, flush=True)

    def _fail(self, job: Job, why: object) -> None:
        text = str(why)
        self._failed.append(text if str(job.path) in text else f"{job.path}: {text}")


def _print(bar: Any, text: str) -> None:
    # In a pipe, rich would wrap lines at 80 columns.
    bar.console.print(text, markup=False, soft_wrap=True)


def _is_same(target: pathlib.Path, path: pathlib.Path) -> bool:
    return target.exists() and path.exists() and target.samefile(path)
