"""Runs the jobs of a command: restores pictures and reports what was done."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from palette_jax import interruptible
from palette_jax.errors import UserError
from palette_jax.pictures import files, walk
from palette_jax.pictures.files import Photo
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


def progress_bar() -> Bar:
    """Returns a bar with the time left, on the error output."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),
        speed_estimate_period=3600,  # A step of a large picture takes minutes.
    )


@dataclasses.dataclass
class JobRunner:
    """Restores jobs and reports on the terminal.

    Attributes:
      suffix: of results, `.png` or `.jpg`.
      check_steps: prints how far results are from those of twice as many steps.
      as_json: prints the summary as JSON.
    """

    restorer: Restorer
    settings: Settings
    _: dataclasses.KW_ONLY
    suffix: str
    overwrite: bool
    check_steps: bool
    as_json: bool

    def __post_init__(self) -> None:
        """Starts without results."""
        self._failed: list[str] = []
        self._printed: set[object] = set()
        self._done = 0
        self._written: set[tuple[int, int]] = set()  # Files, by device and inode.

    def restore(self, jobs: Sequence[Job], skipped: Sequence[str]) -> int:
        """Restores the pictures that have no result yet.

        Args:
          jobs: of the pictures.
          skipped: files whose extension is not that of a picture, for the summary.

        Returns:
          0 if all pictures have results, 1 if not, 130 if the user stopped it.
        """
        waiting = [job for job in jobs if self._is_waiting(job)]
        there = len(jobs) - len(waiting) - len(self._failed)
        if there:
            print(f"{there} of {len(jobs)} results exist already")
        if waiting:
            for warning in self.restorer.check(self.settings):
                self._printed.add(warning)  # It is in the warnings of each result too.
                print(warning, file=sys.stderr)
        together = self.restorer.num_together
        with progress_bar() as bar:
            task = bar.add_task("", total=len(waiting))
            try:
                for start in range(0, len(waiting), together):
                    self._restore(waiting[start : start + together], bar, task)
                    bar.update(task, completed=min(start + together, len(waiting)))
            except KeyboardInterrupt:
                bar.stop()
                print(
                    f"stopped after {self._done} of {len(waiting)}; the same command"
                    " resumes",
                    file=sys.stderr,
                )
                return 130
        for line in self._failed:
            print(f"error: {line}", file=sys.stderr)
        there = len(jobs) - self._done - len(self._failed)
        self._summarize(len(jobs), there, skipped)
        return 1 if self._failed or skipped else 0

    def _summarize(self, count: int, there: int, skipped: Sequence[str]) -> None:
        """Prints how many pictures were found, restored and skipped."""
        extensions = walk.by_extension(skipped)
        summary = {
            "found": count + len(skipped),
            "restored": self._done,
            "existing": there,
            "failed": self._failed,
            "skipped_by_extension": extensions,
        }
        if self.as_json:
            print(json.dumps(summary))
        if self._failed or skipped:
            print(
                f"{summary['found']} found, {self._done} restored, {there} existed"
                f" already, {len(self._failed)} failed,"
                f" {walk.Walk([], [*skipped]).summary()}",
                file=sys.stderr,
            )
        if {".heic", ".heif", ".avif"} & extensions.keys():
            print(
                "to read HEIC files: pip install 'palette-jax[heic]'", file=sys.stderr
            )

    def _is_waiting(self, job: Job) -> bool:
        """Returns whether results are missing; refuses to overwrite other files."""
        targets = job.targets(self.settings, self.suffix)
        if any(_is_same(target, job.path) for target in targets):
            self._failed.append(
                f"{job.path}: its result would replace it; give another --out"
            )
            return False
        wanted = dict(zip(targets, self.settings.alone(), strict=True))
        wanted |= dict.fromkeys(job.beside(self.settings).values(), self.settings)
        if self.overwrite or not any(path.exists() for path in wanted):
            return True
        try:
            now = {**self.restorer.about, **job.about()}
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
            results = self._results(read, self.settings, advance)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            for job, *_ in read:
                self._fail(job, "the device has too little memory; give --large=shrink")
            return
        if self.check_steps:
            self._compare_steps(read, results)
        for (job, *_), result in zip(read, results, strict=True):
            # Another command may have written its files meanwhile, or this one, on a
            # disk for which a.png and A.png are one file.
            if not self.overwrite and not self._is_waiting(job):
                continue
            try:
                self._save(job, result)
            except UserError as error:
                self._fail(job, error)
                continue
            self._done += 1
            for warning in result.warnings:
                if warning not in self._printed:
                    _print(bar, f"{job.path}: {warning}")

    def _read(self, job: Job, bar: Any) -> _Read | None:
        try:
            photo = files.read(job.path)
            hole, warnings = hole_of(job, photo)
            self.restorer.prepare(photo, self.settings, hole=hole, hints=job.hints)
        except UserError as error:
            self._fail(job, error)
            return None
        for warning in warnings:
            if (job.mask, warning) not in self._printed:  # One mask may be that of all.
                self._printed.add((job.mask, warning))
                _print(bar, f"{job.path}: {warning}")
        return _Read(job, photo, hole)

    def _results(
        self,
        read: Sequence[_Read],
        settings: Settings,
        on_progress: OnProgress | None = None,
    ) -> list[Result]:
        return interruptible.call(
            lambda: self.restorer.restore_many(
                [photo for _, photo, _ in read],
                settings,
                holes=[hole for _, _, hole in read],
                hints=[job.hints for job, *_ in read],
                on_progress=on_progress,
            )
        )

    def _compare_steps(self, read: Sequence[_Read], results: Sequence[Result]) -> None:
        count = self.settings.steps["num_steps"]
        twice = dataclasses.replace(self.settings, num_steps=2 * count)
        finer = self._results(read, twice)
        for (job, *_), result, fine in zip(read, results, finer, strict=True):
            error = result.distance(fine)
            print(
                f"{job.path}: {count} steps are {error:.2f} of 255 (root mean square)"
                f" from {2 * count} steps"
            )

    def _save(self, job: Job, result: Result) -> None:
        about = job.about()
        targets = job.targets(self.settings, self.suffix)
        if result.alpha is not None and self.suffix == ".jpg":
            result.warnings.append("a JPEG has no opacity; png keeps it")
        written = [*targets, *job.beside(self.settings).values()]
        for path in written:
            if path.exists() and _inode(path) in self._written:
                raise UserError(
                    f"{path} is the result of another picture, because the disk does"
                    " not distinguish upper and lower case; give it another --out"
                )
        outputs.save_diversity(job, result, about)
        for index, target in enumerate(targets):
            result.save(target, index=index, about=about)
            print(target, flush=True)
        self._written.update(map(_inode, written))

    def _fail(self, job: Job, why: object) -> None:
        text = str(why)
        self._failed.append(text if str(job.path) in text else f"{job.path}: {text}")


def _print(bar: Any, text: str) -> None:
    # In a pipe, rich would wrap lines at 80 columns.
    bar.console.print(text, markup=False, soft_wrap=True)


def _inode(path: pathlib.Path) -> tuple[int, int]:
    """Returns what identifies a file under any spelling of its name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_same(target: pathlib.Path, path: pathlib.Path) -> bool:
    return target.exists() and path.exists() and target.samefile(path)
