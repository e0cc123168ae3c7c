"""Flags and output of the benchmarks: a table and JSON."""

import argparse
import json
import pathlib
from typing import Any

from benchmarks import machine, sizes

Row = dict[str, str | int | float | None]
"""Columns by title, units in the title."""


def make_parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Returns a parser with the flags that the benchmarks share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", default=f"runs/benchmarks/{name}.json")
    return parser


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the network and of the number of runs."""
    parser.add_argument("--size", choices=sizes.SIZES, nargs="+", default=["tiny"])
    parser.add_argument("--batch_size", type=int, default=0, help="0: of the size")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None)
    parser.add_argument("--count", type=int, default=10, help="of runs timed")


def table(rows: list[Row]) -> str:
    """Returns rows with the same columns as a table of Markdown."""
    titles = list(rows[0])
    cells = [titles, *([_text(row[title]) for title in titles] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = [
        " | ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True))
        for line in cells
    ]
    return "".join(f"| {line} |\n" for line in lines)


def show(rows: list[Row]) -> None:
    """Prints a table."""
    print(table(rows), flush=True)


def finish(path: str, rows: list[Row], **more: Any) -> None:
    """Prints the table and writes it, with the machine, as JSON."""
    about = machine.describe()
    print("  ".join(f"{key}: {value}" for key, value in about.items() if value != ""))
    show(rows)
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": about, "rows": rows, **more}, indent=1))
    print(f"written to {file}")


def _text(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
