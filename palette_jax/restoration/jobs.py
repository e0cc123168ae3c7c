"""Finds the pictures of a command, their masks and the paths of results."""

import collections
import contextlib
import os
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from palette_jax.errors import UserError
from palette_jax.pictures import files, masks, match, walk
from palette_jax.pictures.files import Photo
from palette_jax.restoration.result import made_from
from palette_jax.restoration.settings import Settings


class Job(NamedTuple):
    """A picture to restore.

    Attributes:
      out: path of its result, without extension.
      invert: whether black is painted.
    """

    path: pathlib.Path
    out: pathlib.Path
    mask: pathlib.Path | None
    invert: bool = False
    hints: pathlib.Path | None = None

    def about(self) -> dict[str, Any]:
        """Returns checksums of the input files, to recognize results of them."""
        mask, hints = (
            None if path is None else (path.name, path.read_bytes())
            for path in (self.mask, self.hints)
        )
        return made_from(
            self.path.read_bytes(), mask=mask, invert=self.invert, hints=hints
        )

    def targets(self, settings: Settings, suffix: str) -> list[pathlib.Path]:
        """Returns the file of each sample."""
        if settings.num_samples == 1:
            return [_append(self.out, suffix)]
        return [_append(self.out, f"_seed{seed}{suffix}") for seed in settings.seeds]

    def beside(self, settings: Settings) -> dict[str, pathlib.Path]:
        """Returns the files of the grid and the deviation of the samples.

        They are named after the seeds.
        """
        if settings.num_samples == 1:
            return {}
        seeds = f"_seeds{settings.seeds[0]}-{settings.seeds[-1]}"
        return {
            what: _append(self.out, f"{seeds}_{what}.png")
            for what in ("grid", "deviation")
        }


class Found(NamedTuple):
    """The pictures of a command.

    Attributes:
      jobs: one for each picture.
      skipped: files of folders that are no pictures.
      results: of `restore` in the folder of their input, which are not restored.
    """

    jobs: list[Job]
    skipped: list[str]
    results: list[str]


def find_jobs(
    sources: Sequence[str],
    out: pathlib.Path,
    *,
    mask: str | None = None,
    invert: bool = False,
    hints: str | None = None,
) -> Found:
    """Finds the pictures of a command. Results of a folder keep its subfolders.

    Raises:
      UserError: if there are no pictures, or the mask does not exist.
    """
    if mask is not None and not pathlib.Path(mask).exists():
        raise UserError(f"expected a mask or a folder of masks, got no such: {mask}")
    for path in filter(None, (*sources, mask, hints)):
        if walk.is_special(path):
            raise UserError(
                f"expected files, got a pipe or a device: {path}; save it as a file"
            )
    found: list[tuple[pathlib.Path, pathlib.PurePath]] = []
    skipped: list[str] = []
    results: list[str] = []
    for source in map(pathlib.Path, sources):
        if source.is_dir():
            walked = _walk(source, out)
            made = _results(source, walked.names)
            names = [name for name in walked.names if name not in made]
            found += [(source / p, pathlib.PurePath(p)) for p in names]
            results += [f"{source}/{name}" for name in made]
            skipped += [f"{source}/{name}" for name in walked.skipped]
        else:  # Also a file that is not there: the others are restored.
            found.append((source, pathlib.PurePath(source.name)))
    if not found:
        raise UserError(
            f"expected pictures in {', '.join(sources)}, got none with an extension"
            " that Pillow knows, e.g. .jpg and .png;"
            f" {walk.Walk([], skipped).summary()}"
        )
    stems = [pathlib.PurePath(walk.stem(place.as_posix())) for _, place in found]
    count = collections.Counter(stems)
    masks_of = _masks(mask)
    jobs = []
    for (path, place), stem in zip(found, stems, strict=True):
        # If two names differ only in the extension, results keep the extension.
        name = place if count[stem] > 1 else stem
        own_hints = pathlib.Path(hints) if hints else None
        jobs.append(Job(path, out / name, masks_of(place), invert, own_hints))
    outs = collections.Counter(str(job.out) for job in jobs)
    twice = sorted(name for name, times in outs.items() if times > 1)
    if twice:
        raise UserError(
            f"expected pictures with different names, got several for {twice[0]};"
            " restore them into different folders, each with its own --out"
        )
    return Found(jobs, skipped, results)


def check_out(out: pathlib.Path) -> None:
    """Checks that results can be written to a folder, which may not exist yet.

    The first result creates the folder, so that a refused command leaves no folder.

    Raises:
      UserError: if the folder cannot be written to.
    """
    try:
        there = next(p for p in (out.absolute(), *out.absolute().parents) if _lies(p))
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write to {there}")
    except OSError as error:
        raise UserError(
            f"expected a folder for results that can be written, got {out} ({error});"
            " give another --out"
        ) from error


def _lies(path: pathlib.Path) -> bool:
    """Whether a path exists, also as a dangling link."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def hole_of(
    job: Job, photo: Photo
) -> tuple[UInt8[np.ndarray, "h w 1"] | None, list[str]]:
    """Reads the mask of a job.

    Raises:
      UserError: if the picture has no mask, or the mask is no picture.
    """
    if job.mask is None:
        return None, []
    if not job.mask.is_file():
        raise UserError(f"expected its mask at {job.mask}, got no such file")
    return masks.to_hole(files.read(job.mask), photo.pixels.shape, invert=job.invert)


def mask_preview(job: Job) -> pathlib.Path:
    """Returns the file that shows the hole of a picture."""
    return _append(job.out, "_mask.png")


def _masks(mask: str | None) -> Callable[[pathlib.PurePath], pathlib.Path | None]:
    """Returns a function from the relative path of a picture to its mask."""
    if mask is None:
        return lambda place: None
    path = pathlib.Path(mask)
    if not path.is_dir():
        return lambda place: path
    names = walk.walk(path, walk.pillow_extensions()).names

    def find(place: pathlib.PurePath) -> pathlib.Path:
        found = match.partner(place.as_posix(), names)
        return path / (found or f"{walk.stem(place.as_posix())}.png")

    return find


def _walk(folder: pathlib.Path, out: pathlib.Path) -> walk.Walk:
    """Returns the files of a folder, without results written into it."""
    results = out.resolve()
    if results == folder.resolve():
        raise UserError(
            f"expected results in another folder than the pictures, got {folder} for"
            " both; give another --out"
        )
    found = walk.walk(folder, walk.pillow_extensions())
    if folder.resolve() not in results.parents:
        return found

    def is_ours(name: str) -> bool:
        return results in (folder / name).resolve().parents

    return walk.Walk(
        *([name for name in names if not is_ours(name)] for names in found)
    )


def _results(folder: pathlib.Path, names: Sequence[str]) -> list[str]:
    """Returns the files that are results of other pictures of the folder."""
    inputs = {}
    for name in names:
        about = files.read_about(folder / name, is_decoded=False) or {}
        if isinstance(about.get("input_crc32"), int):
            inputs[name] = about["input_crc32"]
    there = set()
    for name in names if inputs else ():
        with contextlib.suppress(OSError):  # The error is told when it is restored.
            there.add(zlib.crc32((folder / name).read_bytes()))
    return [name for name, crc32 in inputs.items() if crc32 in there]


def _append(path: pathlib.Path, text: str) -> pathlib.Path:
    return path.with_name(path.name + text)
