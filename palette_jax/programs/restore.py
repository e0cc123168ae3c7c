"""`palette-jax restore`: the pictures of a user, restored one by one to files."""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from palette_jax.config.build_restorer import SHIPPED, load_restorer
from palette_jax.errors import UserError, some_of
from palette_jax.pictures import files, masks
from palette_jax.programs import flag_types, photo_flags
from palette_jax.restoration.jobs import (
    Job,
    check_out,
    find_jobs,
    hole_of,
    mask_preview,
)
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import read_about
from palette_jax.restoration.runner import JobRunner
from palette_jax.restoration.settings import MAX_SAMPLES, Settings
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
        "--num-samples",
        type=flag_types.whole(1, high=MAX_SAMPLES),
        metavar="N",
        help="different results for each",
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
    photo_flags.add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Restores what the flags name; returns 1 if a picture could not be."""
    like, _ = read_about(args.like) if args.like else ({}, None)
    old = like.get("settings", {})
    is_same_task = args.task in (None, old.get("task"))
    for name in ("checkpoint", "mask", "hints") if is_same_task else ("checkpoint",):
        # A result holds names alone, not places.
        if like.get(name) and not getattr(args, name):
            raise UserError(
                f"expected --{name} with --like, since the result was made with one"
                f" named {like[name]}, got none; give --{name}=PATH"
            )
    mask = args.mask
    invert = args.invert or (is_same_task and like.get("invert", False))
    jobs, skipped, results = find_jobs(
        args.photos, pathlib.Path(args.out), mask=mask, invert=invert, hints=args.hints
    )
    check_out(pathlib.Path(args.out))
    if results:
        print(
            f"{len(results)} results in the folder of their pictures are left out:"
            f" {some_of(results)}; name one to restore it",
            file=sys.stderr,
        )
    if args.check_mask:
        return _check_masks(jobs, args.overwrite)
    named = args.checkpoint
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
    _check_used(args, settings)
    restorer.check(settings)
    if args.check_steps and restorer.student_steps:
        raise UserError(
            "expected a network that can take twice as many steps with --check-steps,"
            f" got one that was distilled for {restorer.student_steps}; leave"
            " --check-steps out"
        )
    return JobRunner(
        restorer,
        settings,
        suffix=f".{args.format}",
        overwrite=args.overwrite,
        check_steps=args.check_steps,
        as_json=args.json,
    ).restore(jobs, skipped)


def _check_used(args: argparse.Namespace, settings: Settings) -> None:
    """Raises `UserError` for a flag that the task would ignore."""
    task = TASKS[settings.task]
    is_colorize = settings.task == "colorize"
    for flag, given, is_used in (
        ("--side", args.side, task.extends),
        ("--extend", args.extend_share is not None, task.extends),
        ("--keep-luminance", args.keep_luminance, is_colorize),
        ("--hints", args.hints, is_colorize),
        ("--invert", args.invert, task.needs_mask),
    ):
        if given and not is_used:
            raise UserError(
                f"expected no {flag} with task {task.name}, which ignores it; leave it"
                " out"
            )


def _check_masks(jobs: Sequence[Job], overwrite: bool) -> int:
    """Writes each picture with its hole in red; returns 1 if one could not be."""
    failed = 0
    for job in jobs:
        target = mask_preview(job)
        try:
            if target.exists() and not overwrite:
                raise UserError(f"{target} exists; give --overwrite, or another --out")
            photo = files.read(job.path)
            hole, warnings = hole_of(job, photo)
            if hole is None:
                raise UserError("expected --mask with --check-mask, got none")
            files.write(
                target,
                masks.shown(photo.pixels, hole),
                files.Photo(photo.pixels),
                about=job.about(),
            )
        except UserError as error:
            failed += 1
            print(f"error: {job.path}: {error}", file=sys.stderr)
            continue
        for warning in warnings:
            print(f"{job.path}: {warning}", file=sys.stderr)
        print(f"{target}: {hole.mean():.1%} would be painted")
    return 1 if failed else 0


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
