"""The list of checkpoints, and hashes of their files to detect damage.

Orbax would restore a flipped bit as a wrong number.

The manifest is the last file of a checkpoint before orbax commits it, by renaming the
folder or, in a bucket, by writing `commit_success.txt`. So every finished checkpoint
has a manifest, even if the process was killed at any moment.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from etils import epath

NAME = "manifest.json"
COMMITTED = "commit_success.txt"
# Orbax writes these while it commits, after the manifest. Nothing reads their content:
# the time of the commit, and a marker file.
_LATER = (NAME, COMMITTED, "_CHECKPOINT_METADATA")
_CHUNK = 1 << 22


def write(step_dir: epath.Path) -> None:
    """Writes the manifest of a checkpoint; the last file of a save."""
    names = [name for name in _names(step_dir) if name not in _LATER]
    files = dict(zip(names, _hash_all(step_dir, names), strict=True))
    manifest = {"files": files, "sha256_of_files": _hash_of(files)}
    (step_dir / NAME).write_text(json.dumps(manifest, indent=1))


def exists(step_dir: epath.Path) -> bool:
    """Returns whether a checkpoint has a manifest; first versions wrote none."""
    return (step_dir / NAME).exists()


def fingerprint(step_dir: epath.Path) -> str:
    """Returns a hash of a checkpoint's manifest; empty without one."""
    if not exists(step_dir):
        return ""
    return json.loads((step_dir / NAME).read_bytes())["sha256_of_files"]


def problem(step_dir: epath.Path, *, below: str = "") -> str | None:
    """Returns a description of damaged files of a checkpoint; None if there are none.

    Reads all files, in parallel threads.

    Args:
      step_dir: of a checkpoint with a manifest.
      below: checks only the files of one part, such as `config/`.
    """
    try:
        manifest = json.loads((step_dir / NAME).read_bytes())
        files = manifest["files"]
        if _hash_of(files) != manifest["sha256_of_files"]:
            return f"{NAME} is damaged"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} is damaged"
    names = [name for name in files if name.startswith(below)]
    missing = [name for name in names if not (step_dir / name).exists()]
    if missing:
        return _list(missing, "missing")
    found = _hash_all(step_dir, names)
    return _list(
        [n for n, entry in zip(names, found, strict=True) if entry != files[n]],
        "damaged",
    )


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns an absolute local path, which orbax needs; leaves gs:// unchanged."""
    path = epath.Path(path)
    # `absolute` of etils would put the present folder before gs://.
    return path if "://" in str(path) else path.absolute()


def committed_steps(directory: epath.PathLike) -> list[int]:
    """Returns the steps of finished checkpoints, the newest first."""
    root = epath.Path(directory)
    paths = list(root.iterdir()) if root.exists() else []
    steps = [int(p.name) for p in paths if p.name.isdigit() and is_committed(p)]
    return sorted(steps, reverse=True)


def last_finished(directory: epath.PathLike) -> str:
    """Returns a clause on the newest checkpoint, for the error of a failed write."""
    steps = committed_steps(directory)
    clause = f"step {max(steps)} is" if steps else "none is"
    return f"{clause} the last finished checkpoint"


def delete(step_dir: epath.Path) -> None:
    """Deletes a checkpoint; if killed in between, readers ignore the rest."""
    (step_dir / COMMITTED).unlink()
    step_dir.rmtree()


def is_committed(path: epath.Path) -> bool:
    """Returns whether a folder is a finished checkpoint."""
    return path.name.isdigit() and (path / COMMITTED).exists()


def _hash_all(step_dir: epath.Path, names: list[str]) -> list[dict[str, Any]]:
    with futures.ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda name: _hash(step_dir / name), names))


def _hash(path: epath.Path) -> dict[str, Any]:
    """Returns the size and the hash of a file; hashing lets other threads run."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _hash_of(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _names(folder: epath.Path, *, prefix: str = "") -> Iterator[str]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir():
            yield from _names(path, prefix=f"{prefix}{path.name}/")
        else:
            yield prefix + path.name


def _list(names: list[str], what: str) -> str | None:
    if not names:
        return None
    more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} {what}"
