"""`palette-jax panorama`: extends a photo several times."""

import argparse
import pathlib
import sys
from typing import Any

from palette_jax import interruptible
from palette_jax.config.build_restorer import load_restorer
from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.programs import flag_types, photo_flags
from palette_jax.restoration import panorama
from palette_jax.restoration.jobs import Job, check_out
from palette_jax.restoration.progress import Progress
from palette_jax.restoration.runner import progress_bar
from palette_jax.tasks import Sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("photo", metavar="PHOTO", help="the middle of the panorama")
    photo_flags.add_steps(parser)
    parser.add_argument(
        "--side",
        action="append",
        choices=Sides._fields,
        help="sides to extend, in turn (default: left and right)",
    )
    parser.add_argument(
        "--extend",
        dest="extend_share",
        default=0.5,
        type=photo_flags.share,
        metavar="SHARE",
        help="of the photo's width or height, added each time (default: 50%%)",
    )
    parser.add_argument(
        "--repeats",
        default=8,
        type=flag_types.whole(1),
        metavar="N",
        help="number of extensions of each side (default: %(default)s)",
    )
    photo_flags.add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the panorama after each extension; resumes a stopped one."""
    path = pathlib.Path(args.photo)
    check_out(pathlib.Path(args.out))
    target = pathlib.Path(args.out) / f"{path.stem}_panorama.png"
    photo = files.read(path)
    sides = args.side or ["left", "right"]
    settings = photo_flags.settings(
        args, "uncrop", extend=Sides.of(sides[0], args.extend_share)
    )
    turns = panorama.turns(photo, sides, repeats=args.repeats, share=args.extend_share)
    restorer = load_restorer(args.checkpoint, task="uncrop")
    about = {
        **restorer.about,
        **Job(path, target, None).about(),
        "settings": settings.to_json(),
        "sides": sides,
    }
    done = 0 if args.overwrite else _done(target, about)
    if done:
        photo = files.read(target)
        print(f"{min(done, len(turns))} of {len(turns)} extensions exist already")
    for warning in restorer.check(settings) if done < len(turns) else ():
        print(warning, file=sys.stderr)
    with progress_bar() as bar:
        task = bar.add_task(path.name, total=None)

        def advance(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        try:
            results = panorama.extend(
                restorer, photo, settings, turns[done:], on_progress=advance
            )
            while result := interruptible.call(lambda: next(results, None)):
                done += 1
                grown = result.as_photo()
                files.write(
                    target,
                    grown.pixels,
                    grown,
                    alpha=grown.alpha,
                    gray=grown.is_gray,
                    about={**about, "extensions": done},
                )
        except KeyboardInterrupt:
            bar.stop()
            print(
                f"stopped after {done} of {len(turns)} extensions; the same command"
                " resumes",
                file=sys.stderr,
            )
            return 130
    print(target)
    return 0


def _done(target: pathlib.Path, about: dict[str, Any]) -> int:
    """Returns the number of extensions in a file of this panorama; 0 without a file."""
    if not target.exists():
        return 0
    old = files.read_about(target) or {}
    if old != {**old, **about}:
        raise UserError(
            f"{target} exists and is no part of this panorama; give --overwrite, or"
            " another --out"
        )
    return old.get("extensions", 0)
