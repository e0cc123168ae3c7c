"""From the answers of a study to fool rates with their intervals."""

import collections
import csv
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from palette_jax.errors import UserError

_COLUMNS = (
    *("study", "subject", "trial", "picture", "method", "seconds"),
    *("camera_side", "answer", "fooled", "milliseconds"),
)
_Z = 1.959963984540054  # Two-sided, 95%.
_RESAMPLES = 2000


class Answer(NamedTuple):
    """An answer of one person.

    Attributes:
      study: of which page.
      subject: the person.
      trial: its place among the person's answers, from 1.
      picture: the name of the pair that was shown.
      method: whose picture was beside the camera's.
      seconds: how long the pair was shown.
      is_fooled: whether the method's picture was taken for the camera's.
    """

    study: str
    subject: str
    trial: int
    picture: str
    method: str
    seconds: float
    is_fooled: bool


class Rate(NamedTuple):
    """How often people were fooled.

    Attributes:
      count: of answers.
      share: of the answers, 0 to 1; 0.5 if nobody can tell.
      low: of the 95% interval.
      high: of the 95% interval.
    """

    count: int
    share: float
    low: float
    high: float


def read(paths: Sequence[str]) -> list[Answer]:
    """Reads the files of all persons; a file given twice counts once.

    Raises:
      UserError: naming the file and the line that is not as the page writes them, or
        the files of which one person's answers come twice.
    """
    answers: list[Answer] = []
    owners: dict[tuple[str, str], str] = {}
    for path in {pathlib.Path(path).resolve(): path for path in paths}.values():
        found = _read_file(path)
        for answer in found:
            person = (answer.study, answer.subject)
            owner = owners.setdefault(person, path)
            if owner != path:
                raise UserError(
                    f"expected each person's answers once, got those of"
                    f" {answer.subject!r} in {owner} and {path}; leave one out, or give"
                    " two persons two names"
                )
        answers += found
    return answers


def wilson(successes: int, count: int) -> Rate:
    """Returns a share and its 95% interval (Wilson 1927), within 0 and 1."""
    share = successes / count
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = share * (1 - share) / count + _Z**2 / (4 * count**2)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(spread)
    return Rate(count, share, max(middle - half, 0.0), min(middle + half, 1.0))


def interval(answers: Sequence[Answer]) -> Rate:
    """Returns the share of fooled answers and its 95% interval.

    Answers of one person, and of one picture, resemble each other. So persons and
    pictures are resampled, independently of each other (the pigeonhole bootstrap,
    Owen 2007, "The pigeonhole bootstrap"). The interval is never narrower than
    Wilson's, which counts answers as independent.
    """
    persons = sorted({(answer.study, answer.subject) for answer in answers})
    pictures = sorted({answer.picture for answer in answers})
    counts = np.zeros((len(persons), len(pictures)))
    fooled = np.zeros_like(counts)
    row_of = {person: row for row, person in enumerate(persons)}
    column_of = {picture: column for column, picture in enumerate(pictures)}
    for answer in answers:
        place = row_of[answer.study, answer.subject], column_of[answer.picture]
        counts[place] += 1
        fooled[place] += answer.is_fooled
    random = np.random.default_rng(0)
    rows = _resampled(random, len(persons))
    columns = _resampled(random, len(pictures))
    totals = np.sum((rows @ counts) * columns, axis=1)
    shares = np.sum((rows @ fooled) * columns, axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    rate = wilson(int(fooled.sum()), len(answers))
    return rate._replace(
        low=min(rate.low, float(low)), high=max(rate.high, float(high))
    )


def rates(answers: Iterable[Answer]) -> dict[tuple[str, float], Rate]:
    """Returns the fool rate of each method and time, the two of which never mix."""
    grouped: dict[tuple[str, float], list[Answer]] = collections.defaultdict(list)
    for answer in answers:
        grouped[answer.method, answer.seconds].append(answer)
    return {key: interval(group) for key, group in sorted(grouped.items())}


def lines(answers: Sequence[Answer]) -> list[str]:
    """Returns the table of the fool rates, and what it is of."""
    found = rates(answers)
    width = max(len(method) for method, _ in found) + 2
    table = [
        f"{'method':<{width}}{'shown':>7}{'answers':>9}{'fool rate':>11}   95% interval"
    ]
    for (method, seconds), rate in found.items():
        bounds = f"{100 * rate.low:.1f}% to {100 * rate.high:.1f}%"
        table.append(
            f"{method:<{width}}{f'{seconds:g} s':>7}{rate.count:>9}"
            f"{100 * rate.share:>10.1f}%   {bounds}"
        )
    persons = len({(answer.study, answer.subject) for answer in answers})
    studies = sorted({answer.study for answer in answers})
    plural = "person" if persons == 1 else "persons"
    return [
        *table,
        f"{persons} {plural}, study {', '.join(studies)}. 50% means that nobody can"
        " tell. The interval is a bootstrap over persons and pictures.",
    ]


def _resampled(random: np.random.Generator, count: int) -> np.ndarray:
    """Returns how often each of `count` things is drawn, for each resample."""
    return random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)


def _read_file(path: str) -> list[Answer]:
    try:
        text = pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the answers in {path}: {error}") from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or tuple(rows[0]) != _COLUMNS:
        got = ",".join(rows[0]) if rows else "nothing"
        raise UserError(
            f"{path}: expected the columns {','.join(_COLUMNS)}, got {got[:200]}; give"
            " the files that the page of the study saves"
        )
    answers: list[Answer] = []
    for number, row in enumerate(rows[1:], 2):
        if row:
            answers.append(_answer(row, f"{path}, line {number}"))
    if not answers:
        raise UserError(f"{path}: expected answers, got only the names of the columns")
    trials = [(a.study, a.subject, a.trial) for a in answers]
    if len(set(trials)) < len(trials):
        twice = next(trial for trial in trials if trials.count(trial) > 1)
        raise UserError(
            f"{path}: expected each trial once, got trial {twice[2]} of {twice[1]!r}"
            " twice"
        )
    return answers


def _answer(row: list[str], place: str) -> Answer:
    if len(row) != len(_COLUMNS):
        raise UserError(
            f"{place}: expected {len(_COLUMNS)} values, got {len(row)}: {','.join(row)}"
        )
    value = dict(zip(_COLUMNS, row, strict=True))
    for name in ("camera_side", "answer"):
        if value[name] not in ("left", "right"):
            raise UserError(
                f"{place}: expected left or right for {name}, got {value[name]!r}"
            )
    is_fooled = value["answer"] != value["camera_side"]
    if value["fooled"] != str(int(is_fooled)):
        raise UserError(
            f"{place}: expected fooled={int(is_fooled)}, since the camera's picture was"
            f" {value['camera_side']} and the answer {value['answer']}, got"
            f" {value['fooled']!r}"
        )
    try:
        trial, seconds = int(value["trial"]), float(value["seconds"])
    except ValueError as error:
        raise UserError(
            f"{place}: expected numbers for trial and seconds, got"
            f" {value['trial']!r} and {value['seconds']!r}"
        ) from error
    if not value["method"] or not value["subject"]:
        raise UserError(f"{place}: expected a method and a subject, got none")
    return Answer(
        value["study"],
        value["subject"],
        trial,
        value["picture"],
        value["method"],
        seconds,
        is_fooled,
    )
