"""The only matcher of names: finds the picture of a mask, a result or a list's line.

Exact names come first; ambiguous names are refused.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence

from palette_jax.errors import UserError, some_of
from palette_jax.pictures import image_list
from palette_jax.pictures.walk import key


class AmbiguousError(UserError):
    """A name that could mean several pictures."""


def by_stem(names: Iterable[str], place: object) -> dict[str, str]:
    """Returns the names by their `walk.key`.

    Raises:
      AmbiguousError: if two names differ only in their extension.
    """
    found: dict[str, str] = {}
    for name in names:
        if key(name) in found:
            raise AmbiguousError(
                f"expected one picture for each name in {place}, got"
                f" {found[key(name)]} and {name}, which differ only in their"
                " extension; remove one of them"
            )
        found[key(name)] = name
    return found


def partner(name: str, others: Sequence[str]) -> str | None:
    """Returns the file that belongs to a picture, such as its mask.

    This is the file of the same path, else the only file with the same stem.

    Raises:
      AmbiguousError: if several files have the same stem and none the same extension.
    """
    if name in others:
        return name
    alike = [other for other in others if key(other) == key(name)]
    if len(alike) > 1:
        raise AmbiguousError(
            f"expected one file for {name}, got {', '.join(alike)}; keep one of them,"
            f" or name it {name}"
        )
    return alike[0] if alike else None


def find_listed(
    lines: Iterable[str], names: Iterable[str], place: object
) -> dict[str, str]:
    """Returns the picture of each line of a list.

    A line may end in a label; the whole line is tried first.

    Raises:
      UserError: if a line matches no picture, or several.
    """
    index = Names(names)
    meant: dict[str, str] = {}
    missing: list[str] = []
    for line in lines:
        found = next(filter(None, map(index.find, image_list.candidates(line))), None)
        if found is None:
            missing.append(line)
        else:
            meant[line] = found
    if missing:
        raise UserError(
            f"expected pictures for all names in {place}, got none for {len(missing)}:"
            f" {some_of(missing)}"
        )
    _check_distinct(meant, place)
    return meant


def _check_distinct(meant: Mapping[str, str], place: object) -> None:
    """Raises `AmbiguousError` for lines of different folders that mean one picture."""
    first: dict[str, str] = {}
    for line, name in meant.items():
        path = key(image_list.candidates(line)[-1])
        other = first.setdefault(name, path)
        if not f"/{path}".endswith(f"/{other}") and not f"/{other}".endswith(
            f"/{path}"
        ):
            raise AmbiguousError(
                f"expected a picture for each name in {place}, got {name} for {other}"
                f" and {path}; add the one that is missing, or remove its line"
            )


class Names:
    """Finds pictures by the names in a list."""

    def __init__(self, names: Iterable[str]):
        """Takes paths below a folder."""
        self._names: set[str] = set()
        self._by: dict[str, list[str]] = collections.defaultdict(list)
        for name in names:
            self._names.add(name)
            file = name.rsplit("/", 1)[-1]
            for known in {name, key(name), f"*/{file}", f"*/{key(file)}"}:
                self._by[known].append(name)

    def find(self, line: str) -> str | None:
        """Returns the picture of a line, None if there is none.

        Compares in this order: path, path without extension, file name, file name
        without extension.

        Raises:
          AmbiguousError: if the first matching comparison matches several pictures.
        """
        file = line.rsplit("/", 1)[-1]
        if line in self._names:
            return line
        for known in (key(line), f"*/{file}", f"*/{key(file)}"):
            found = self._by.get(known, [])
            if len(found) > 1:
                raise AmbiguousError(
                    f"expected one picture for {line!r}, got {', '.join(found[:3])};"
                    " write the path of one"
                )
            if found:
                return found[0]
        return None
