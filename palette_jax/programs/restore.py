"""`palette-jax restore`: the pictures of a user, restored one by one to files."""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from palette_jax import interruptible
from palette_jax.config.build_restorer import SHIPPED, load_restorer
from palette_jax.errors import UserError
from palette_jax.pictures import files, walk
from palette_jax.programs import photo_files, photo_flags, photo_results
from palette_jax.programs.photo_files import Job
from palette_jax.restoration.progress import Progress
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO|FOLDER",
        help="pictures, or folders with all that is in them",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        help=" ".join(f"{task.name}: {task.sentence}" for task in TASKS.values()),
    )
    photo_flags.add_steps(parser)
    parser.add_argument(
        "--num-samples", type=int, metavar="N", help="different results for each"
    )
    parser.add_argument(
        "--mask",
        metavar="FILE|FOLDER",
        help="for inpaint: white is filled in, black is kept; a folder has a mask"
        " for each picture, of the same name",
    )
    parser.add_argument(
        "--hints",
        metavar="FILE",
        help="for colorize: a picture whose opaque pixels have true colours",
    )
    parser.add_argument("--invert", action="store_true", help="paint what is black")
    parser.add_argument(
        "--check-mask",
        action="store_true",
        help="restore nothing; write each picture with what would be painted in red",
    )
    parser.add_argument(
        "--side",
        choices=(*Sides._fields, "all"),
        help="for uncrop: where to extend the picture",
    )
    parser.add_argument(
        "--extend",
        dest="extend_share",
        type=photo_flags.extension,
        metavar="SHARE",
        help="for uncrop: by how much of its width or height (default: 50%%); or, with"
        " no --side, by how much at each, e.g. left=50%%,top=25%%",
    )
    parser.add_argument(
        "--keep-luminance",
        action="store_true",
        default=None,
        help="for colorize: the result has the input's luma",
    )
    parser.add_argument(
        "--like", metavar="OLD", help="take the settings of a result from its file"
    )
    parser.add_argument(
        "--format",
        default="png",
        choices=("png", "jpg"),
        help="png keeps known pixels to the bit (default); jpg does not",
    )
    parser.add_argument(
        "--check-steps",
        action="store_true",
        help="print how far each result is from one of twice as many steps",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what became of the pictures as JSON"
    )
    photo_files.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Restores what the flags name; returns 1 if a picture could not be."""
    like = _read_like(args.like) if args.like else {}
    for name in ("checkpoint", "mask", "hints"):
        # A result holds names alone, not places.
        if like.get(name) and not getattr(args, name):
            raise UserError(
                f"expected --{name} with --like, since the result was made with one"
                f" named {like[name]}, got none; give --{name}=PATH"
            )
    mask, invert = args.mask, args.invert or like.get("invert", False)
    jobs, left_out = photo_files.find(
        args.photos,
        pathlib.Path(args.out),
        mask=mask,
        invert=invert,
        hints=args.hints,
    )
    photo_files.check_out(pathlib.Path(args.out))
    if args.check_mask:
        return photo_results.check_masks(jobs, args.overwrite)
    named, old = args.checkpoint, like.get("settings", {})
    restorer = load_restorer(named, task=args.task or old.get("task"))
    if named is None:
        weights = restorer.about["weights"]
        print(f"with {weights}; what it can do: {SHIPPED / 'README.md'}")
    _compare_weights(like, restorer)
    settings = _settings(args, like, restorer)
    if (mask is None) == TASKS[settings.task].needs_mask:
        raise UserError(
            f"expected --mask with task inpaint and no other, got task {settings.task}"
            + (" without" if mask is None else f" and --mask={mask}")
        )
    restorer.check(settings)
    if args.check_steps and restorer.student_steps:
        raise UserError(
            "expected a network that can take twice as many steps with --check-steps,"
            f" got one that was distilled for {restorer.student_steps}; leave"
            " --check-steps out"
        )
    return _Run(args, restorer, settings).all(jobs, left_out)


class _Run:
    """Restores jobs, counts what became of them, and says it at the end."""

    def __init__(
        self, args: argparse.Namespace, restorer: Restorer, settings: Settings
    ):
        self._args, self._restorer, self._settings = args, restorer, settings
        self._suffix = f".{args.format}"
        self._failed: list[str] = []
        self._done = 0

    def all(self, jobs: Sequence[Job], left_out: Sequence[str]) -> int:
        waiting = [job for job in jobs if self._is_to_do(job)]
        there = len(jobs) - len(waiting) - len(self._failed)
        if there:
            print(f"{there} of {len(jobs)} are there already")
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
        endings = collections.Counter(walk.ending(name) or "none" for name in left_out)
        summary = {
            "found": count + len(left_out),
            "restored": self._done,
            "there_already": there,
            "failed": self._failed,
            "left_out_by_ending": dict(endings.most_common()),
        }
        if self._args.json:
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
        if self._args.overwrite or not any(path.exists() for path in wanted):
            return True
        try:
            now = {**self._restorer.about, **job.about()}
        except OSError as error:
            self._failed.append(f"{job.path}: {error}")
            return False
        for path, settings in wanted.items():
            if path.exists() and not photo_results.is_result(path, now, settings):
                self._failed.append(
                    f"{job.path}: {path} exists and is no result of these settings;"
                    " give --overwrite, or another --out"
                )
                return False
        return not all(path.exists() for path in wanted)

    def _restore(self, jobs: Sequence[Job], bar: Any, task: Any) -> None:
        photos, holes, read = [], [], []
        for job in jobs:
            try:
                photo = files.read(job.path)
                hole, warnings = photo_files.hole_of(job, photo)
                self._restorer.prepare(
                    photo, self._settings, hole=hole, hints=job.hints
                )
            except UserError as error:
                self._fail(job, error)
                continue
            for warning in warnings:
                _warn(bar, f"{job.path}: {warning}")
            photos.append(photo)
            holes.append(hole)
            read.append(job)
        if not read:
            return
        hints = [job.hints for job in read]
        before = bar.tasks[0].completed
        bar.update(task, description=read[0].path.name)

        def advance(progress: Progress) -> None:
            share = progress.done / progress.total
            bar.update(task, completed=before + share * len(jobs))

        try:
            results = interruptible.call(
                lambda: self._restorer.restore_many(
                    photos,
                    self._settings,
                    holes=holes,
                    hints=hints,
                    on_progress=advance,
                )
            )
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            for job in read:
                self._fail(job, "the device has too little memory; give --large=shrink")
            return
        if self._args.check_steps:
            self._check_steps(photos, holes, read, results)
        for job, result in zip(read, results, strict=True):
            try:
                self._save(job, result)
            except UserError as error:
                self._fail(job, error)
                continue
            self._done += 1
            for warning in result.warnings:
                _warn(bar, f"{job.path}: {warning}")

    def _check_steps(
        self,
        photos: Sequence[Any],
        holes: Sequence[Any],
        jobs: Sequence[Job],
        results: Sequence[Result],
    ) -> None:
        """Prints how far results are from those of twice as many steps."""
        count = self._settings.steps["num_steps"]
        twice = dataclasses.replace(self._settings, num_steps=2 * count)
        hints = [job.hints for job in jobs]
        finer = interruptible.call(
            lambda: self._restorer.restore_many(photos, twice, holes=holes, hints=hints)
        )
        for job, result, fine in zip(jobs, results, finer, strict=True):
            a, b = (np.stack(r.pictures).astype(np.float64) for r in (result, fine))
            error = np.sqrt(np.mean((a - b) ** 2))
            print(
                f"{job.path}: {count} steps are {error:.2f} of 255 (root mean square)"
                f" from {2 * count} steps"
            )

    def _save(self, job: Job, result: Result) -> None:
        about = job.about()
        targets = job.targets(self._settings, self._suffix)
        if result.alpha is not None and self._suffix == ".jpg":
            result.warnings.append("a JPEG has no opacity; png keeps it")
        photo_results.save_diversity(job, result, about)
        for index, target in enumerate(targets):
            result.save(target, index=index, about=about)
            print(target, flush=True)

    def _fail(self, job: Job, why: object) -> None:
        text = str(why)
        self._failed.append(text if str(job.path) in text else f"{job.path}: {text}")


def _warn(bar: Any, text: str) -> None:
    # In a pipe, rich would wrap lines at 80 columns.
    bar.console.print(text, markup=False, soft_wrap=True)


def _is_same(target: pathlib.Path, path: pathlib.Path) -> bool:
    return target.exists() and path.exists() and target.samefile(path)


def _compare_weights(like: Mapping[str, Any], restorer: Restorer) -> None:
    old, now = (about.get("weights_crc32") for about in (like, restorer.about))
    if like and old != now:
        print(
            f"the weights are not those of {like.get('input')} in --like (step"
            f" {like.get('step')}, now {restorer.about['step']}): results will differ",
            file=sys.stderr,
        )


def _settings(
    args: argparse.Namespace, like: dict[str, Any], restorer: Restorer
) -> Settings:
    old = Settings.from_json(like["settings"]) if like else None
    task = args.task or (old.task if old else None)
    if task is None and len(restorer.task_names) == 1:
        task = restorer.task_names[0]
    if task is None:
        raise UserError(
            f"expected --task out of {', '.join(restorer.task_names)}, which the"
            " network was trained for, got none"
        )
    extend = None
    if isinstance(args.extend_share, Sides):
        if args.side:
            raise UserError(
                f"expected a share with --side={args.side}, got sides in --extend;"
                " leave --side out"
            )
        extend = args.extend_share
    elif args.side or args.extend_share is not None:
        if not args.side:
            raise UserError("expected --side with --extend, got none; e.g. --side=all")
        share = 0.5 if args.extend_share is None else args.extend_share
        extend = Sides.of(args.side, share)
    return photo_flags.settings(args, task, like=old, extend=extend)


def _read_like(path: str) -> dict[str, Any]:
    about = files.read_about(path)
    if about is None or "settings" not in about:
        raise UserError(
            f"expected a result of `palette-jax restore` in --like={path}, got a file"
            " without its settings"
        )
    return about
