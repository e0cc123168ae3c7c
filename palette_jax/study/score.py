"""Computes fool rates and their intervals from the answers of a study."""

import collections
import csv
import json
import math
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from palette_jax.errors import UserError
from palette_jax.study.make import MIN_MILLISECONDS

_COLUMNS = (
    *("study", "attempt", "subject", "trial", "pair", "left", "answer"),
    *("seconds", "milliseconds", "shown", "screen"),
)
_MISSED_CATCHES = 1 / 3  # A person who misses more catch trials did not look.
_Z = 1.959963984540054  # Two-sided, 95%.
_RESAMPLES = 2000


class Answer(NamedTuple):
    """An answer of one person.

    Attributes:
      subject: the person, in one spelling of the name.
      trial: its position among the person's answers, from 1.
      method: of the result in the pair; empty for a catch trial.
      is_fooled: whether the person took the result for the camera's picture.
    """

    study: str
    subject: str
    trial: int
    picture: str
    method: str
    seconds: float
    is_fooled: bool
    milliseconds: int = 1000


Keys = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By study and pair: its picture, its method, and the place of the camera's."""


class Rate(NamedTuple):
    """How often people were fooled: a share of the answers, with its 95% interval.

    The share is 0.5 if results look like photographs.
    """

    count: int
    share: float
    low: float
    high: float


def read_keys(paths: Sequence[str]) -> Keys:
    """Reads the answer keys of `study make`, by study.

    Raises:
      UserError: naming a file that is no answer key.
    """
    keys = {}
    for path in paths:
        try:
            found = json.loads(pathlib.Path(path).read_text("utf8"))
            keys[found["study"]] = {
                pair: {name: answer[name] for name in ("picture", "method", "camera")}
                for pair, answer in found["pairs"].items()
            }
            if any(pair["camera"] not in (0, 1) for pair in found["pairs"].values()):
                raise ValueError("a camera that is not 0 or 1")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"expected an answer key of `study make`, got {path}"
                f" ({type(error).__name__}: {error})"
            ) from error
    return keys


def read(paths: Sequence[str], truth: Keys) -> list[Answer]:
    """Reads the answer files of all persons; a repeated file counts once.

    Raises:
      UserError: naming a file and a line in another form than the page's, or two files
        with answers of one person.
    """
    answers: list[Answer] = []
    owners: dict[tuple[str, str], str] = {}
    for path in {pathlib.Path(path).resolve(): path for path in paths}.values():
        found = _read_file(path, truth)
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


def filter_answers(answers: Sequence[Answer]) -> tuple[list[Answer], list[str]]:
    """Returns the answers that count, and notes about the others.

    Excludes fast answers, and persons who miss more than a third of the catch trials.
    """
    missed: dict[tuple[str, str], list[bool]] = collections.defaultdict(list)
    for answer in answers:
        if not answer.method:
            missed[answer.study, answer.subject].append(answer.is_fooled)
    out = {p for p, all_ in missed.items() if np.mean(all_) > _MISSED_CATCHES}
    notes = []
    if out:
        names = ", ".join(sorted(subject for _, subject in out))
        notes.append(f"excluded persons who missed catch trials: {names}")
    slow = [a for a in answers if a.milliseconds >= MIN_MILLISECONDS]
    if len(slow) < len(answers):
        notes.append(
            f"excluded: {len(answers) - len(slow)} answers in less than"
            f" {MIN_MILLISECONDS} ms"
        )
    kept = [a for a in slow if a.method and (a.study, a.subject) not in out]
    if not kept:
        raise UserError(f"expected answers that count, got none; {'; '.join(notes)}")
    return kept, notes


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
    """Returns the fool rate of each pair of method and time."""
    grouped: dict[tuple[str, float], list[Answer]] = collections.defaultdict(list)
    for answer in answers:
        grouped[answer.method, answer.seconds].append(answer)
    return {key: interval(group) for key, group in sorted(grouped.items())}


def lines(answers: Sequence[Answer]) -> list[str]:
    """Returns the table of the fool rates, with persons, studies and exclusions."""
    answers, notes = filter_answers(answers)
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
        f"{persons} {plural}, study {', '.join(studies)}. At 50% people cannot tell"
        " results from photographs. The interval is a bootstrap over persons and"
        " pictures.",
        *notes,
    ]


def _resampled(random: np.random.Generator, count: int) -> np.ndarray:
    """Returns how often each of `count` items is drawn, for each resample."""
    return random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)


def _read_file(path: str, truth: Keys) -> list[Answer]:
    try:
        text = pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the answers in {path}: {error}") from error
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise UserError(f"cannot read the answers in {path}: {error}") from error
    if not rows or tuple(rows[0]) != _COLUMNS:
        got = ",".join(rows[0]) if rows else "nothing"
        raise UserError(
            f"{path}: expected the columns {','.join(_COLUMNS)}, got {got[:200]}; name"
            " files that the page of the study saved"
        )
    answers: list[Answer] = []
    for number, row in enumerate(rows[1:], 2):
        if row:
            answers.append(_answer(row, f"{path}, line {number}", truth))
    if not answers:
        raise UserError(f"{path}: expected answers, got only the names of the columns")
    # The page shows nobody a picture twice; catch trials repeat pictures.
    for what, keys in (
        ("trial", [(a.study, a.subject, a.trial) for a in answers]),
        ("picture", [(a.study, a.subject, a.picture) for a in answers if a.method]),
    ):
        twice = [key for key, count in collections.Counter(keys).items() if count > 1]
        if twice:
            raise UserError(
                f"{path}: expected each {what} once, got {what} {twice[0][2]} of"
                f" {twice[0][1]!r} twice"
            )
    return answers


def _answer(row: list[str], place: str, truth: Keys) -> Answer:
    if len(row) != len(_COLUMNS):
        raise UserError(
            f"{place}: expected {len(_COLUMNS)} values, got {len(row)}: {','.join(row)}"
        )
    value = dict(zip(_COLUMNS, row, strict=True))
    for name, valid in (("answer", ("left", "right")), ("left", ("0", "1"))):
        if value[name] not in valid:
            raise UserError(
                f"{place}: expected {' or '.join(valid)} for {name}, got"
                f" {value[name]!r}"
            )
    if value["pair"] not in truth.get(value["study"], {}):
        raise UserError(
            f"{place}: expected a pair of an answer key, got {value['pair']!r} of study"
            f" {value['study']!r}; add its key with --key=FILE"
        )
    try:
        trial, seconds = int(value["trial"]), float(value["seconds"])
        milliseconds = int(value["milliseconds"])
        if not 0 < seconds < math.inf:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"{place}: expected numbers for trial, seconds and milliseconds, got"
            f" {value['trial']!r}, {value['seconds']!r} and {value['milliseconds']!r}"
        ) from error
    if not folded(value["subject"]):
        raise UserError(f"{place}: expected a subject, got none")
    about = truth[value["study"]][value["pair"]]
    taken = int(value["left"]) if value["answer"] == "left" else 1 - int(value["left"])
    return Answer(
        value["study"],
        folded(value["subject"]),
        trial,
        about["picture"],
        about["method"],
        seconds,
        taken != about["camera"],
        milliseconds,
    )


def folded(name: str) -> str:
    """Returns one spelling for all spellings of a person's name."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
